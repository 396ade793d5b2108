"""The two byte sources of a connection: a socket read with the kernel's receive stamps, and asyncio's transports."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from redline.loadgen.conn import Conn, Source
from redline.loadgen.stamps import ANCILLARY_SIZE, SO_TIMESTAMPNS
from redline.records import NOT_SENT

_BUFFER = memoryview(bytearray(65_536))  # shared by all transports: what is read is parsed at once
_MOST_BYTES = 16_384  # of one read; Python makes room for so many, and gives back what is left


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where to connect to: resolved once."""

    family: int
    sockaddr: tuple[Any, ...]
    tls: ssl.SSLContext | None = None
    name: str = ""  # the host that the certificate must name

    @property
    def text(self) -> str:
        return str(self.sockaddr[0])


Connect: TypeAlias = Callable[[asyncio.AbstractEventLoop, Conn, Address], Source]


class SocketSource:
    """A non-blocking socket on the loop's selector: plain http on Linux."""

    __slots__ = ("_conn", "_fd", "_loop", "_receive", "_rest", "_socket", "_why", "_writing")

    def __init__(self, loop: asyncio.AbstractEventLoop, conn: Conn, address: Address) -> None:
        self._loop, self._conn = loop, conn
        self._rest = memoryview(b"")
        self._why = ""  # what sending ran into
        self._writing = True  # on the selector for writing
        self._socket = _socket(address.family)
        self._fd = self._socket.fileno()
        with contextlib.suppress(OSError):  # a kernel without such stamps: reads are stamped when they happen
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._receive = self._socket.recvmsg
        error = self._socket.connect_ex(address.sockaddr)
        if error not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise OSError(error, os.strerror(error))
        loop.add_writer(self._fd, self._connected)

    def write(self, data: bytes) -> None:
        self._rest = memoryview(data)
        self._send()

    def flushed(self) -> bool:
        return not self._rest

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
            self._socket.close()

    def _connected(self) -> None:
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._conn.lost(describe(OSError(error, os.strerror(error))))
            return
        self._loop.remove_writer(self._fd)
        self._writing = False
        self._loop.add_reader(self._fd, self._readable)
        self._conn.opened()

    def _send(self) -> None:
        """Send what the socket takes; the rest of a long prompt when it takes more."""
        rest = self._rest
        try:
            rest = rest[self._socket.send(rest) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:  # the server may have answered before it closed: reading comes to that, or to the end
            rest, self._why = memoryview(b""), describe(error)
        self._rest = rest
        if self._writing and not rest:
            self._loop.remove_writer(self._fd)
        elif rest and not self._writing:
            self._loop.add_writer(self._fd, self._send)
        self._writing = bool(rest)

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._receive(_MOST_BYTES, ANCILLARY_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._conn.lost(describe(error))
            return
        if data:
            conn = self._conn
            conn.received(data, conn.stamps.arrived_ns(ancillary, time.monotonic_ns()))
        else:
            self._conn.lost(self._why)


class StreamSource(asyncio.BufferedProtocol):
    """An asyncio transport: https, and systems without kernel stamps."""

    def __init__(self, loop: asyncio.AbstractEventLoop, conn: Conn, address: Address) -> None:
        self._loop = loop
        self._conn: Conn | None = conn
        self._transport: asyncio.Transport | None = None
        self._opening = loop.create_task(self._open(address, _socket(address.family)))

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def flushed(self) -> bool:
        return self._transport is not None and not self._transport.get_write_buffer_size()

    def close(self) -> None:
        self._conn = None
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _open(self, address: Address, sock: socket.socket) -> None:
        try:
            await self._loop.sock_connect(sock, address.sockaddr)
            name = address.name if address.tls else None
            await self._loop.create_connection(lambda: self, sock=sock, ssl=address.tls, server_hostname=name)
        except OSError as error:  # of ssl too
            sock.close()
            self._lost(describe(error))
        except asyncio.CancelledError:
            sock.close()
            raise

    # ---- what asyncio calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # what create_connection makes
        self._transport = transport
        if self._conn is not None:
            self._conn.opened()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the protocol's signature
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        now_ns = time.monotonic_ns()
        if self._conn is not None:
            self._conn.received(bytes(_BUFFER[:nbytes]), now_ns)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(describe(error) if isinstance(error, OSError) else "")

    def _lost(self, why: str) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.lost(why)


def not_sent(error: OSError) -> str:
    """Why a request was never sent."""
    return f"{NOT_SENT}{describe(error)}"


def describe(error: OSError) -> str:
    """What went wrong on a connection, in words that do not change from one request to the next."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection reset by the server"
    return (os.strerror(error.errno) if error.errno else str(error)).lower() or type(error).__name__


def _socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
