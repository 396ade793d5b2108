"""What a load worker is told of a trial, and of its part in it."""

from __future__ import annotations

from dataclasses import dataclass

from redline.model import Variable


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """What of a Probe the worker needs."""

    by: Variable
    load: float
    seed: int
    spread_s: float
    max_s: float
    max_requests: int | None
    drain: bool = False
    worker: int = 0  # of `workers`, which take turns: this one sends requests `worker`, `worker` + `workers`, ...
    workers: int = 1

    def own(self, count: float) -> int:
        """How many of so many requests, or users, are this worker's."""
        return len(range(self.worker, int(count), self.workers))
