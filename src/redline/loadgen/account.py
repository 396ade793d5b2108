"""What a load worker notes of itself in one trial: the client is judged by it."""

from __future__ import annotations

import resource
import time

from redline.loadgen.stamps import Histogram
from redline.loadgen.wire import Header

_TEXTS = 20  # different failures that are told apart


class Account:
    """Counts from `begin` on."""

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}
        self.without_usage = 0
        self.begin()

    def begin(self) -> None:
        """What was late or busy before does not count."""
        self.late = Histogram()
        self.idle_ns = 0  # between the end of an answer and the next request that waited for it
        self._cpu_s, self._switches = time.process_time(), _involuntary_switches()

    def failed(self, words: str) -> None:
        """A request failed, with these words."""
        key = words if words in self.errors or len(self.errors) < _TEXTS else "other failures"
        self.errors[key] = self.errors.get(key, 0) + 1

    def facts(self, wall_s: float) -> Header:
        """As they are reported."""
        return {
            "late": self.late.counts,
            "idle_s": self.idle_ns / 1e9,
            "wall_s": wall_s,
            "cpu_share": (time.process_time() - self._cpu_s) / wall_s,
            "involuntary_switches": _involuntary_switches() - self._switches,
            "without_usage": self.without_usage,
            "errors": self.errors,
        }


def _involuntary_switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
