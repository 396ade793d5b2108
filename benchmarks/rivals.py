"""Other ways to find a capacity, each re-made from what its authors publish.

Each is a generator: it yields (load, prompts), gets a Run of all of them back, and returns the capacity, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.interpolate import PchipInterpolator  # noqa: TID251 - AIPerf's search is made of it

from redline.records import Floats
from redline.servesla import legacy

EPS = 1e-8
MOST = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """So many prompts at one load, all let finish: each criterion's value and its bound."""

    stats: tuple[float, ...]
    bounds: tuple[float, ...]  # all of them upper
    good_share: float  # of requests within all per-request bounds


Search: TypeAlias = Generator[tuple[float, int], Run, float | None]


def seed_search(by: str, prompts: int = 1_000, runs: int = 3) -> Search:  # noqa: ARG001 - the same for both variables
    """vLLM's `bench sweep serve_sla`: 8192, 1, then the root of the PCHIP interpolant of the margin; whole loads.

    A point's margin is the largest of actual - target, each metric averaged over the runs. It answers 1 where nothing
    passes. A load that it would measure again it reads back, so it may go round for ever; that ends it here.
    """
    margins: dict[int, float] = {}
    while (load := legacy.next_load(margins)) is not None and load not in margins:
        found = []
        for _ in range(runs):
            found.append((yield float(load), prompts))
        means = np.mean([run.stats for run in found], axis=0)
        margins[load] = float(np.max(means - np.array(found[0].bounds)))
    return float(legacy.answer(margins))


def bisection(by: str, prompts: int = 1_000, precision: float = 0.02) -> Search:
    """Double until a run breaks a bound, then bisect: one run of fixed size at each load, as most people do."""
    return _bisect(by, prompts, precision, _met)


def goodput(by: str, prompts: int = 1_000, share: float = 0.95, precision: float = 0.02) -> Search:
    """As GuideLLM documents its goodput search: a load holds when so large a share of its requests keeps the bounds."""
    return _bisect(by, prompts, precision, lambda run: run.good_share >= share)


def _bisect(by: str, prompts: int, precision: float, holds: Callable[[Run], bool]) -> Search:
    good, bad, load = 0.0, np.inf, 1.0
    while True:
        run = yield load, prompts
        good, bad = (load, bad) if holds(run) else (good, load)
        if (ended := _ended(by, load, good, bad, precision)) is not None:
            return ended or None
        load = _outwards(load, good, bad) or _between(by, good, bad)


def isotonic(by: str, prompts: int = 1_000, precision: float = 0.02) -> Search:
    """As AIPerf documents its search: bracket, smooth by isotonic regression, probe where its PCHIP meets the bound."""
    seen: dict[float, float] = {}  # load -> largest ln(value / bound)
    load = 1.0
    for _ in range(20):
        run = yield load, prompts
        seen[load] = max(
            float(np.log(max(s, EPS) / b)) if np.isfinite(s) else 5.0
            for s, b in zip(run.stats, run.bounds, strict=True)
        )
        good = max((x for x, y in seen.items() if y <= 0), default=0.0)
        bad = min((x for x, y in seen.items() if y > 0 and x > good), default=np.inf)
        if (ended := _ended(by, load, good, bad, precision)) is not None:
            return ended or None
        if (further := _outwards(load, good, bad)) is not None:
            load = further
            continue
        load = _isotonic_root(seen, good, bad)
        load = float(np.clip(round(load), good + 1, bad - 1)) if by == "concurrency" else load
        if load in seen:
            return good
    return good


def _isotonic_root(seen: dict[float, float], good: float, bad: float) -> float:
    loads = np.array(sorted(seen))
    values = pooled_up(np.array([seen[load] for load in loads])) + 1e-9 * np.arange(len(loads))
    roots = PchipInterpolator(np.log(loads), values).roots(extrapolate=False)
    inside = [x for x in np.exp(np.atleast_1d(roots)) if good * 1.002 < x < bad * 0.998]
    return float(inside[0]) if inside else float(np.sqrt(good * bad))


def pooled_up(values: Floats) -> Floats:
    """The nearest values, in squares, that never fall: pool adjacent violators."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2], blocks.pop()
            blocks[-1] = [(a * n + b * m) / (n + m), n + m]
    return np.concatenate([np.full(int(n), value) for value, n in blocks])


def _ended(by: str, load: float, good: float, bad: float, precision: float) -> float | None:
    """The capacity once the search is over, 0 where no load holds; None while it goes on."""
    if good == 0.0:
        return 0.0 if load <= 0.01 or (by == "concurrency" and load <= 1) else None
    if np.isinf(bad):
        return load if load >= MOST else None
    return good if bad - good <= (1 if by == "concurrency" else precision * good) else None


def _outwards(load: float, good: float, bad: float) -> float | None:
    """The next load while there is nothing that holds, or nothing that does not."""
    if good == 0.0:
        return load / 2
    return load * 2 if np.isinf(bad) else None


def _between(by: str, good: float, bad: float) -> float:
    return float((good + bad) // 2) if by == "concurrency" else (good + bad) / 2


def _met(run: Run) -> bool:
    return all(stat <= bound for stat, bound in zip(run.stats, run.bounds, strict=True))
