"""What one trial says on one criterion: how many of how many were over, how far from the bound, how dependent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redline import stats
from redline.model import Criterion, Measured
from redline.records import Floats, Records
from redline.sla import Judged, Metric, allowed_share, judged, metric_of, ratio
from redline.sla import met as keeps
from redline.stats import Dispersion

FIRST_SIGHT = 12
MIN_EXCEEDING = 4  # fewer exceedances say nothing on how they cluster
NOTHING = Dispersion(phi=1.0, df=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The steady part of a trial, [start, end], and the e2e latencies that its lags are made of."""

    start_s: float
    end_s: float
    complete: bool  # all requests were let finish, so nothing in it is undecided
    mean_e2e_s: float
    p90_e2e_s: float
    p95_e2e_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """k of n units over the bound (shares), or a mean (n values), with the dependence seen."""

    criterion: Criterion
    n: float = 0.0
    k: float = 0.0
    requests: int = 0
    stat: float = math.nan  # the metric's value, in its own unit
    relative_variance: float = 0.0  # of one unit, over the squared mean
    seen: Dispersion = NOTHING
    prior_phi: float = stats.PHI_PRIOR
    clumped: float = 0.0  # as `stats.clumped`: how they come together, where some were over
    look: float = math.nan  # as `ratio`, at a quantile that so few requests can show
    from_totals: bool = False  # only the value is known, not how many were over

    @property
    def ratio(self) -> float:
        """How far from the bound: above 1 is on the wrong side; infinite where nothing is known."""
        return ratio(self.criterion, self.stat) if not math.isnan(self.stat) else math.inf

    @property
    def met(self) -> bool:
        """Does the point estimate keep the criterion?"""
        if self.n <= 0:
            return False
        allowed = None if self.from_totals else allowed_share(self.criterion)
        return keeps(self.criterion, self.stat) if allowed is None else self.k <= allowed * self.n + 1e-9

    @property
    def phi(self) -> float:
        """Overdispersion as far as this trial alone tells."""
        return stats.pooled_phi([self.seen], self.prior_phi)


def window_of(records: Records, start_s: float, *, complete: bool = False) -> Window:
    """The window from `start_s` to the end of what was seen; to the last arrival when all were let finish."""
    latencies = stats.e2e_s(records)
    if not len(latencies):
        latencies = records.age_s()
    known = len(latencies) > 0
    return Window(
        start_s=start_s,
        end_s=float(records.scheduled_s[-1]) if complete and len(records) else records.observed_s,
        complete=complete,
        mean_e2e_s=float(latencies.mean()) if known else 1.0,
        p90_e2e_s=stats.quantile(latencies, 0.90) if known else 1.0,
        p95_e2e_s=stats.quantile(latencies, 0.95) if known else 1.0,
    )


def steady_window(outcome: Measured) -> Window | None:
    """The steady part of a stored trial; None when it never got there, or has no records."""
    records = outcome.records
    if records is None or not len(records):
        return None
    start_s = outcome.stop.window_start_s or stats.warm_up_s(records)
    complete = outcome.stop.reason == "ended"
    window = window_of(records, start_s, complete=complete)
    return window if window.length_s > 0 else None


def lag_s(criterion: Criterion, window: Window) -> float:
    """How old a request must be to be judged without favour: by then it has kept the bound or broken it."""
    metric = metric_of(criterion.metric)
    if window.complete:
        return 0.0
    if metric.kind == "attainment":
        return max(_latency_lag_s(b.metric.removesuffix("_ms"), b.bound, window) for b in metric.bounds)
    if metric.kind == "quantile":
        return _latency_lag_s(metric.field, criterion.bound, window)
    return 1.3 * (window.p95_e2e_s if metric.kind == "mean" else window.p90_e2e_s)


def _latency_lag_s(field: str, bound_ms: float, window: Window) -> float:
    return bound_ms / 1e3 if field in ("ttft", "e2el") else 1.3 * window.p90_e2e_s


def tally(criterion: Criterion, records: Records, window: Window) -> Tally:
    """Judge the requests that were due in the window and are old enough."""
    metric = metric_of(criterion.metric)
    if metric.kind == "throughput":
        return _tally_throughput(criterion, metric, records, window)
    due = records.scheduled_s
    chosen = (due >= window.start_s) & (due <= window.end_s - lag_s(criterion, window))
    batches = stats.batch_count(window.length_s, window.mean_e2e_s)
    return _tally(criterion, records, chosen, batches, window.mean_e2e_s)


def at_first_sight(records: Records, skip: int) -> NDArray[np.bool_]:
    """The requests that a scout looks at: those of its first half, and a dozen at least, after the first `skip`."""
    number = np.arange(len(records))
    first_half = records.scheduled_s <= records.observed_s / 2
    return (number >= skip) & (first_half | (number < skip + FIRST_SIGHT))


def first_look(criterion: Criterion, records: Records, skip: int) -> Tally:
    """Judge what is known so far of the requests that a scout looks at."""
    metric = metric_of(criterion.metric)
    if metric.kind == "throughput":
        return _tally_throughput(criterion, metric, records, window_of(records, 0.0))
    return _tally(criterion, records, at_first_sight(records, skip), stats.MIN_BATCHES)


def _tally(
    criterion: Criterion, records: Records, chosen: NDArray[np.bool_], batches: int, stay_s: float = 0.0
) -> Tally:
    metric = metric_of(criterion.metric)
    found = judged(criterion, records)
    if metric.kind == "mean":
        return _tally_mean(criterion, metric, found, records, chosen, batches)
    chosen = chosen & (found.weight > 0)
    weight, over, value = found.weight[chosen], found.over[chosen], found.value[chosen]
    n, k = float(weight.sum()), float(over.sum())
    allowed = allowed_share(criterion)
    if n <= 0 or allowed is None:
        return Tally(criterion=criterion)
    share = k / n
    look = math.nan
    seen = NOTHING
    if k >= MIN_EXCEEDING:
        seen = stats.dispersion(over, weight, share * (1 - share), batches)
    prior = stats.PHI_PRIOR
    match metric.kind:
        case "error_rate":
            stat = share
            prior = stats.PHI_PRIOR if k else 1.0  # no failure, no sign that failures cluster
        case "attainment":
            stat = 1 - share
            look = stats.quantile(value, min(1 - allowed, 1 - 0.5 / n))
            seen = _larger(seen, _own_tail(value, batches))
        case _ if metric.field == "itl":
            gaps_ms = records.gaps_us[np.repeat(chosen, np.diff(records.gap_offsets))] / 1e3
            stat = stats.quantile(gaps_ms, metric.q) if not np.isinf(value).any() else _owed(gaps_ms, n, metric.q)
            tail = replace(criterion, bound=stats.quantile(gaps_ms, 0.9), op="<=")
            above = judged(tail, records).over[chosen]
            high = float(above.sum()) / n
            seen = _larger(seen, stats.dispersion(above, weight, high * (1 - high), batches))
            # Gaps of one request go together: that alone makes them worth less than their number.
            together = [(above, high)] + [(over, share)] * (k >= MIN_EXCEEDING)
            prior *= max([1.0, *(stats.dispersion(b, weight, p * (1 - p), len(b)).phi for b, p in together)])
        case _:
            stat = stats.quantile(value, metric.q)
            look = stats.quantile(value, min(metric.q, 1 - 0.5 / n)) / criterion.bound
            seen = _larger(seen, _own_tail(value, batches))
    return Tally(
        criterion=criterion,
        n=n,
        k=k,
        requests=len(weight),
        stat=stat,
        seen=seen,
        prior_phi=prior,
        clumped=stats.clumped(records.scheduled_s[chosen], over, stay_s),
        look=look,
    )


def _owed(gaps_ms: Floats, n: float, q: float) -> float:
    """The quantile when failed requests owe n - len(gaps) gaps that never came."""
    missing = max(0, round(n) - len(gaps_ms))
    return stats.quantile(np.concatenate((gaps_ms, np.full(missing, np.inf))), q)


def _own_tail(value: Floats, batches: int) -> Dispersion:
    """Dispersion at the trial's own 90% quantile, where there are always enough exceedances."""
    over = (value > stats.quantile(value, 0.9)).astype(float)
    share = float(over.mean())
    return stats.dispersion(over, np.ones_like(over), share * (1 - share), batches)


def _larger(one: Dispersion, other: Dispersion) -> Dispersion:
    return one if one.df and one.phi >= other.phi else other


def _tally_mean(
    criterion: Criterion, metric: Metric, found: Judged, records: Records, chosen: NDArray[np.bool_], batches: int
) -> Tally:
    # What has not finished enters with its age, except a time per token, of which age tells little.
    usable = records.ok | records.running if metric.field in ("ttft", "e2el") else records.ok
    chosen = chosen & usable & np.isfinite(found.value)
    value = found.value[chosen]
    weight = found.weight[chosen] if metric.field == "itl" else np.ones(len(value))
    n = float(weight.sum())
    if n <= 0:
        return Tally(criterion=criterion)
    mean = float((value * weight).sum()) / n
    variance = float((weight * (value - mean) ** 2).sum()) / n
    prior = stats.PHI_PRIOR
    if metric.field == "itl":
        prior *= max(1.0, stats.dispersion(value * weight, weight, variance, len(value)).phi)
    return Tally(
        criterion=criterion,
        n=n,
        requests=len(value),
        stat=mean,
        relative_variance=variance / mean**2 if mean > 0 else 0.0,
        seen=stats.dispersion(value * weight, weight, variance, batches),
        prior_phi=prior,
    )


def _tally_throughput(criterion: Criterion, metric: Metric, records: Records, window: Window) -> Tally:
    """Batch sums per second: the units are slices of time, and their spread already holds their dependence."""
    slices = stats.batch_count(window.length_s, window.mean_e2e_s)
    edges = np.linspace(window.start_s, window.end_s, slices + 1)
    per_s = np.diff(delivered(metric.field, records, edges)) / max(window.length_s / slices, 1e-9)
    mean = float(per_s.mean())
    if not mean > 0:
        return Tally(criterion=criterion, n=slices, requests=0, stat=0.0)
    return Tally(
        criterion=criterion,
        n=float(slices),
        requests=stats.between(records.end_s, window.start_s, window.end_s),
        stat=mean,
        relative_variance=float(per_s.var(ddof=1)) / mean**2,
        seen=Dispersion(phi=1.0, df=slices - 1),
        prior_phi=1.0,
    )


def delivered(field: str, records: Records, times: Floats) -> Floats:
    """How much was delivered up to each time: requests at their end, prompts and outputs evenly as tokens came."""
    done = records.ok
    ends = np.sort(records.end_s[done])
    if field == "request":
        return np.searchsorted(ends, times, side="right").astype(float)
    # A finished request without a known first token: a benchmark command kept only its ends.
    first = np.where(np.isnan(records.first_s) & done, records.sent_s, records.first_s)
    began = ~np.isnan(first) & ~records.broken
    first = first[began]
    last = np.where(np.isnan(records.end_s), records.observed_s, records.end_s)[began]
    tokens = records.tokens_out[began].astype(float)
    lasted = np.maximum(last - first, 1e-9)
    total = np.array([float((tokens * np.clip((at - first) / lasted, 0, 1)).sum()) for at in times])
    if field == "total":
        order = np.argsort(first)
        prompts = np.concatenate(([0.0], np.cumsum(records.tokens_in[began][order])))
        total = total + prompts[np.searchsorted(first[order], times, side="right")]
    return total
