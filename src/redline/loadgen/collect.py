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
        """Everything that all workers have told of, as seen at `now_s`.

        What is settled then lies in the records' own columns, and nowhere else.
        """
        unsettled = _ordered(_joined([self._open, *self._live]))
        told = int(np.searchsorted(unsettled["scheduled_s"], min(self._until_s)))
        settled = sum(len(part["scheduled_s"]) for part in self._settled)
        everything = _moved([*self._settled, _slice(unsettled, 0, told)])
        offsets = _offsets(everything["gap_count"])
        self._settled = [
            {name: column[: offsets[settled] if name == "gaps_us" else settled] for name, column in everything.items()}
        ]
        del everything["gap_count"]
        if not everything["held_s"].any():
            everything["held_s"] = np.zeros(0)
            self._settled[0]["held_s"] = np.broadcast_to(np.float64(0.0), settled)  # which takes no memory
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


def _moved(parts: list[_Columns]) -> _Columns:
    """The same without their numbers; each part gives its columns away, or a long trial would be there twice."""
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in _TYPES if name != "i"}


def _offsets(gap_counts: NDArray[np.generic]) -> NDArray[np.int64]:
    """Where the gaps of each request begin, and where those of the last one end."""
    offsets = np.zeros(len(gap_counts) + 1, np.int64)
    np.cumsum(gap_counts, out=offsets[1:])
    return offsets


def _slice(rows: _Columns, start: int, end: int) -> _Columns:
    ends = _offsets(rows["gap_count"])
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
