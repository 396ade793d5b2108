"""What the load worker reports, put together again as Records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from redline.records import Ints, Records

_TYPES: dict[str, type[np.generic]] = {
    "i": np.int64,
    "scheduled_s": np.float64,
    "sent_s": np.float64,
    "first_s": np.float64,
    "end_s": np.float64,
    "tokens_in": np.int32,
    "tokens_out": np.int32,
    "tokens_asked": np.int32,
    "status": np.uint8,
    "gap_count": np.int32,
    "gaps_us": np.int32,
    "held_s": np.float64,
}
_Columns: TypeAlias = dict[str, NDArray[np.generic]]


class Collector:
    """Takes finished requests once and those in flight as they stand; gives all of them in order of the schedule.

    Requests end in any order. Those before the first that still runs are settled, and are sorted only once: sorting
    the gaps of a long trial anew each second would cost more than the statistics.
    """

    def __init__(self) -> None:
        self._settled: list[_Columns] = []
        self._settled_count = 0
        self._open = _empty()  # finished after a request that still runs
        self._live = _empty()

    def add(self, columns: Mapping[str, bytes]) -> None:
        """One report of the worker."""
        self._open = _joined([self._open, _parsed(columns, "done.")])
        self._live = _parsed(columns, "live.")
        self._settle()

    def records(self, now_s: float) -> Records:
        """Everything, as seen at `now_s`."""
        self._settled = [_joined(self._settled)] if self._settled else []
        everything = _joined([*self._settled, _ordered(_joined([self._open, self._live]))])
        offsets = np.concatenate([[0], np.cumsum(everything.pop("gap_count"), dtype=np.int64)])
        del everything["i"]
        if not everything["held_s"].any():
            everything["held_s"] = np.zeros(0)
        return Records(observed_s=now_s, gap_offsets=offsets, **everything)  # type: ignore[arg-type]  # by name

    def _settle(self) -> None:
        rows = _ordered(self._open)
        numbers = rows["i"].astype(np.int64)
        settled = int(np.sum(numbers == self._settled_count + np.arange(len(numbers))))
        self._settled.append(_slice(rows, 0, settled))
        self._open = _slice(rows, settled, len(numbers))
        self._settled_count += settled


def _parsed(columns: Mapping[str, bytes], prefix: str) -> _Columns:
    return {name: np.frombuffer(columns.get(prefix + name, b""), kind) for name, kind in _TYPES.items()}


def _empty() -> _Columns:
    return {name: np.zeros(0, kind) for name, kind in _TYPES.items()}


def _joined(parts: list[_Columns]) -> _Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in _TYPES}


def _slice(rows: _Columns, start: int, end: int) -> _Columns:
    ends = np.concatenate([[0], np.cumsum(rows["gap_count"], dtype=np.int64)])
    part = {name: rows[name][start:end] for name in _TYPES if name != "gaps_us"}
    return part | {"gaps_us": rows["gaps_us"][ends[start] : ends[end]]}


def _ordered(rows: _Columns) -> _Columns:
    """Sorted by request number, gaps with them."""
    order = np.argsort(rows["i"], kind="stable")
    counts = rows["gap_count"].astype(np.int64)
    starts = np.cumsum(counts) - counts
    counts, starts = counts[order], starts[order]
    moved = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
    gaps: Ints = rows["gaps_us"][moved].astype(np.int32)
    return {name: rows[name][order] for name in _TYPES if name != "gaps_us"} | {"gaps_us": gaps}
