"""When bytes arrived, by the kernel's receive stamp where there is one, and how late they were read."""

from __future__ import annotations

import struct
import time
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

SO_TIMESTAMPNS = 35  # the socket module does not name it; the same on every architecture Python runs on here
ANCILLARY_SIZE = 64
_TIMESPEC = struct.Struct("@ll")
_TRIES = 30
_LONGEST_DELAY_NS = 60_000_000_000  # beyond it the wall clock was set, not the read late


class Histogram:
    """Counts of microseconds in buckets 3% wide: fixed memory, whatever the number of samples."""

    def __init__(self, counts: list[int] | None = None) -> None:
        self.counts = counts or [0] * 1_216

    def add(self, us: int) -> None:
        """Count one sample; negative ones count as 0."""
        if us < 64:
            self.counts[us if us > 0 else 0] += 1
        else:
            shift = min(us.bit_length(), 40) - 6
            self.counts[(shift << 5) + min(us >> shift, 63)] += 1

    def add_all(self, us: NDArray[np.int64]) -> None:
        """Count many."""
        us = np.maximum(us, 0)
        shift = np.clip(np.frexp(us.astype(np.float64))[1], 6, 40) - 6
        index = np.where(us < 64, us, (shift << 5) + np.minimum(us >> shift, 63))
        found = np.bincount(index, minlength=len(self.counts))
        self.counts = (np.array(self.counts) + found).tolist()

    def total(self) -> int:
        """Number of samples."""
        return sum(self.counts)

    def quantile_us(self, q: float) -> float:
        """The q-quantile; 0 without samples."""
        left = q * self.total()
        for index, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return _middle_us(index)
        return 0.0

    def share_over(self, us: float) -> float:
        """Share of the samples above `us`."""
        over = sum(count for index, count in enumerate(self.counts) if count and _middle_us(index) > us)
        return over / max(self.total(), 1)


def _middle_us(index: int) -> float:
    if index < 64:
        return float(index)
    shift = (index >> 5) - 1
    return float((index - (shift << 5)) << shift) + (1 << shift) / 2


class Stamps:
    """Turns the kernel's wall-clock stamps into monotonic time; keeps the delays of the reads of one trial."""

    def __init__(self) -> None:
        self._delays = Histogram()
        self._delays_ns = array("q")  # not counted yet
        self._offset_ns = 0
        self.reset()
        self.measure_offset()

    @property
    def read_delays(self) -> Histogram:
        """How long after the kernel's stamp bytes were read."""
        if self._delays_ns:
            self._delays.add_all(np.frombuffer(self._delays_ns, np.int64) // 1_000)
            self._delays_ns = array("q")
        return self._delays

    def reset(self) -> None:
        """Forget the delays: a new trial begins."""
        self._delays, self._delays_ns, self.from_kernel = Histogram(), array("q"), False

    def measure_offset(self) -> None:
        """Compare both clocks anew: the wall clock drifts and is set. The narrowest of some tries counts."""
        _ = self.read_delays  # counted now and then, so that few are kept
        best = 1 << 62
        for _ in range(_TRIES):
            before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
            if after - before < best:
                best, self._offset_ns = after - before, wall - (before + after) // 2

    def arrived_ns(self, ancillary: list[tuple[int, int, bytes]] | Any, now_ns: int) -> int:
        """Monotonic time at which the bytes just read had arrived."""
        if ancillary:
            seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
            arrived_ns: int = seconds * 1_000_000_000 + nanoseconds - self._offset_ns
            delay_ns = now_ns - arrived_ns
            if -1_000_000 < delay_ns < _LONGEST_DELAY_NS:
                self._delays_ns.append(delay_ns)
                self.from_kernel = True
                return arrived_ns if delay_ns > 0 else now_ns
        return now_ns
