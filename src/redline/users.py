"""Who sends next, and when: arrivals by the schedule, and users who come back once they have an answer."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from redline import arrivals
from redline.model import Lengths, ThinkTime, Variable, Workload
from redline.records import Floats
from redline.talks import mean_turns, turns_of

_PAUSES, _RESTS, _MIDST = 0xA4, 0xA5, 0xA6  # separate the streams of one seed; arrivals.py has the others
_BLOCK = 8  # pauses drawn at a time


class Turn(NamedTuple):
    """A request that is due: the `number`-th of its user, from 0. Each conversation has a user of its own."""

    due_s: float
    user: int
    number: int


class Users:
    """The requests of one trial in the order in which they are due; times count from its beginning, a ramp's below 0.

    When a user first comes, and how long each pause lasts, is fixed by (workload, load, seed): the order in which the
    server answers changes neither. In open loop each request, or conversation, is a user of its own. In closed loop
    user u goes on as u + users, u + 2 users, ... with one conversation after another.

    A trial meets conversations in their midst: so requests come at the rate, and are as long, as they will go on.
    """

    __slots__ = ("_arrivals", "_back", "_come", "_next_s", "_seed", "_step", "_think", "_turns", "_users", "due_s")

    def __init__(
        self,
        workload: Workload,
        by: Variable,
        load: float,
        seed: int,
        spread_s: float = 0.0,
        turns: tuple[int, int] = (0, 1),  # of several processes: which one this is, of how many
    ) -> None:
        first, self._step = turns
        self._seed, self._think = seed, workload.think_time_s
        self._turns = workload.turns
        self._users = int(load) if by == "concurrency" else 0
        self._back: list[Turn] = []  # a heap
        self._arrivals: Iterator[float] = iter(())
        self._come = first
        if self._users:
            self._back = self._starts(workload.ramp_s, spread_s)[first :: self._step]
            heapq.heapify(self._back)
        elif self._turns is None:
            self._arrivals = islice(_one_by_one(arrivals.times(workload, load, seed)), first, None, self._step)
        else:
            self._arrivals = self._conversations(workload, load, self._turns)
        self._next_s = next(self._arrivals, math.inf)
        self.due_s = self._soonest()  # of the next request; infinite while all wait for answers

    def take(self) -> Turn:
        """The request that is due next."""
        if self._back and self._back[0].due_s <= self._next_s:
            turn = heapq.heappop(self._back)
        else:
            turn = Turn(self._next_s, self._come, 0)
            self._come += self._step
            self._next_s = next(self._arrivals, math.inf)
        self.due_s = self._soonest()
        return turn

    def answered(self, turn: Turn, at_s: float, *, ok: bool = True) -> None:
        """Its user has the answer, or knows that none comes, and may be back after a pause.

        A conversation ends with its last turn, or where an answer fails.
        """
        user, number = turn.user, turn.number + 1
        if self._turns is not None and (not ok or number >= turns_of(self._turns, self._seed, user)):
            user, number = user + self._users, 0
        if self._users or (number and self._turns is not None):
            due_s = at_s + pause_s(self._think, self._seed, turn.user, turn.number)
            heapq.heappush(self._back, Turn(due_s, user, number))
            self.due_s = self._soonest()

    def _starts(self, ramp_s: float, spread_s: float) -> list[Turn]:
        """The first request of each user."""
        due_s = arrivals.user_starts(self._users, ramp_s or spread_s, self._seed) - ramp_s
        if self._think is not None:
            due_s += _rests(self._think, self._users, self._seed)
        numbers = [0] * self._users
        if self._turns is not None:
            share = np.random.default_rng([_MIDST, abs(self._seed)]).random(self._users)
            counts = [turns_of(self._turns, self._seed, user) for user in range(self._users)]
            numbers = (share * counts).astype(int).tolist()
        return [
            Turn(at_s, user, number) for user, (at_s, number) in enumerate(zip(due_s.tolist(), numbers, strict=True))
        ]

    def _conversations(self, workload: Workload, rate: float, turns: Lengths) -> Iterator[float]:
        """When each conversation begins, from 0 on; what others, begun earlier, still have to say is put in the heap.

        Over a ramp they come in one after another, at a moment that any of it is as likely to be.
        """
        ramp_s, lead_s = workload.ramp_s, workload.ramp_s + _longest_s(turns, self._think)
        steady = arrivals.times(replace(workload, ramp_s=0.0), rate / mean_turns(turns), self._seed)
        begins = (at_s - lead_s for at_s in _one_by_one(steady))
        comes_in = np.random.default_rng([_MIDST, abs(self._seed)])
        for user, begin_s in enumerate(begins):
            ours = user % self._step == self._come % self._step
            if begin_s >= 0 and ours:
                self._come = user
                return islice(chain([begin_s], begins), 0, None, self._step)
            due_s, number, in_s = begin_s, 0, -ramp_s * comes_in.random()
            count = turns_of(turns, self._seed, user) if ours else 0
            while due_s < in_s and number < count:
                due_s += pause_s(self._think, self._seed, user, number)
                number += 1
            if number < count:
                heapq.heappush(self._back, Turn(due_s, user, number))
        return iter(())

    def _soonest(self) -> float:
        return min(self._next_s, self._back[0].due_s) if self._back else self._next_s


def _one_by_one(chunks: Iterable[Floats]) -> Iterator[float]:
    return chain.from_iterable(chunk.tolist() for chunk in chunks)


def _longest_s(turns: Lengths, think: ThinkTime | None) -> float:
    """For how long hardly any conversation pauses in all: three standard deviations beyond the mean of the longest."""
    pauses = turns.high - 1
    return 0.0 if think is None else think.mean * (pauses + 3 * think.cv * math.sqrt(pauses))


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
