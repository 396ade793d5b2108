"""Signs that the server was not one and the same throughout: then an interval is narrower than what it stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from redline.model import Measured, Trial
from redline.records import Floats, Records

NEAR = 2.5  # a trial within this factor of the capacity is compared with others
MIN_REQUESTS, MIN_TRIALS = 50, 5
DRIFT, SURE_T = 0.03, 2.5  # a change of speed worth a word, if it is so many standard errors large
STALL_S, STALL_TIMES, ALONE_S = 0.25, 5.0, 0.5  # a silence, against the usual longest gap; stalls so near are one
FEW_STALLS = 10  # in one trial: so few are chance, more of them are part of what was measured


def doubts(trials: Sequence[Trial], capacity: float | None) -> list[str]:
    """What to warn of: a server that became faster or slower meanwhile, one that stood still now and then."""
    if capacity is None:
        return []
    found = [_drift(trials, capacity), _stalls(trials, capacity)]
    return [text for text in found if text]


def _drift(trials: Sequence[Trial], capacity: float) -> str:
    """Does the gap between tokens change with time, beyond what the number of requests in the batch explains?"""
    began_s, rows = 0.0, []
    for trial in trials:
        records = _records(trial, capacity)
        if records is not None and len(records.gaps_us) and records.ok.sum() >= MIN_REQUESTS:
            middle_s, gap_us = began_s + trial.outcome.duration_s / 2, float(np.median(records.gaps_us))
            rows.append((middle_s, math.log(_decoding(records)), math.log(max(gap_us, 1.0))))
        began_s += trial.outcome.duration_s
    if len(rows) < MIN_TRIALS:
        return ""
    at_s, batch, gap = np.array(rows).T
    span_s = float(np.ptp(at_s))
    if span_s <= 0:
        return ""
    design = np.column_stack([np.ones(len(rows)), batch, (at_s - at_s.mean()) / span_s])
    solution, _, rank, _ = np.linalg.lstsq(design, gap, rcond=None)
    left = len(rows) - int(rank)
    if rank < design.shape[1] or left < 1:
        return ""
    residual = gap - design @ solution
    variance = max(float(residual @ residual) / left, 1e-6) * float(np.linalg.inv(design.T @ design)[2, 2])
    change = float(solution[2])
    if abs(change) < DRIFT or abs(change) < SURE_T * math.sqrt(variance):
        return ""
    word = "slower" if change > 0 else "faster"
    return (
        f"the server became {100 * abs(math.expm1(change)):.0f}% {word} in {span_s:.0f} s of measuring: "
        "the interval does not hold that; measure again once it is steady"
    )


def _stalls(trials: Sequence[Trial], capacity: float) -> str:
    """Did all requests stand still at once, too seldom to have been part of every trial?"""
    number, longest_s, watched_s = 0, 0.0, 0.0
    for trial in trials:
        records = _records(trial, capacity)
        if records is None:
            continue
        times_s, lasted_s = stalls(records)
        if len(times_s) > FEW_STALLS:
            continue
        number += len(times_s)
        longest_s = max(longest_s, float(lasted_s.max(initial=0.0)))
        watched_s += records.observed_s
    if number < 2:
        return ""
    return (
        f"the server stood still {number} times in {watched_s:.0f} s, for up to {longest_s:.1f} s: so seldom that "
        "a trial may meet none of it; --sustain shows whether the load holds for long"
    )


def stalls(records: Records) -> tuple[Floats, Floats]:
    """When at least half of the requests under way had a gap far beyond the usual, and for how long. Seconds."""
    nothing = np.zeros(0), np.zeros(0)
    if len(records.gap_offsets) != len(records) + 1:
        return nothing
    counts = np.diff(records.gap_offsets)
    rows = np.flatnonzero(counts > 0)
    if len(rows) < MIN_REQUESTS:
        return nothing
    longest_s = np.maximum.reduceat(records.gaps_us, records.gap_offsets[rows]) / 1e6
    slow = longest_s > max(STALL_S, STALL_TIMES * float(np.median(longest_s)))
    ended = [(_end_of_gap_s(records, row), lasted) for row, lasted in zip(rows[slow], longest_s[slow], strict=True)]
    times_s: list[float] = []
    lasted_s: list[float] = []
    for group in _together(sorted(ended)):
        at_s = float(np.median([at for at, _ in group]))
        if 2 * len(group) >= _streaming(records, at_s - ALONE_S / 2) and len(group) >= 3:
            times_s.append(at_s)
            lasted_s.append(float(np.median([lasted for _, lasted in group])))
    return np.array(times_s), np.array(lasted_s)


def _end_of_gap_s(records: Records, row: int) -> float:
    gaps_us = records.gaps_us[records.gap_offsets[row] : records.gap_offsets[row + 1]]
    return float(records.first_s[row] + gaps_us[: int(np.argmax(gaps_us)) + 1].sum(dtype=np.int64) / 1e6)


def _together(ended: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Gaps that ended at about the same time."""
    groups: list[list[tuple[float, float]]] = []
    for at_s, lasted_s in ended:
        if groups and at_s - groups[-1][-1][0] < ALONE_S:
            groups[-1].append((at_s, lasted_s))
        else:
            groups.append([(at_s, lasted_s)])
    return groups


def _streaming(records: Records, at_s: float) -> int:
    """How many requests were between their first and their last token."""
    with np.errstate(invalid="ignore"):
        return int(((records.first_s <= at_s) & ~(records.end_s <= at_s)).sum())


def _decoding(records: Records) -> float:
    """How many requests were between their first and last token, on average."""
    begun = ~np.isnan(records.first_s)
    last_s = np.where(np.isnan(records.end_s), records.observed_s, records.end_s)
    return max(float((last_s - records.first_s)[begun].sum()) / max(records.observed_s, 1e-9), 0.05)


def _records(trial: Trial, capacity: float) -> Records | None:
    """Of a trial that lasted, at a load like this one."""
    outcome = trial.outcome
    near = 1 / NEAR < trial.probe.load / capacity < NEAR
    lasted = isinstance(outcome, Measured) and outcome.stop.reason in ("full", "budget", "ended")
    return outcome.records if near and lasted and isinstance(outcome, Measured) else None
