"""One HTTP response to a streamed completion, from its bytes to its class, its tokens and their times.

Knows no socket and no clock: whoever reads the bytes says when they arrived.
"""

from __future__ import annotations

from typing import Any

import httptools
import orjson

from redline.loadgen.event import closed, count_of, cut, has_content, no_stream, said, words_of
from redline.loadgen.tokens import Tokens
from redline.records import Status

_REJECTED = (429, 503)
_BODY_LIMIT = 1_048_576  # of answers that are no stream: error texts, /v1/models


class Response(Tokens):
    """Fed with bytes until `ended`; then `outcome` says what it was."""

    __slots__ = (
        "_between",
        "_body",
        "_complete",
        "_data",
        "_event",
        "_events_seen",
        "_framed",
        "_held",
        "_parser",
        "_skip_newline",
        "_stream",
        "arrived_ns",
        "broken",
        "code",
        "done",
        "ended",
        "finish",
        "headers",
        "last_choice_ns",
        "received",
        "reusable",
        "text",
        "tokens_in",
        "tokens_out",
    )

    def __init__(self, *, keep_text: bool = False) -> None:
        super().__init__()
        self.code = 0
        self.text: str | None = "" if keep_text else None  # what the answer said, without its reasoning
        self.headers: dict[str, str] = {}  # only what `_KEPT` names
        self.received = False  # any byte at all
        self.ended = False
        self.reusable = False  # the connection may carry another request
        self.broken = ""  # what went wrong, in words
        self.done = False  # [DONE] was seen
        self.finish: str | None = None
        self.last_choice_ns = 0  # of an event that was read, with content or without
        self.tokens_in = self.tokens_out = -1  # from usage
        self.arrived_ns = 0  # the last bytes that were read, and not only counted
        self._complete = self._stream = self._framed = self._skip_newline = False
        self._between = False  # at the end of a chunk of HTTP
        self._held = b""  # an unfinished line
        self._data: bytes | None = None  # of the unfinished event
        self._event = b""
        self._events_seen = False
        self._body = bytearray()
        self._parser: Any = httptools.HttpResponseParser(self)

    # ---- what the connection calls ----

    def feed(self, data: bytes, now_ns: int) -> None:
        """Take the next bytes, which arrived at `now_ns`."""
        if self.count_alike(data, now_ns):
            return
        self.arrived_ns = now_ns
        if self.quick:
            data = self._read_quickly(data)
            if not data:
                return
        parser = self._parser
        if parser is None:
            self.reusable = False  # bytes after the end belong to nothing that was asked
            return
        self.received = True
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:
                self._break(f"not an HTTP response: {error}")
            self.reusable = False
            self._end()
        if self._complete:
            self._end()
        elif not self.ended:
            held = self._held or self._skip_newline or self._data is not None or self._event
            self.quick = self._stream and self._between and not held and data[-2:] == b"\r\n"

    def lost(self, why: str, now_ns: int) -> None:
        """The connection ended with `why`; an orderly close may have been the end of the message."""
        if self.ended:
            return
        self.arrived_ns = now_ns
        closes_well = self.code and not self._framed and not why
        if self._stream:
            self._finish_stream()
        if not (closes_well or self.done or self.finish):
            self._break(why or closed(self.received))
        self.reusable = False
        self._end()

    def give_up(self, why: str) -> None:
        """End it from our side."""
        self._break(why)
        self.reusable = False
        self._end()

    # ---- what it was ----

    def outcome(self, tokens_asked: int) -> tuple[Status, str]:
        """Its class, and the words for a failure. Only once it has ended."""
        if self.code in _REJECTED:
            return Status.REJECTED, f"HTTP {self.code}: {words_of(self._body)}"
        if self.code >= 400:
            return Status.FAILED, f"HTTP {self.code}: {words_of(self._body)}"
        if self.broken:
            return Status.FAILED, self.broken
        if self.code >= 300:
            return Status.FAILED, f"HTTP {self.code}: redirected to {self.headers.get('location', 'nowhere')}"
        if not self._stream or not (self._events_seen or self._said_stream()):
            return Status.FAILED, no_stream(self.code, self.headers, self._body)
        if self.finish in ("error", "abort"):
            return Status.FAILED, f"finish_reason: {self.finish}"
        if not self.events and self.tokens_out <= 0 and tokens_asked > 0:
            return Status.FAILED, "the stream ended without any token"
        if not self.done and self.finish is None:
            return Status.FAILED, "the stream ended without [DONE] or a finish_reason"
        return Status.OK, ""

    @property
    def streamed(self) -> bool:
        """Whether the answer was an event stream."""
        return self._stream and (self._events_seen or self._said_stream())

    @property
    def body(self) -> bytes:
        """The body of an answer that was no stream, cut at a megabyte."""
        return bytes(self._body)

    # ---- what httptools calls ----

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key in _KEPT:
            self.headers[key.decode("latin-1")] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self.code = self._parser.get_status_code()
        self._framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        kind = self.headers.get("content-type", "")
        self._stream = self.code == 200 and "json" not in kind  # some servers forget to say that it is one
        if self.headers.get("content-encoding", "identity") != "identity":
            self._break(f"compressed ({self.headers['content-encoding']}) although Accept-Encoding was identity")

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        if self._stream:
            self._split(body)
        elif len(self._body) < _BODY_LIMIT:
            self._body += body

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if 100 <= self.code < 200:  # 100 Continue: the answer proper follows
            self.code, self.headers = 0, {}
            return
        if self._stream:
            self._finish_stream()
        self.reusable = bool(self._parser.should_keep_alive())
        self._complete = True

    def on_message_begin(self) -> None:
        if self._complete:
            self.reusable = False

    def on_chunk_header(self) -> None:
        self._between = False

    def on_chunk_complete(self) -> None:
        self._between = True

    # ---- server-sent events ----

    def _read_quickly(self, data: bytes) -> bytes:
        """Take the chunks that hold one event each, as servers write them; what is left needs a closer look.

        A chunk that is skipped whole leaves the parser where it was: between two chunks.
        """
        start, size = 0, len(data)
        while start < size:
            head = data.find(b"\r\n", start, start + 10)
            if head < 0 or not data.startswith(b"data: {", head + 2):
                break
            try:
                end = head + 2 + int(data[start:head], 16)
                event = data[head + 8 : end - 2]
                if data[end - 2 : end + 2] != b"\n\n\r\n" or b"\n" in event or b"\r" in event:
                    break
                self._hear_whole(event)
            except ValueError:
                break
            start = end + 2
        return data[start:]

    def _split(self, data: bytes) -> None:
        """Lines end with \\n, \\r\\n or \\r, and may be cut anywhere."""
        if self._skip_newline:
            data = data.removeprefix(b"\n")
            self._skip_newline = False
        if b"\r" in data:
            self._skip_newline = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = (self._held + data).split(b"\n")
        self._held = lines.pop()
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        if not line:
            if self._data is not None:
                data, self._data = self._data, None
                self._take(data)
            self._event = b""
        elif line.startswith(b"data:"):
            data = line[6:] if line[5:6] == b" " else line[5:]
            self._data = data if self._data is None else self._data + b"\n" + data
        elif line.startswith(b"event:"):
            self._event = line[6:].strip()
        elif line.startswith(b"\xef\xbb\xbf"):  # a byte order mark may open the stream
            self._line(line[3:])

    def _finish_stream(self) -> None:
        """The last event may lack its blank line."""
        if self._held:
            held, self._held = self._held, b""
            self._line(held)
        if self._data:
            self._line(b"")

    def _take(self, data: bytes) -> None:
        self._events_seen = True
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            event = None
        if not isinstance(event, dict):
            if self._event == b"error":
                self._break(f"error event: {cut(data.decode(errors='replace'))}")
            elif data.strip():
                self._break(f"an event that is no JSON object: {cut(data.decode(errors='replace'))}")
            return
        self._hear(event)

    def _hear_whole(self, event: bytes) -> None:
        """Read its JSON; from the second token of a stream learn what the others look like."""
        found, before = orjson.loads(event), self.events
        self._events_seen = True
        self._hear(found)
        if before == 1 and self.events == 2 and self.text is None:
            self.learn(event, found)

    def _hear(self, event: dict[str, Any]) -> None:
        choices = event.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self._choose(choice)
        usage = event.get("usage")
        if usage and isinstance(usage, dict):
            self.tokens_in = count_of(usage, "prompt_tokens")
            self.tokens_out = count_of(usage, "completion_tokens")
        if not choices and (event.get("error") or event.get("object") == "error" or self._event == b"error"):
            self._break(f"error event: {said(event)}")

    def _choose(self, choice: dict[str, Any]) -> None:
        self.last_choice_ns = self.arrived_ns
        delta = choice.get("delta")
        if (delta.__class__ is dict and delta.get("content")) or has_content(choice):
            self.count(self.arrived_ns)
            if self.text is not None and delta.__class__ is dict:
                self.text += str(delta.get("content") or "")
        finish = choice.get("finish_reason")
        if finish:
            self.finish = str(finish)

    # ---- ends ----

    def _break(self, why: str) -> None:
        if not self.broken:
            self.broken = why

    def _end(self) -> None:
        self.ended, self.quick = True, False
        self._parser = None  # it holds our bound methods: without this each response would be a cycle

    def _said_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


_KEPT = frozenset(
    (b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"location", b"server")
)
