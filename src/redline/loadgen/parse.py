"""One HTTP response to a streamed completion, from its bytes to its class, its tokens and their times.

Knows no socket and no clock: whoever reads the bytes says when they arrived.
"""

from __future__ import annotations

from array import array
from typing import Any

import httptools
import orjson

from redline.records import Status

_REJECTED = (429, 503)
_BODY_LIMIT = 1_048_576  # of answers that are no stream: error texts, /v1/models
_WORDS_LIMIT = 300  # characters of the server's own words that are kept
_GAP_LIMIT_US = 2**31 - 1


class Response:
    """Fed with bytes until `ended`; then `outcome` says what it was."""

    __slots__ = (
        "_body",
        "_complete",
        "_data",
        "_event",
        "_events_seen",
        "_framed",
        "_held",
        "_now_ns",
        "_parser",
        "_skip_newline",
        "_stream",
        "broken",
        "code",
        "done",
        "ended",
        "events",
        "finish",
        "first_ns",
        "gaps_us",
        "headers",
        "last_choice_ns",
        "last_ns",
        "received",
        "reusable",
        "tokens_in",
        "tokens_out",
    )

    def __init__(self) -> None:
        self.code = 0
        self.headers: dict[str, str] = {}  # only what `_KEPT` names
        self.received = False  # any byte at all
        self.ended = False
        self.reusable = False  # the connection may carry another request
        self.broken = ""  # what went wrong, in words
        self.done = False  # [DONE] was seen
        self.finish: str | None = None
        self.events = 0  # with content
        self.first_ns = self.last_ns = self.last_choice_ns = 0
        self.gaps_us: array[int] = array("i")
        self.tokens_in = self.tokens_out = -1  # from usage
        self._now_ns = 0
        self._complete = self._stream = self._framed = self._skip_newline = False
        self._held = b""  # an unfinished line
        self._data: bytes | None = None  # of the unfinished event
        self._event = b""
        self._events_seen = False
        self._body = bytearray()
        self._parser: Any = httptools.HttpResponseParser(self)

    # ---- what the connection calls ----

    def feed(self, data: bytes | memoryview, now_ns: int) -> None:
        """Take the next bytes, which arrived at `now_ns`."""
        parser = self._parser
        if parser is None:
            self.reusable = False  # bytes after the end belong to nothing that was asked
            return
        self.received, self._now_ns = True, now_ns
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:
                self._break(f"not an HTTP response: {error}")
            self.reusable = False
            self._end()
        if self._complete:
            self._end()

    def lost(self, why: str, now_ns: int) -> None:
        """The connection ended with `why`; an orderly close may have been the end of the message."""
        if self.ended:
            return
        self._now_ns = now_ns
        closes_well = self.code and not self._framed and not why
        if self._stream:
            self._finish_stream()
        if not (closes_well or self.done or self.finish):
            self._break(why or self._early())
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
            return Status.REJECTED, f"HTTP {self.code}: {self._words()}"
        if self.code >= 400:
            return Status.FAILED, f"HTTP {self.code}: {self._words()}"
        if self.broken:
            return Status.FAILED, self.broken
        if self.code >= 300:
            return Status.FAILED, f"HTTP {self.code}: redirected to {self.headers.get('location', 'nowhere')}"
        if not self._stream or not (self._events_seen or self._said_stream()):
            return Status.FAILED, self._not_a_stream()
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

    # ---- server-sent events ----

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
                self._break(f"error event: {_cut(data.decode(errors='replace'))}")
            elif data.strip():
                self._break(f"an event that is no JSON object: {_cut(data.decode(errors='replace'))}")
            return
        choices = event.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self._choose(choice)
        usage = event.get("usage")
        if isinstance(usage, dict):
            self.tokens_in = _count(usage, "prompt_tokens")
            self.tokens_out = _count(usage, "completion_tokens")
        if not choices and (event.get("error") or event.get("object") == "error" or self._event == b"error"):
            self._break(f"error event: {_said(event)}")

    def _choose(self, choice: dict[str, Any]) -> None:
        now_ns = self.last_choice_ns = self._now_ns
        if _has_content(choice):
            if self.events:
                self.gaps_us.append(min((now_ns - self.last_ns) // 1_000, _GAP_LIMIT_US))
            else:
                self.first_ns = now_ns
            self.last_ns = now_ns
            self.events += 1
        finish = choice.get("finish_reason")
        if finish:
            self.finish = str(finish)

    # ---- ends ----

    def _break(self, why: str) -> None:
        if not self.broken:
            self.broken = why

    def _end(self) -> None:
        self.ended = True
        self._parser = None  # it holds our bound methods: without this each response would be a cycle

    def _early(self) -> str:
        if not self.received:
            return "the server closed the connection without an answer"
        return "the server closed the connection early"

    def _said_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def _words(self) -> str:
        try:
            answer = orjson.loads(self._body)
        except orjson.JSONDecodeError:
            answer = None
        if isinstance(answer, dict):
            return _said(answer)
        return _cut(self._body.decode(errors="replace")) or "no words"

    def _not_a_stream(self) -> str:
        try:
            answer = orjson.loads(self._body)
        except orjson.JSONDecodeError:
            answer = None
        if isinstance(answer, dict) and answer.get("error"):
            return f"HTTP {self.code}: {_said(answer)}"
        if isinstance(answer, dict) and answer.get("choices"):
            return "answered with one JSON document, not with a stream"
        return f"answered with {self.headers.get('content-type', 'no content type')}, not with a stream"


_KEPT = frozenset(
    (b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"location", b"server")
)


def _has_content(choice: dict[str, Any]) -> bool:
    """Text, content, reasoning or tool-call arguments; a role or an empty delta is none."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return bool(choice.get("text"))
    if delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
        return True
    calls = delta.get("tool_calls")
    return isinstance(calls, list) and any(_arguments(call) for call in calls)


def _arguments(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and bool(function.get("arguments"))


def _count(usage: dict[str, Any], name: str) -> int:
    count = usage.get(name)
    return count if isinstance(count, int) else -1


def _said(answer: dict[str, Any]) -> str:
    """The message in an error answer, wherever servers put it."""
    for key in ("error", "message", "detail"):
        value = answer.get(key)
        if isinstance(value, dict) and value.get("message"):
            return _cut(str(value["message"]))
        if value:
            return _cut(value if isinstance(value, str) else orjson.dumps(value).decode())
    return _cut(orjson.dumps(answer).decode())


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _WORDS_LIMIT else text[: _WORDS_LIMIT - 1] + "…"
