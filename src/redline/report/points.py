"""Trials as points: where each stands on the chart of one criterion, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from redline import stats
from redline.model import Criterion, Failed, Invalid, Measured, Sla, Trial, Variable
from redline.records import Floats, Records
from redline.report.chart import Point, Standing
from redline.sla import allowed_share, judged, met, metric_of
from redline.stored import values
from redline.verdict import CriterionJudgement, Judgement, judge, usable
from redline.verdict.tally import Window, lag_s, steady_window, tally
from redline.wording import kind_text, load_text, quantity, trial_number


def points_of(
    trials: tuple[Trial, ...], sla: Sla, criterion: Criterion, by: Variable, confidence: float
) -> tuple[Point, ...]:
    """Every trial of this variable, as the criterion sees it."""
    return tuple(point(trial, sla, criterion, confidence) for trial in trials if trial.probe.by == by)


def point(trial: Trial, sla: Sla, criterion: Criterion, confidence: float) -> Point:
    """One trial on the chart of one criterion of the SLA."""
    outcome = trial.outcome
    small = trial.probe.kind == "scout"
    if isinstance(outcome, Failed | Invalid):
        words = (
            f"trial {trial_number(trial.id)}, {load_text(trial.probe.load, trial.probe.by)}: {outcome.reason.strip()}"
        )
        return Point(load=trial.probe.load, value=math.nan, standing="broken", met=False, small=small, words=words)
    good, why = usable(trial, sla)
    verdict = judge(trial, sla, confidence)
    mine = _mine(verdict, criterion)
    value = values(trial, sla).get(criterion.metric, math.nan)
    keeps = met(criterion, value)
    standing, keeps = _standing(outcome, criterion, mine, keeps) if good else ("unusable", keeps)
    low, high = bounds(outcome, criterion, mine, confidence) if good and not small else (math.nan, math.nan)
    if not low <= value <= high:  # they belong to a window that the search did not judge whole
        low = high = math.nan
    return Point(
        load=trial.probe.load,
        value=value,
        standing="undecided" if small and standing in ("pass", "fail") else standing,
        met=keeps,
        low=low,
        high=high,
        small=small,
        words=_words(trial, criterion, (value, low, high), None if small else mine, why),
    )


def _mine(judgement: Judgement, criterion: Criterion) -> CriterionJudgement | None:
    return next((each for each in judgement.criteria if each.criterion == criterion), None)


def _standing(
    outcome: Measured, criterion: Criterion, mine: CriterionJudgement | None, keeps: bool
) -> tuple[Standing, bool]:
    """How it is drawn, and on which side: a trial that was ended early is over, whatever it had seen by then."""
    reason = outcome.stop.reason
    if reason == "fail" and outcome.stop.criterion == criterion.text:
        return "early", False
    if reason == "over" and not metric_of(criterion.metric).fields & {"tpot", "itl"}:
        return "early", False
    return (mine.verdict if mine else "undecided"), keeps


# ---- how sure --------------------------------------------------------------------------------------------------------


def bounds(
    outcome: Measured, criterion: Criterion, mine: CriterionJudgement | None, confidence: float
) -> tuple[float, float]:
    """One-sided bounds on the metric itself, each at `confidence`; NaN where there are none."""
    records = outcome.records
    window = steady_window(outcome)
    if mine is None or mine.n <= 0 or records is None or window is None:
        return math.nan, math.nan
    metric = metric_of(criterion.metric)
    if metric.kind == "quantile":
        found = tally(criterion, records, window)
        allowed = allowed_share(criterion)
        assert allowed is not None  # a quantile is a share
        return quantile_bounds(_values(criterion, records, window), allowed, found.phi, confidence)
    if metric.kind == "attainment":
        return 1 - mine.high, 1 - mine.low
    return mine.low, mine.high


def quantile_bounds(values: Floats, allowed: float, phi: float, confidence: float) -> tuple[float, float]:
    """Bounds on the value that a share `allowed` exceeds: a bound beyond them would be a pass, or a fail.

    So the upper one is above a criterion's bound exactly when the trial proves no pass. `phi` as in `Tally`.
    """
    n = len(values)
    if n == 0:
        return math.nan, math.nan
    falling = np.sort(values)[::-1]

    def passes(k: int) -> bool:  # with k over
        return stats.share_bounds(k / phi, n / phi, confidence)[1] <= allowed

    def fails(k: int) -> bool:
        return stats.share_bounds(k / phi, n / phi, confidence)[0] > allowed

    most = _last(n, passes)  # so many may be over, and it still is a pass
    fewest = _last(n, lambda k: not fails(k)) + 1  # with so many over it is a fail
    high = math.inf if most < 0 else float(falling[most]) if most < n else 0.0
    low = float(falling[fewest - 1]) if 1 <= fewest <= n else 0.0
    return low, high


def _last(n: int, holds: Callable[[int], bool]) -> int:
    """The largest k in 0..n for which this holds, when it holds up to somewhere; -1 for none."""
    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _values(criterion: Criterion, records: Records, window: Window) -> Floats:
    """What the quantile is taken of: the judged requests, or their gaps."""
    due = records.scheduled_s
    chosen = (due >= window.start_s) & (due <= window.end_s - lag_s(criterion, window))
    found = judged(criterion, records)
    chosen &= found.weight > 0
    if metric_of(criterion.metric).field == "itl":
        if records.broken[chosen].any():
            return np.zeros(0)  # what a failed request owes has no values
        return np.asarray(records.gaps_us[np.repeat(chosen, np.diff(records.gap_offsets))] / 1e3)
    return found.value[chosen]


def _words(
    trial: Trial,
    criterion: Criterion,
    value: tuple[float, float, float],
    mine: CriterionJudgement | None,
    why: str,
) -> str:
    """What is shown when the mark is pointed at."""
    stat, low, high = value
    lines = [
        f"trial {trial_number(trial.id)}: {kind_text(trial.probe)} at {load_text(trial.probe.load, trial.probe.by)}"
    ]
    if math.isfinite(stat):
        lines.append(f"{criterion.metric} {quantity(criterion.metric, stat)}")
    if math.isfinite(low) and math.isfinite(high):
        lines.append(f"between {quantity(criterion.metric, low)} and {quantity(criterion.metric, high)}")
    if mine is not None and mine.n > 0 and allowed_share(criterion) is not None:
        lines.append(f"{mine.k:,.0f} of {mine.n:,.0f} over the bound: {mine.verdict}")
    if why:
        lines.append(f"not usable: {why}")
    return "\n".join(lines)
