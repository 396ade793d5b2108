"""The tokens of a stream: how many have come, and when; and to know the next one without reading its JSON.

Servers write each token into an event like the one before, of which nothing but the text differs, and each event into a
chunk of HTTP of its own.
"""

from __future__ import annotations

from array import array
from typing import Any

import orjson

_GAP_LIMIT_US = 2**31 - 1
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


class Tokens:
    """How many came, and when: nanoseconds of the monotonic clock, and the gaps between them in microseconds."""

    __slots__ = ("_after", "_before", "_told_ns", "events", "first_ns", "gaps_us", "last_ns", "quick")

    def __init__(self) -> None:
        self.events = 0  # with content
        self.first_ns = self.last_ns = 0
        self.gaps_us: array[int] = array("i")
        self.quick = False  # nothing of a chunk or of an event is held back
        self._told_ns = 0  # the first token plus all gaps: what rounding took from one goes to the next
        self._before = self._after = b""  # the text of an event like those before; empty: not known

    def count(self, arrived_ns: int) -> None:
        """One more has come."""
        self.last_ns = arrived_ns
        if self.events:
            gap_us = (arrived_ns - self._told_ns) // 1_000
            if not 0 <= gap_us <= _GAP_LIMIT_US:
                gap_us = 0 if gap_us < 0 else _GAP_LIMIT_US
            self.gaps_us.append(gap_us)
            self._told_ns += 1_000 * gap_us
        else:
            self.first_ns = self._told_ns = arrived_ns
        self.events += 1

    def count_alike(self, data: bytes, arrived_ns: int) -> bool:
        """Count what came if it is one chunk of HTTP with one event like those before; False: look closer."""
        before, after, size = self._before, self._after, len(data)
        if not self.quick or not after or size >= _LONGEST:
            return False
        head = _HEADS[size]
        start = len(head)
        if not (start and data.startswith(head) and data.startswith(before, start) and data.endswith(after)):
            return False
        text = data[start + len(before) : -len(after)]
        if text not in _known and not _plain(text):
            return False
        self.count(arrived_ns)
        return True

    def learn(self, event: bytes, found: dict[str, Any]) -> None:
        """What the events of this stream have in common, if this one has nothing but text to tell."""
        choices = found.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or found.get("usage") or not isinstance(choices[0], dict):
            return
        where, name = (choices[0], "text") if "delta" not in choices[0] else (choices[0]["delta"], "content")
        if choices[0].get("finish_reason") or not isinstance(where, dict) or not where.get(name):
            return
        key = b'"%s":' % name.encode()
        start = event.find(b'"', event.find(key) + len(key)) + 1
        end = event.find(b'"', start)
        if not 0 < start < end:
            return
        before, after = event[:start], event[end:]
        where[name] = "x"
        try:
            same = orjson.loads(before + b"x" + after) == found  # else the text stands elsewhere, or holds a quote
        except orjson.JSONDecodeError:
            return
        if same:
            self._before, self._after = b"data: " + before, after + b"\n\n\r\n"


def _plain(text: bytes) -> bool:
    """Whether a text ends where it seems to: no quote is in it, and none is escaped. Tokens come again and again."""
    if not text or any(byte in text for byte in b'"\n\r') or text.endswith(b"\\"):
        return False
    if len(_known) < _MOST_KNOWN:
        _known.add(text)
    return True


_HEADS = _heads()
