"""The search on any Session, without a server to care for and without anything stored."""

from __future__ import annotations

import random

from redline.model import Answer, Goal, Session, Sla, Trial
from redline.search import next_step
from redline.verdict import watcher

_DEFAULT = Goal()


def search_on(session: Session, sla: Sla, goal: Goal = _DEFAULT, *, seed: int = 0) -> tuple[Answer, tuple[Trial, ...]]:
    """The answer, and the trials that it rests on; the same for the same session, SLA, goal and seed.

    Each trial has a seed of its own: the same arrivals again and again would make noise look like truth.
    """
    seeds = random.Random(seed)
    trials: list[Trial] = []
    while not isinstance(step := next_step(trials, sla, goal), Answer):
        trial_seed = seeds.getrandbits(31)
        outcome = session.measure(step, watcher(step, sla, trials), trial_seed)
        trials.append(
            Trial(id=f"{len(trials) + 1:04}", case="virtual", probe=step, seed=trial_seed, started="", outcome=outcome)
        )
    return step, tuple(trials)
