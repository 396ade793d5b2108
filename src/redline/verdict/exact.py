"""What one trial proves about one SLA at its load, without any model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from redline import stats
from redline.model import Criterion, Measured, Sla, Trial, Verdict
from redline.records import Records
from redline.sla import LATENCIES, THROUGHPUTS, allowed_share, latency_ms, metric_of, ratio
from redline.verdict.client import usable
from redline.verdict.tally import Tally, Window, delivered, steady_window, tally
from redline.verdict.watch import MIN_WINDOW_S

NOT_STEADY_Z = 1.3
_FAR = 10_000_000  # more requests than anyone would send


@dataclass(frozen=True, kw_only=True, slots=True)
class CriterionJudgement:
    """One criterion at one load. `low` and `high` bound the share over (shares) or the metric itself (the others)."""

    criterion: Criterion
    stat: float
    k: float
    n: float
    low: float
    high: float
    verdict: Verdict
    more: int | None = (
        None  # further requests that would decide at the present share; None: decided, or no number would
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """One SLA at one load: passes when every criterion does, fails when any does."""

    verdict: Verdict
    criteria: tuple[CriterionJudgement, ...]
    reason: str = ""  # why it cannot be decided, where that is not for want of requests


def steady(trial: Trial) -> bool:
    """Did the trial reach a steady state that lasted long enough to be judged for a pass?"""
    outcome = trial.outcome
    if (
        not isinstance(outcome, Measured)
        or outcome.records is None
        or outcome.stop.reason in ("over", "fail", "scouted")
    ):
        return False
    window = steady_window(outcome)
    if window is None or window.length_s < max(MIN_WINDOW_S, window.start_s) - 1e-6:
        return False
    if trial.probe.by == "concurrency":
        return True
    return stats.growth(outcome.records, window.start_s, window.end_s).z <= NOT_STEADY_Z


def judge(trial: Trial, sla: Sla, confidence: float) -> Judgement:
    """The exact verdict at the trial's load, one-sided at `confidence` for all criteria together.

    All criteria must pass, each at `confidence`; a fail of any one is claimed at a level that allows for their number.
    A trial that was not steady, or whose queue grew, proves no pass.
    """
    outcome = trial.outcome
    good, why = usable(trial, sla)
    if not isinstance(outcome, Measured) or not good:
        return Judgement(verdict="undecided", criteria=(), reason=why)
    records = outcome.records
    if records is None:
        return Judgement(
            verdict="undecided",
            criteria=tuple(_aggregate(c, summary(outcome)) for c in sla.criteria),
            reason="the command reported totals only: a verdict needs every request",
        )
    window = steady_window(outcome)
    if window is None:
        return Judgement(verdict="undecided", criteria=(), reason="the trial ended before its warm-up did")
    judged = [_judge_criterion(tally(c, records, window), confidence, len(sla.criteria)) for c in sla.criteria]
    totals = _totals(outcome)  # of a command that kept the end-to-end latencies and totals of the rest
    judged = [_aggregate(j.criterion, totals) if j.n <= 0 and j.criterion.metric in totals else j for j in judged]
    reason = ""
    if not steady(trial):
        judged = [replace(each, verdict="undecided") if each.verdict == "pass" else each for each in judged]
        reason = "the load was not held long enough in a steady state"
    verdicts = {each.verdict for each in judged}
    verdict: Verdict = "fail" if "fail" in verdicts else "undecided" if "undecided" in verdicts else "pass"
    return Judgement(verdict=verdict, criteria=tuple(judged), reason=reason if verdict == "undecided" else "")


def _judge_criterion(found: Tally, confidence: float, criteria: int) -> CriterionJudgement:
    criterion = found.criterion
    strict = 1 - (1 - confidence) / criteria
    allowed = allowed_share(criterion)
    if allowed is None:
        error = found.stat * math.sqrt(max(found.relative_variance, 0) * found.phi / found.n) if found.n else math.nan
        low, high = stats.mean_bounds(found.stat, error, found.seen.df, confidence)
        low_strict, high_strict = stats.mean_bounds(found.stat, error, found.seen.df, strict)
        worst, best = (low, high_strict) if metric_of(criterion.metric).upward else (high, low_strict)
        passes, fails = ratio(criterion, worst) <= 1 and worst > 0, best > 0 and ratio(criterion, best) > 1
        more = None
    else:
        k, n = found.k / found.phi, found.n / found.phi
        low, high = stats.share_bounds(k, n, confidence)
        passes, fails = found.n > 0 and high <= allowed, stats.share_bounds(k, n, strict)[0] > allowed
        more = None if passes or fails else _more(k, n, allowed, (confidence, strict), found.phi)
    return CriterionJudgement(
        criterion=criterion,
        stat=found.stat,
        k=found.k,
        n=found.n,
        low=low,
        high=high,
        verdict="pass" if passes else "fail" if fails else "undecided",
        more=more,
    )


def _more(k: float, n: float, allowed: float, levels: tuple[float, float], phi: float) -> int | None:
    """How many further requests would decide, were the share over to stay what it is; None when hopelessly many."""
    share = k / n if n > 0 else 0.0

    def decided(size: float) -> bool:
        over = share * size
        return (
            stats.share_bounds(over, size, levels[0])[1] <= allowed
            or stats.share_bounds(over, size, levels[1])[0] > allowed
        )

    low, high = n, max(n, 1.0)
    while not decided(high):
        low, high = high, 2 * high
        if high * phi > _FAR:
            return None
    while high - low > max(1.0, 0.005 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return max(1, math.ceil((high - n) * phi))


def _aggregate(criterion: Criterion, values: dict[str, float]) -> CriterionJudgement:
    stat = values.get(criterion.metric, math.nan)
    return CriterionJudgement(
        criterion=criterion, stat=stat, k=0.0, n=0.0, low=-math.inf, high=math.inf, verdict="undecided"
    )


def summary(outcome: Measured) -> dict[str, float]:
    """Every standard metric over the steady part; what a command left only totals of, as the mean over its runs.

    Failed requests count as infinite in percentiles and medians, and do not count in means.
    """
    if outcome.records is None:
        return _totals(outcome)
    window = steady_window(outcome)
    records = outcome.records
    if window is None:  # it never got there: then everything, rather than nothing
        if not len(records):
            return {}
        window = Window(
            start_s=0.0, end_s=records.observed_s, complete=True, mean_e2e_s=1.0, p90_e2e_s=1.0, p95_e2e_s=1.0
        )
    return {**_totals(outcome), **_summary(records, window)}


def _totals(outcome: Measured) -> dict[str, float]:
    names = dict.fromkeys(name for run in outcome.aggregates for name in run)
    return {n: float(np.mean([run[n] for run in outcome.aggregates if n in run])) for n in names}


def _summary(records: Records, window: Window) -> dict[str, float]:
    found: dict[str, float] = {}
    due = records.scheduled_s
    until = window.end_s if window.complete else window.end_s - 1.3 * window.p90_e2e_s
    chosen = (due >= window.start_s) & (due <= until)
    for field in LATENCIES:
        if field == "itl":
            if len(records.gap_offsets) != len(records) + 1:
                continue
            values = records.gaps_us[np.repeat(chosen, np.diff(records.gap_offsets))] / 1e3
        else:
            values = latency_ms(field, records)[chosen]
            values = values[~np.isnan(values)]
        if not len(values):
            continue
        finite = values[np.isfinite(values)]
        found[f"mean_{field}_ms"] = float(finite.mean()) if len(finite) else math.inf
        found[f"median_{field}_ms"] = stats.quantile(values, 0.5)
        found.update({f"p{p}_{field}_ms": stats.quantile(values, p / 100) for p in (50, 90, 95, 99)})
    edges = np.array([window.start_s, window.end_s])
    for name in THROUGHPUTS:
        amount = np.diff(delivered(name.split("_")[0], records, edges))[0]
        found[name] = float(amount) / window.length_s if window.length_s > 0 else math.nan
    ended = chosen & ~records.running
    found["error_rate"] = float(records.broken[ended].mean()) if ended.any() else math.nan
    return found
