"""What a server says in one JSON object: text, counts, or the reason of a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

_WORDS_LIMIT = 300  # characters of the server's own words that are kept
_LONGEST = 4_096  # bytes of a chunk that is known by its bytes
_MOST_KNOWN = 100_000  # texts without anything odd that are remembered
_known: set[bytes] = set()


def _heads() -> list[bytes]:
    """By the size of a whole chunk of HTTP, the line that it begins with; empty where no chunk has that size."""
    heads = [b""] * _LONGEST
    for size in range(1, _LONGEST):
        head = b"%x\r\n" % size
        if (whole := len(head) + size + 2) < _LONGEST:
            heads[whole] = head
    return heads


class Like:
    """Events that differ from one with content in nothing but their text: to know one needs no reading of its JSON."""

    __slots__ = ("_end", "_start")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._start, self._end = b"data: " + before, after + b"\n\n\r\n"

    def fills(self, data: bytes) -> bool:
        """Whether these bytes are one chunk of HTTP with one such event."""
        if len(data) >= _LONGEST:
            return False
        head, start, end = _HEADS[len(data)], self._start, self._end
        if not (head and data.startswith(head) and data.startswith(start, len(head)) and data.endswith(end)):
            return False
        text = data[len(head) + len(start) : -len(end)]
        return text in _known or _plain(text)


def _plain(text: bytes) -> bool:
    """Whether a text ends where it seems to: no quote is in it, and none is escaped. Tokens come again and again."""
    if not text or any(byte in text for byte in b'"\n\r') or text.endswith(b"\\"):
        return False
    if len(_known) < _MOST_KNOWN:
        _known.add(text)
    return True


def like(event: bytes, found: dict[str, Any]) -> Like | None:
    """What events have in common with this one, if it has nothing but text to tell."""
    choices = found.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or found.get("usage") or not isinstance(choices[0], dict):
        return None
    where, name = (choices[0], "text") if "delta" not in choices[0] else (choices[0]["delta"], "content")
    if choices[0].get("finish_reason") or not isinstance(where, dict) or not where.get(name):
        return None
    key = b'"%s":' % name.encode()
    start = event.find(b'"', event.find(key) + len(key)) + 1
    end = event.find(b'"', start)
    if not 0 < start < end:
        return None
    before, after = event[:start], event[end:]
    where[name] = "x"
    try:
        same = orjson.loads(before + b"x" + after) == found  # else the text stands elsewhere, or holds a quote
    except orjson.JSONDecodeError:
        return None
    return Like(before, after) if same else None


def has_content(choice: dict[str, Any]) -> bool:
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


def count_of(usage: dict[str, Any], name: str) -> int:
    """A count of tokens; -1 where there is none."""
    count = usage.get(name)
    return count if isinstance(count, int) else -1


def closed(received: bool) -> str:
    """Of a connection that ended before its answer did."""
    return f"the server closed the connection {'early' if received else 'without an answer'}"


def words_of(body: bytes | bytearray) -> str:
    """Why it refused, by the body of its answer."""
    answer = _object(body)
    if answer is not None:
        return said(answer)
    return cut(body.decode(errors="replace")) or "no words"


def no_stream(code: int, headers: Mapping[str, str], body: bytes | bytearray) -> str:
    """What came where a stream should have."""
    answer = _object(body) or {}
    if answer.get("error"):
        return f"HTTP {code}: {said(answer)}"
    if answer.get("choices"):
        return "answered with one JSON document, not with a stream"
    return f"answered with {headers.get('content-type', 'no content type')}, not with a stream"


def _object(body: bytes | bytearray) -> dict[str, Any] | None:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def said(answer: dict[str, Any]) -> str:
    """The message in an error answer, wherever servers put it."""
    for key in ("error", "message", "detail"):
        value = answer.get(key)
        if isinstance(value, dict) and value.get("message"):
            return cut(str(value["message"]))
        if value:
            return cut(value if isinstance(value, str) else orjson.dumps(value).decode())
    return cut(orjson.dumps(answer).decode())


def cut(text: str) -> str:
    """On one line, and not too long."""
    text = " ".join(text.split())
    return text if len(text) <= _WORDS_LIMIT else text[: _WORDS_LIMIT - 1] + "…"


_HEADS = _heads()
