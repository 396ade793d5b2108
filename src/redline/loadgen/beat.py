"""A beat of the event loop that shows when the load worker did not run, although it had something to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from redline.loadgen.timer import Timer

BEHIND_MS = (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
_BEAT_NS = 5_000_000


class Beat:
    """Beats until closed; knows for how much of the time the loop was more than each of `BEHIND_MS` behind.

    What arrives while a process is held up for 50 ms is up to 50 ms late, so a delay counts for as long as it lasts,
    not once. Delays shorter than a beat are seen only in part.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[int], None] | None = None) -> None:
        self.behind_s = [0.0] * len(BEHIND_MS)
        self._told = told  # each delay, in microseconds
        self._due_ns = 0
        self._timer = Timer(loop, self._beaten)

    def start(self) -> None:
        """Begin to beat."""
        self._next(time.monotonic_ns())

    def reset(self) -> None:
        """Forget what was: from here on it counts."""
        self.behind_s = [0.0] * len(BEHIND_MS)

    def close(self) -> None:
        """Beat no more; a delay that goes on now counts too."""
        if self._due_ns:
            self._count(time.monotonic_ns() - self._due_ns)
        self._timer.close()

    def _beaten(self) -> None:
        now_ns = time.monotonic_ns()
        self._count(now_ns - self._due_ns)
        self._next(now_ns)

    def _count(self, late_ns: int) -> None:
        if self._told is not None:
            self._told(late_ns // 1_000)
        for place, at_ms in enumerate(BEHIND_MS):
            if late_ns <= 1_000_000 * at_ms:
                return
            self.behind_s[place] += late_ns / 1e9 - at_ms / 1e3

    def _next(self, now_ns: int) -> None:
        self._due_ns = now_ns + _BEAT_NS
        self._timer.set(self._due_ns)
