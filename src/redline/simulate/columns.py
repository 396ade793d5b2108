"""What becomes of each request of a virtual trial, as columns that grow."""

from __future__ import annotations

import math
from array import array

import numpy as np
from numpy.typing import NDArray

from redline.records import Floats, Ints, Status
from redline.simulate.engine import Request


class Columns:
    """The columns of Records while they grow: arrays that append in constant time and copy at memory speed."""

    def __init__(self) -> None:
        self.scheduled, self.first, self.end = array("d"), array("d"), array("d")
        self.tokens_in, self.asked, self.out = array("i"), array("i"), array("i")
        self.status = array("B")
        self.held = array("d")  # of a load with a cap: NaN until there is a place

    def add(self, due_s: float, prompt: int, asked: int) -> None:
        self.scheduled.append(due_s)
        self.first.append(math.nan)
        self.end.append(math.nan)
        self.tokens_in.append(prompt)
        self.asked.append(asked)
        self.out.append(0)
        self.status.append(Status.RUNNING)


def stays_of(request: Request, steps: int) -> list[tuple[int, int]]:
    """First and last step of each stay in the batch that gave tokens, as far as these many steps have ended."""
    if 0 <= request.first_step < steps:
        return [*request.stays, (request.first_step, min(request.last_step, steps - 1))]
    return request.stays


def gaps_of(stays: NDArray[np.int64], ends: Floats) -> Ints:
    """Gaps in microseconds within each request, flat; rows are (request, first step, last step) in order."""
    counts = stays[:, 2] - stays[:, 1] + 1
    starts = np.cumsum(counts) - counts
    times_s = ends[np.repeat(stays[:, 1] - starts, counts) + np.arange(int(counts.sum()))]
    owner = np.repeat(stays[:, 0], counts)
    within: Floats = np.diff(times_s)[owner[1:] == owner[:-1]]
    return np.rint(within * 1e6).astype(np.int32)
