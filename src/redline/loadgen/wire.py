"""Messages between the driver and its load worker: a JSON header, then columns of numbers as they lie in memory."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

_SIZES = struct.Struct("=II")  # both ends run on one machine: native order
Header: TypeAlias = dict[str, Any]
Columns: TypeAlias = Mapping[str, "bytes | array[Any]"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message: `kind`, its facts, and its columns by name as raw bytes."""

    kind: str
    header: Header
    columns: Mapping[str, bytes] = field(default_factory=dict)


def encode(kind: str, header: Header, columns: Columns | None = None) -> bytes:
    """The bytes of one message."""
    blobs = {name: memoryview(column).cast("B") for name, column in (columns or {}).items() if len(column)}
    sizes = [[name, len(blob)] for name, blob in blobs.items()]
    head = orjson.dumps({**header, "kind": kind, "columns": sizes}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([_SIZES.pack(len(head), sum(size for _, size in sizes)), head, *blobs.values()])


class Decoder:
    """Bytes in any pieces -> whole messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Every message that `data` completes."""
        self._held += data
        while len(self._held) >= _SIZES.size:
            head_size, body_size = _SIZES.unpack_from(self._held)
            start, end = _SIZES.size + head_size, _SIZES.size + head_size + body_size
            if len(self._held) < end:
                return
            header = orjson.loads(self._held[_SIZES.size : start])
            columns: dict[str, bytes] = {}
            for name, size in header.pop("columns"):
                columns[name] = bytes(self._held[start : start + size])
                start += size
            del self._held[:end]
            yield Message(kind=header.pop("kind"), header=header, columns=columns)
