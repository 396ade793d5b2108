"""Just enough HTTP/1.1 for a server behind a load generator: bytes to requests, answers to bytes. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

_MAX_HEAD = 65_536
_MAX_BODY = 64 * 1024 * 1024

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpError(Exception):
    """A request that cannot be read; the connection closes after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    """One request, complete with its body."""

    method: str
    path: str  # without the query
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Head:
    method: str
    path: str
    headers: Mapping[str, str]
    keep_alive: bool


class Parser:
    """Bytes in any portions to requests. `wants_continue` is set while a client waits for 100 Continue."""

    def __init__(self) -> None:
        self.wants_continue = False
        self._buffer = bytearray()
        self._head: _Head | None = None

    def feed(self, data: bytes) -> list[HttpRequest]:
        """The requests that these bytes complete, or HttpError."""
        self._buffer += data
        requests = []
        while (request := self._next()) is not None:
            requests.append(request)
        if len(self._buffer) > _MAX_BODY:
            raise HttpError(413, f"the body is larger than {_MAX_BODY} bytes")
        return requests

    def _next(self) -> HttpRequest | None:
        if self._head is None:
            while self._buffer.startswith(b"\r\n"):  # tolerated before a request line
                del self._buffer[:2]
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _MAX_HEAD:
                    raise HttpError(431, "the header is too large")
                return None
            self._head = _parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            self.wants_continue = self._head.headers.get("expect", "").lower() == "100-continue"
        head = self._head
        body = self._chunked() if head.headers.get("transfer-encoding", "").lower() == "chunked" else self._sized(head)
        if body is None:
            return None
        self._head, self.wants_continue = None, False
        return HttpRequest(
            method=head.method, path=head.path, headers=head.headers, body=body, keep_alive=head.keep_alive
        )

    def _sized(self, head: _Head) -> bytes | None:
        text = head.headers.get("content-length", "0")
        if not (text.isascii() and text.isdigit()):
            raise HttpError(400, f"content-length is {text!r}")
        size = int(text)
        if size > _MAX_BODY:
            raise HttpError(413, f"the body is larger than {_MAX_BODY} bytes")
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return body

    def _chunked(self) -> bytes | None:
        parts: list[bytes] = []
        at = 0
        while True:
            line_end = self._buffer.find(b"\r\n", at)
            if line_end < 0:
                return None
            try:
                size = int(bytes(self._buffer[at:line_end]).split(b";")[0], 16)
            except ValueError:
                raise HttpError(400, "a chunk has no size") from None
            if size < 0:
                raise HttpError(400, "a chunk has no size")
            at = line_end + 2
            if size == 0:
                end = self._buffer.find(b"\r\n", at)  # trailers are not supported: the body ends with an empty line
                if end < 0:
                    return None
                del self._buffer[: end + 2]
                return b"".join(parts)
            if len(self._buffer) < at + size + 2:
                return None
            parts.append(bytes(self._buffer[at : at + size]))
            at += size + 2


def _parse_head(raw: bytes) -> _Head:
    line, *rest = raw.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise HttpError(400, f"not an HTTP/1.1 request: {line[:80]!r}")
    headers: dict[str, str] = {}
    for header in rest:
        name, colon, value = header.partition(":")
        if not colon or name != name.strip():
            raise HttpError(400, f"not a header: {header[:80]!r}")
        headers[name.lower()] = value.strip()
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection if words[2] == "HTTP/1.1" else "keep-alive" in connection
    return _Head(method=words[0], path=words[1].partition("?")[0], headers=headers, keep_alive=keep_alive)


def answer(status: int, body: bytes, content_type: str = "application/json", *, keep_alive: bool = True) -> bytes:
    """A whole answer."""
    close = "" if keep_alive else "connection: close\r\n"
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\n"
    return f"{head}content-length: {len(body)}\r\n{close}\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    """Data as one chunk of a chunked answer."""
    return b"%x\r\n%b\r\n" % (len(data), data)
