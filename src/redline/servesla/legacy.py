"""The search that vLLM's `bench sweep serve_sla` made, step by step, for whoever must reproduce one of its figures.

It tries 8192, then 1, then the root of a curve through the margins; it answers 1 where nothing passes, and noise moves
its answer. Redline's own search is in `redline.search`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

LOWEST, HIGHEST = 1, 8192


def bracket(margins: Mapping[int, float]) -> tuple[int, int]:
    """The largest load that passed (1 if none did) and the smallest that failed (8192 if none did)."""
    passed = max((load for load, margin in margins.items() if margin <= 0), default=LOWEST)
    failed = min((load for load, margin in margins.items() if margin > 0), default=HIGHEST)
    return passed, failed


def next_load(margins: Mapping[int, float]) -> int | None:
    """The load that it would try next; None when it has its answer.

    The load may be one that was tried. Then it read the old result back and went on for ever: whoever asks must stop.
    """
    passed, failed = bracket(margins)
    if passed + 1 >= failed:
        return None
    if max(margins, default=0) < HIGHEST:
        return HIGHEST
    if min(margins) > LOWEST:
        return LOWEST
    load = _root(margins)
    if load is None:
        load = (passed + failed) // 2
    if load in margins:
        load += 1
    return min(max(load, LOWEST), HIGHEST)


def answer(margins: Mapping[int, float]) -> int:
    """The load that it printed: the largest that passed, and 1 where none did."""
    return bracket(margins)[0]


def _root(margins: Mapping[int, float]) -> int | None:
    """The first root of the monotone cubic through the points, as a whole number."""
    from scipy.interpolate import PchipInterpolator

    loads = sorted(margins)
    roots = PchipInterpolator(loads, [margins[load] for load in loads]).roots(extrapolate=False)
    return next((int(root) for root in roots if math.isfinite(root)), None)
