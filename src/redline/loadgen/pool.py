"""The connections to one server: resolved once, opened ahead, the one used last used next."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys

from redline.loadgen.conn import Conn, Exchange
from redline.loadgen.parse import Response
from redline.loadgen.payload import Target
from redline.loadgen.sources import Address, Connect, SocketSource, StreamSource, describe, not_sent
from redline.loadgen.stamps import Stamps
from redline.model import RedlineError

_CONNECT_S = 10.0
_AT_ONCE = 32  # connections opened at the same time: servers' backlogs are short


class Pool:
    """Keeps connections; opens one more when all are busy, without a limit of its own."""

    def __init__(self, address: Address, connect: Connect | None = None) -> None:
        self.stamps = Stamps()
        self.address = address
        self.opened = 0
        self._loop = asyncio.get_running_loop()
        self._connect = connect or source_for(address)
        self._idle: list[Conn] = []  # the last one released is the warmest
        self._all: set[Conn] = set()
        self._warming: dict[Conn, asyncio.Future[None]] = {}

    @property
    def has_stamps(self) -> bool:
        """Whether arrivals are stamped by the kernel."""
        return self._connect is SocketSource

    def send(self, exchange: Exchange) -> None:
        """Send on an idle connection, else on a new one. OSError when there are no more file descriptors."""
        while self._idle:
            conn = self._idle.pop()
            if conn.alive:
                conn.begin(exchange)
                return
        self._open().begin(exchange)

    def drop(self, exchange: Exchange, why: str) -> None:
        """End an exchange from our side: its connection is closed, so that the server stops working on it."""
        conn = exchange.conn
        if conn is not None:
            conn.close()
            self._all.discard(conn)
        exchange.response.give_up(why)

    async def prewarm(self, count: int, within_s: float = _CONNECT_S) -> str:
        """Have `count` idle connections; what the last failure said, if any."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self._prewarm(count)
        return "timed out while connecting"

    def close(self) -> None:
        """Close every connection."""
        for conn in list(self._all):
            conn.close()
        self._all.clear()
        self._idle.clear()

    # ---- what connections call ----

    def free(self, conn: Conn) -> None:
        if conn.alive:
            self._idle.append(conn)
        else:
            self._all.discard(conn)
        waiting = self._warming.pop(conn, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def stale(self, exchange: Exchange) -> None:
        """Once more, on a connection of its own."""
        exchange.retried, exchange.response = True, Response(keep_text=exchange.response.text is not None)
        try:
            self._open().begin(exchange)
        except OSError as error:
            exchange.response.give_up(not_sent(error))
            exchange.ended(exchange)

    # ----

    async def _prewarm(self, count: int) -> str:
        self._idle = [conn for conn in self._idle if conn.alive]
        while (missing := count - len(self._idle)) > 0:
            conns = []
            for _ in range(min(missing, _AT_ONCE)):
                try:
                    conn = self._open()
                except OSError as error:
                    return describe(error)
                self._warming[conn] = self._loop.create_future()
                conns.append(conn)
            await asyncio.wait([self._warming[conn] for conn in conns])
            for conn in conns:
                if not conn.alive:
                    return conn.lost_why
        return ""

    def _open(self) -> Conn:
        conn = Conn(self, self.stamps)
        conn.attach(self._connect(self._loop, conn, self.address))
        self._all.add(conn)
        self.opened += 1
        return conn


async def find_address(target: Target) -> Address:
    """The first address of the host that takes a connection. RedlineError when none does."""
    where = f"{target.host}:{target.port}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RedlineError(
            f"cannot find the host of {target.origin}: {error.strerror or error}; check the URL"
        ) from error
    tls = _context(target.insecure) if target.scheme == "https" else None
    why = ""
    for family, _, _, _, sockaddr in found:
        address = Address(family=family, sockaddr=sockaddr, tls=tls, name=target.host)
        pool = Pool(address)
        try:
            said = await pool.prewarm(1)
        finally:
            pool.close()
        if not said:
            return address
        why = why or said
    raise RedlineError(f"cannot connect to {where}: {why}; {_advice(why, target)}")


def source_for(address: Address) -> Connect:
    """Kernel stamps where they exist."""
    return SocketSource if sys.platform == "linux" and address.tls is None else StreamSource


def _context(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _advice(why: str, target: Target) -> str:
    if why.startswith("certificate"):
        return "name its authority in SSL_CERT_FILE, or turn the check off with --insecure"
    if why.startswith("TLS"):
        return f"if the server speaks plain HTTP, write http://{target.authority}{target.prefix}"
    return "check the URL, and that the server runs"
