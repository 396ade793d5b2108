"""Requests that are built before they are due, in slices, so that reads do not wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from redline.loadgen.payload import Payloads, Planned

_AHEAD, _AHEAD_BYTES, _AHEAD_MIN = 256, 1_048_576, 4
_SLICE_NS = 300_000


class Ahead:
    """Gives requests in their order, and builds the next ones while the loop is idle."""

    def __init__(self, payloads: Payloads, worker: int = 0, workers: int = 1) -> None:
        self._payloads = payloads
        self._others = workers - 1  # requests of other workers between two of ours
        payloads.skip(worker)
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Planned] = deque()
        self._bytes = 0
        self._filling = False

    def take(self) -> Planned:
        """The next request, at once."""
        if not self._ready:
            self._build()
        plan = self._ready.popleft()
        self._bytes -= len(plan.payload)
        if not self._filling and self._wants_more():
            self._filling = True
            self._loop.call_soon(self._fill)
        return plan

    def fill(self) -> None:
        """Build all that is built ahead, however long that takes."""
        while self._wants_more():
            self._build()

    def _fill(self) -> None:
        until_ns = time.monotonic_ns() + _SLICE_NS
        while self._wants_more():
            self._build()
            if time.monotonic_ns() >= until_ns:
                self._loop.call_soon(self._fill)
                return
        self._filling = False

    def _build(self) -> None:
        plan = self._payloads.next()
        self._payloads.skip(self._others)
        self._ready.append(plan)
        self._bytes += len(plan.payload)

    def _wants_more(self) -> bool:
        count = len(self._ready)
        return count < _AHEAD_MIN or (count < _AHEAD and self._bytes < _AHEAD_BYTES)
