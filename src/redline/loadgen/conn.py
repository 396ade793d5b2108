"""One HTTP connection that carries one exchange at a time, whatever moves its bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from redline.loadgen.parse import Response
from redline.loadgen.stamps import Stamps


class Exchange:
    """One request on its way, and what came back."""

    __slots__ = ("conn", "ended", "payload", "response", "retried", "sent_ns")

    def __init__(self, payload: bytes, ended: Callable[[Any], None]) -> None:
        self.payload = payload
        self.ended = ended  # called with this exchange, once
        self.response = Response()
        self.sent_ns = 0  # just before its first byte was handed over
        self.retried = False
        self.conn: Conn | None = None


class Source(Protocol):
    """Moves bytes for a Conn and tells it: `opened`, `received`, `lost`."""

    def write(self, data: bytes) -> None: ...

    def flushed(self) -> bool:
        """Whether everything written has left."""

    def close(self) -> None: ...


class Owner(Protocol):
    """Who keeps the connections."""

    def free(self, conn: Conn) -> None:
        """It can carry an exchange, or is gone (`alive` is False)."""

    def stale(self, exchange: Exchange) -> None:
        """The server had closed the connection before it saw this exchange."""


class Conn:
    """A connection that is being opened, idle, or busy with `exchange`, until it is not `alive`."""

    __slots__ = ("_owner", "_source", "_used", "alive", "exchange", "is_open", "lost_why", "stamps")

    def __init__(self, owner: Owner, stamps: Stamps) -> None:
        self.stamps = stamps
        self.exchange: Exchange | None = None
        self.is_open = False
        self.alive = True
        self.lost_why = ""
        self._owner = owner
        self._source: Source | None = None
        self._used = False  # has carried an exchange before the one it carries now

    def attach(self, source: Source) -> None:
        """Give it what moves its bytes."""
        self._source = source

    def begin(self, exchange: Exchange) -> None:
        """Send a request, now or as soon as the connection is open."""
        self.exchange, exchange.conn = exchange, self
        if self.is_open:
            self._write(exchange)

    def close(self) -> None:
        """Drop the connection; an exchange on it ends only by its owner's doing."""
        self.alive = False
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.conn = None
        source, self._source = self._source, None
        if source is not None:
            source.close()

    # ---- what the source calls ----

    def opened(self) -> None:
        """It can send."""
        self.is_open = True
        if self.exchange is not None:
            self._write(self.exchange)
        else:
            self._owner.free(self)

    def received(self, data: bytes, arrived_ns: int) -> None:
        """Bytes have come."""
        exchange = self.exchange
        if exchange is None:  # nobody asked for these: do not trust the connection
            self.close()
            self._owner.free(self)
            return
        exchange.payload = b""  # it will not be sent again
        exchange.response.feed(data, arrived_ns)
        if exchange.response.ended:
            self._finish(exchange)

    def lost(self, why: str) -> None:
        """No more bytes will come; `why` is empty for an orderly close by the server."""
        exchange, self.lost_why = self.exchange, why or "the server closed the connection"
        if exchange is None:
            self.close()
            self._owner.free(self)
            return
        exchange.response.lost(why, time.monotonic_ns())
        self._finish(exchange)

    # ----

    def _write(self, exchange: Exchange) -> None:
        exchange.sent_ns = time.monotonic_ns()
        if self._source is not None:
            self._source.write(exchange.payload)

    def _finish(self, exchange: Exchange) -> None:
        stale = self._used and not exchange.response.received and not exchange.retried
        self._used = True
        if not exchange.response.reusable or self._source is None or not self._source.flushed():
            self.close()
        self.exchange, exchange.conn = None, None
        self._owner.free(self)
        if stale:
            self._owner.stale(exchange)
        else:
            exchange.ended(exchange)
