"""What a server says in one JSON object: text, counts, or the reason of a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

_WORDS_LIMIT = 300  # characters of the server's own words that are kept


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
