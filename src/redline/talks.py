"""Conversations: how many turns each has, how long each turn is, and what was said in those that go on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Generic, NamedTuple, TypeVar

from redline import lengths
from redline.model import Lengths, Workload

_BLOCK = 64  # conversations whose turns are drawn at a time
_MOST_TIMES = 5  # the mean, beyond which no conversation goes
_Said = TypeVar("_Said")


class Size(NamedTuple):
    """Tokens of one turn: what is new in its prompt, and what is asked for."""

    prompt: int
    output: int


def turns_like(mean: float, cv: float) -> Lengths:
    """The distribution of turns with this mean and coefficient of variation: whole, from 1 to some times the mean."""
    return Lengths(mean=mean, cv=cv, low=1, high=math.ceil(_MOST_TIMES * mean) if cv else round(mean))


def turns_of(turns: Lengths, seed: int, conversation: int) -> int:
    """How many turns it has."""
    block, place = divmod(conversation, _BLOCK)
    return _drawn(turns, seed, block)[place]


def mean_turns(turns: Lengths) -> float:
    """The mean number of turns, exactly: rounding and limits move it away from the one that was asked for."""
    if turns.cv <= 0 or turns.low >= turns.high:
        return float(turns_of(turns, 0, 0))
    variance = math.log1p(turns.cv**2)
    log = NormalDist(math.log(turns.mean) - variance / 2, math.sqrt(variance))
    return turns.low + sum(1 - log.cdf(math.log(k - 0.5)) for k in range(turns.low + 1, turns.high + 1))


def sizes(workload: Workload, seed: int, conversation: int) -> list[Size]:
    """Of each of its turns."""
    assert workload.turns is not None  # else there are no conversations
    count = turns_of(workload.turns, seed, conversation)
    prompts, outputs = lengths.tokens(workload, seed, number_of(workload.turns, conversation, 0), count)
    return [Size(*size) for size in zip(prompts.tolist(), outputs.tolist(), strict=True)]


def number_of(turns: Lengths, conversation: int, turn: int) -> int:
    """A number that this turn has alone, for what is drawn for each request."""
    return conversation * turns.high + turn


class Talks(Generic[_Said]):
    """What was said in the conversations that go on; those that are over are forgotten.

    One that is met in its midst gets its earlier turns from `made_up`, called with the number of each.
    """

    def __init__(self, workload: Workload, seed: int, made_up: Callable[[int, Size], _Said]) -> None:
        assert workload.turns is not None  # else there are no conversations
        self._workload, self._turns, self._seed, self._made_up = workload, workload.turns, seed, made_up
        self._running: dict[int, tuple[list[Size], list[tuple[_Said, int]]]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def ask(self, conversation: int, turn: int) -> tuple[Size, Sequence[tuple[_Said, int]]]:
        """How long this turn is, and what was said before it, with the tokens of each turn."""
        if conversation not in self._running:
            each = sizes(self._workload, self._seed, conversation)
            before = [(self._made_up(self.number_of(conversation, i), each[i]), sum(each[i])) for i in range(turn)]
            self._running[conversation] = each, before
        each, said = self._running[conversation]
        return each[turn], said

    def answered(self, conversation: int, turn: int, said: _Said, tokens: int) -> None:
        """What this turn said, prompt and answer; after the last turn the conversation is over."""
        if self.goes_on(conversation, turn):
            self._running[conversation][1].append((said, tokens))
        else:
            self.end(conversation)

    def goes_on(self, conversation: int, turn: int) -> bool:
        """Does another turn follow this one?"""
        return turn + 1 < len(self._running[conversation][0])

    def end(self, conversation: int) -> None:
        """Forget it."""
        del self._running[conversation]

    def number_of(self, conversation: int, turn: int) -> int:
        """A number that this turn has alone."""
        return number_of(self._turns, conversation, turn)


def recent(said: Sequence[tuple[_Said, int]], tokens: int, limit: int | None) -> int:
    """From which of the earlier turns on a request still fits the limit, with `tokens` of its own.

    As a chat client does, which drops the oldest turns first. `said` has each turn's tokens in the second place.
    """
    first = 0
    total = tokens + sum(each for _, each in said)
    while limit is not None and total > limit and first < len(said):
        total -= said[first][1]
        first += 1
    return first


@lru_cache(maxsize=1_024)
def _drawn(turns: Lengths, seed: int, block: int) -> list[int]:
    counts: list[int] = lengths.sample(turns, seed, block * _BLOCK, _BLOCK, "turns").tolist()
    return counts
