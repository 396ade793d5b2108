"""HTTP answers as LLM servers give them: real ones from tests/data/streams, and ones made here."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STREAMS = Path(__file__).parent / "data" / "streams"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def recorded(name: str) -> bytes:
    """A stored answer as it went over the wire: curl took the chunks away, this puts them back."""
    head, _, body = (STREAMS / name).read_bytes().partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return head + b"\r\n\r\n" + body
    return head + b"\r\n\r\n" + chunked(part + b"\n\n" for part in body.split(b"\n\n") if part.strip())


def chunked(parts: Iterable[bytes]) -> bytes:
    """A chunked body."""
    return b"".join(chunk(part) for part in parts) + b"0\r\n\r\n"


def chunk(part: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%s\r\n" % (len(part), part)


def event(value: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(finish: str | None = None, **delta: Any) -> bytes:
    """One event of a chat answer."""
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def usage(prompt: int, completion: int) -> bytes:
    """The event that ends most streams."""
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


def stream(*events: bytes) -> bytes:
    """A whole streamed answer."""
    return HEAD + chunked(events)


def answer(tokens: int, prompt: int = 7) -> bytes:
    """A good answer of so many tokens."""
    words = [delta(content=" word") for _ in range(tokens)]
    return stream(delta(role="assistant", content=""), *words, delta("length"), usage(prompt, tokens), DONE)


def plain(code: int, body: bytes, kind: str = "application/json", *headers: str) -> bytes:
    """An answer that is no stream."""
    lines = [f"HTTP/1.1 {code} Said", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
