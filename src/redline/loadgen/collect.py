"""What the load worker reports, put together again as Records."""

from __future__ import annotations

import math
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
    the gaps of a long trial anew each second would cost more than the statistics. Of several workers, each tells up to
    when it has told everything; what lies beyond the first of these times waits, so that nothing comes in between.
    """

    def __init__(self, workers: int = 1) -> None:
        self._settled: list[_Columns] = []
        self._open = _empty()  # finished after a request that still runs
        self._live = [_empty()] * workers
        self._until_s = [0.0] * workers

    def add(self, columns: Mapping[str, bytes], until_s: float = math.inf, worker: int = 0) -> None:
        """One report of a worker: it holds all that it sent of what was scheduled before `until_s`."""
        self._open = _joined([self._open, _parsed(columns, "done.")])
        self._live[worker] = _parsed(columns, "live.")
        self._until_s[worker] = until_s
        self._settle()

    def records(self, now_s: float) -> Records:
        """Everything that all workers have told of, as seen at `now_s`."""
        self._settled = [_joined(self._settled)] if self._settled else []
        unsettled = _ordered(_joined([self._open, *self._live]))
        told = int(np.searchsorted(unsettled["scheduled_s"], min(self._until_s)))
        everything = _joined([*self._settled, _slice(unsettled, 0, told)])
        offsets = np.concatenate([[0], np.cumsum(everything.pop("gap_count"), dtype=np.int64)])
        del everything["i"]
        if not everything["held_s"].any():
            everything["held_s"] = np.zeros(0)
        return Records(observed_s=now_s, gap_offsets=offsets, **everything)  # type: ignore[arg-type]  # by name

    def _settle(self) -> None:
        oldest_s = min(float(live["scheduled_s"].min(initial=math.inf)) for live in self._live)
        rows = _ordered(self._open)
        settled = int(np.searchsorted(rows["scheduled_s"], min(oldest_s, *self._until_s)))
        self._settled.append(_slice(rows, 0, settled))
        self._open = _slice(rows, settled, len(rows["i"]))


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
    """In order of the schedule, requests of one time by their numbers; gaps with them."""
    order = np.lexsort((rows["i"], rows["scheduled_s"]))
    counts = rows["gap_count"].astype(np.int64)
    starts = np.cumsum(counts) - counts
    counts, starts = counts[order], starts[order]
    moved = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
    gaps: Ints = rows["gaps_us"][moved].astype(np.int32)
    return {name: rows[name][order] for name in _TYPES if name != "gaps_us"} | {"gaps_us": gaps}
