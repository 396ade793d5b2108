"""Who sends next, and when: arrivals by the schedule, and users who come back once they have an answer."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from redline import arrivals
from redline.model import ThinkTime, Variable, Workload
from redline.records import Floats

_PAUSES, _RESTS = 0xA4, 0xA5  # separate the streams of one seed; arrivals.py has the others
_BLOCK = 8  # pauses drawn at a time


class Turn(NamedTuple):
    """A request that is due: the `number`-th of its user, from 0."""

    due_s: float
    user: int
    number: int


class Users:
    """The requests of one trial in the order in which they are due; times count from its beginning, a ramp's below 0.

    When a user first comes, and how long each pause lasts, is fixed by (workload, load, seed): the order in which the
    server answers changes neither. In open loop each request is a user of its own, who does not come back.
    """

    __slots__ = ("_arrivals", "_back", "_come", "_next_s", "_returning", "_seed", "_think", "due_s")

    def __init__(
        self,
        workload: Workload,
        by: Variable,
        load: float,
        seed: int,
        spread_s: float = 0.0,
        turns: tuple[int, int] = (0, 1),  # of several processes: which one this is, of how many
    ) -> None:
        first, step = turns
        self._seed, self._think = seed, workload.think_time_s
        self._returning = by == "concurrency"
        self._back: list[Turn] = []  # a heap
        self._arrivals: Iterator[float] = iter(())
        if self._returning:
            starts = arrivals.user_starts(int(load), workload.ramp_s or spread_s, seed) - workload.ramp_s
            if self._think is not None:
                starts += _rests(self._think, int(load), seed)
            self._back = [Turn(due_s, user, 0) for user, due_s in list(enumerate(starts.tolist()))[first::step]]
            heapq.heapify(self._back)
        else:
            chunks: Iterable[Floats] = arrivals.times(workload, load, seed)
            self._arrivals = islice(chain.from_iterable(chunk.tolist() for chunk in chunks), first, None, step)
        self._come = 0
        self._next_s = next(self._arrivals, math.inf)
        self.due_s = self._soonest()  # of the next request; infinite while all wait for answers

    def take(self) -> Turn:
        """The request that is due next."""
        if self._back and self._back[0].due_s <= self._next_s:
            turn = heapq.heappop(self._back)
        else:
            turn = Turn(self._next_s, self._come, 0)
            self._come += 1
            self._next_s = next(self._arrivals, math.inf)
        self.due_s = self._soonest()
        return turn

    def answered(self, turn: Turn, at_s: float) -> None:
        """Its user has the answer, or knows that none comes, and will be back after a pause."""
        if self._returning:
            due_s = at_s + pause_s(self._think, self._seed, turn.user, turn.number)
            heapq.heappush(self._back, Turn(due_s, turn.user, turn.number + 1))
            self.due_s = self._soonest()

    def _soonest(self) -> float:
        return min(self._next_s, self._back[0].due_s) if self._back else self._next_s


def pause_s(think: ThinkTime | None, seed: int, user: int, number: int) -> float:
    """How long this user thinks after the answer to this turn."""
    if think is None:
        return 0.0
    if think.cv <= 0:
        return think.mean
    block, place = divmod(number, _BLOCK)
    return _pauses(think, seed, user, block)[place]


@lru_cache(maxsize=16_384)
def _pauses(think: ThinkTime, seed: int, user: int, block: int) -> tuple[float, ...]:
    rng = np.random.default_rng([_PAUSES, abs(seed), user, block])
    shape = think.cv**-2
    return tuple((think.mean / shape * rng.standard_gamma(shape, _BLOCK)).tolist())


def _rests(think: ThinkTime, users: int, seed: int) -> Floats:
    """What is left of a pause in whose midst each user is met: without it all would come at once, and in step for long.

    A moment meets long pauses more often than short ones, as a gamma distribution with a shape greater by one says.
    """
    rng = np.random.default_rng([_RESTS, abs(seed)])
    share: Floats = rng.random(users)
    if think.cv <= 0:
        return share * think.mean
    shape = think.cv**-2
    rests: Floats = share * rng.standard_gamma(shape + 1, users) * (think.mean / shape)
    return rests
