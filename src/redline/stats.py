"""Bounds and moments of dependent samples, and the steady part of a trial.

Requests of one trial share a queue, so n of them are worth only n / phi independent ones: the overdispersion phi
compares the spread between batches of consecutive requests with what independent requests would show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from redline.records import Floats, Records

PHI_PRIOR, PHI_PRIOR_DF = 4.0, 6.0  # what a queue near its limit typically shows, and how firmly to believe it
MIN_BATCHES, MAX_BATCHES = 4, 12
WARM_UP = 2.0  # times the p90 of e2e latency
_SERIES = 256  # points at which the number in flight is looked at, to see how long it remembers itself
_CLOSE = 0.5  # of the mean distance between requests over a bound: nearer ones are of one clump
_PART = 1 / 3  # of the window, at its start and at its end, are compared in the test of stationarity


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispersion:
    """Overdispersion and how many degrees of freedom it rests on."""

    phi: float
    df: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """Does the number in flight grow? `z` in standard deviations, `share` of the arrivals that stayed."""

    z: float
    share: float


def share_bounds(k: float, n: float, confidence: float) -> tuple[float, float]:
    """Exact one-sided Clopper-Pearson bounds, each at `confidence`, on the share behind k of n; fractions will do."""
    if n <= 0:
        return 0.0, 1.0
    low = 0.0 if k <= 0 else float(betaincinv(k, n - k + 1, 1 - confidence))
    high = 1.0 if k >= n else float(betaincinv(k + 1, n - k, confidence))
    return low, high


def mean_bounds(mean: float, standard_error: float, df: int, confidence: float) -> tuple[float, float]:
    """One-sided Student bounds, each at `confidence`."""
    if df < 1 or not math.isfinite(mean + standard_error):
        return -math.inf, math.inf
    half = float(stdtrit(df, confidence)) * standard_error
    return mean - half, mean + half


def floor_to_pass(allowed: float, confidence: float, phi: float = 1.0) -> int:
    """The fewest requests that can pass with none over: below them no data do."""
    return math.ceil(phi * math.log(1 - confidence) / math.log1p(-allowed) - 1e-9)


def quantile(values: Floats, q: float) -> float:
    """The smallest value that at least a share q does not exceed; so k <= (1-q) n over is the same as meeting it."""
    n = len(values)
    if n == 0:
        return math.nan
    place = min(max(math.ceil(q * n - 1e-9) - 1, 0), n - 1)
    return float(np.partition(values, place)[place])


def batch_count(window_s: float, mean_e2e_s: float) -> int:
    """As many batches as nearly independent pieces fit into the window."""
    if not (mean_e2e_s > 0 and window_s > 0):
        return MIN_BATCHES
    return int(min(max(window_s / mean_e2e_s, MIN_BATCHES), MAX_BATCHES))


def dispersion(total: Floats, weight: Floats, variance: float, batches: int) -> Dispersion:
    """Overdispersion of sum(total) / sum(weight) from batches of consecutive requests.

    Args:
        total: what each request adds: how many of its units are over, or the sum of its values
        weight: how many units it has
        variance: of one unit, were units independent
    """
    batches = min(batches, len(total))
    weights = float(weight.sum())
    if batches < 2 or weights <= 0 or not variance > 0:
        return Dispersion(phi=1.0, df=0)
    mean = float(total.sum()) / weights
    starts = np.linspace(0, len(total), batches + 1).astype(int)[:-1]
    n = np.add.reduceat(weight, starts)
    excess = np.add.reduceat(total, starts) - n * mean
    kept = n > 0
    df = int(kept.sum()) - 1
    if df < 1:
        return Dispersion(phi=1.0, df=0)
    return Dispersion(phi=float((excess[kept] ** 2 / n[kept]).sum()) / df / variance, df=df)


def pooled_phi(seen: list[Dispersion], prior: float = PHI_PRIOR) -> float:
    """One overdispersion from several trials and a prior; never below 1."""
    df = sum(each.df for each in seen)
    return max(1.0, (PHI_PRIOR_DF * prior + sum(each.df * each.phi for each in seen)) / (PHI_PRIOR_DF + df))


def clumped(due_s: Floats, over: Floats, stay_s: float) -> float:
    """The sum of the squares of the sizes of clumps: of what was over, each due soon after the one before.

    Soon is while that one may still have been there, and less than half of the usual distance: or many that are
    independent of each other would be one clump.

    Divided by how many were over it is the size of the clump that one of them is in, on average; and so by how much
    their number varies more than that of independent ones, for which it says 2.3, since some are near by chance.
    (Clumps come as Poisson: D. Aldous, Probability Approximations via the Poisson Clumping Heuristic, 1989. Told apart
    by runs: R. Smith and I. Weissman, Estimating the Extremal Index, 1994.)

    Args:
        due_s: when each request was due, in order
        over: how many of its units are over
        stay_s: how long requests stay, on average
    """
    late = np.flatnonzero(over > 0)
    if not len(late):
        return 0.0
    soon_s = min(stay_s, _CLOSE * float(due_s[-1] - due_s[0]) / len(late))
    starts = np.flatnonzero(np.diff(due_s[late], prepend=-math.inf) > soon_s)
    return float((np.add.reduceat(over[late], starts) ** 2).sum())


# ---- the course of a trial -------------------------------------------------------------------------------------------


def in_flight(records: Records, times: Floats) -> Floats:
    """How many requests were under way at each of these times."""
    ends = np.sort(records.end_s[~np.isnan(records.end_s)])
    begun = np.searchsorted(np.sort(records.scheduled_s), times, side="right")
    return (begun - np.searchsorted(ends, times, side="right")).astype(float)


def mean_in_flight(records: Records, start_s: float, end_s: float) -> float:
    """How many requests were under way on average between two times."""
    ended = np.where(np.isnan(records.end_s), np.inf, records.end_s)
    within = np.minimum(ended, end_s) - np.maximum(records.scheduled_s, start_s)
    return float(np.maximum(within, 0.0).sum()) / (end_s - start_s)


def waiting(records: Records, at_s: float) -> int:
    """How many requests were under way without a first token."""
    begun = records.scheduled_s <= at_s
    with np.errstate(invalid="ignore"):
        answered = (records.first_s <= at_s) | (records.end_s <= at_s)
    return int((begun & ~answered).sum())


def between(times: Floats, start_s: float, end_s: float) -> int:
    """How many of these times lie in (start, end]; NaN does not."""
    return int(((times > start_s) & (times <= end_s)).sum())


def e2e_s(records: Records, chosen: NDArray[np.bool_] | None = None) -> Floats:
    """End-to-end latencies of the requests that finished well."""
    kept = records.ok if chosen is None else records.ok & chosen
    return (records.end_s - records.scheduled_s)[kept]


def warm_up_s(records: Records) -> float:
    """How long after its start a trial is not yet in its steady state; infinite while that cannot be told.

    Twice the p90 of the e2e latency of what was sent in the first half; what of it has not ended counts as infinite, so
    that a trial which is still filling up is not taken for a steady one.
    """
    first_half = records.scheduled_s <= records.observed_s / 2
    chosen = first_half & (records.ok | records.running)
    latency = np.where(records.running, np.inf, records.end_s - records.scheduled_s)[chosen]
    return WARM_UP * quantile(latency, 0.9) if len(latency) else math.inf


def growth(records: Records, start_s: float, end_s: float) -> Growth:
    """Compare the number in flight late in the window with the number early in it.

    Near capacity the backlog wanders like sqrt(t) even when it does not grow, hence the yardstick of N and sqrt(N).
    """
    if not end_s > start_s:
        return Growth(z=0.0, share=0.0)
    part_s = _PART * (end_s - start_s)
    arrivals = max(between(records.scheduled_s, start_s, end_s), 1)
    rise = mean_in_flight(records, end_s - part_s, end_s) - mean_in_flight(records, start_s, start_s + part_s)
    level = mean_in_flight(records, start_s, end_s)
    spread = 0.06 * level + math.sqrt(level)
    return Growth(z=rise / spread if spread > 0 else 0.0, share=rise / (0.68 * arrivals))


def piles_up(records: Records) -> bool:
    """Is the queue of requests without a first token growing beyond doubt? All conditions must hold."""
    t = records.observed_s
    queue = waiting(records, t)
    if queue <= 30 or queue <= 0.25 * float(in_flight(records, np.array([t]))[0]):
        return False
    if queue <= 1.4 * waiting(records, 2 * t / 3) + 8:
        return False
    arrived = between(records.scheduled_s, 2 * t / 3, t)
    departed = between(records.end_s, 2 * t / 3, t)
    return departed < 0.8 * arrived and arrived - departed > 5 * math.sqrt(arrived + departed)


def relaxation_s(records: Records, start_s: float, end_s: float) -> float:
    """How long the number in flight remembers itself: the sum of its autocorrelations, to their first zero."""
    if not end_s > start_s:
        return 0.0
    counts = in_flight(records, np.linspace(start_s, end_s, _SERIES))
    centred = counts - counts.mean()
    power = np.abs(np.fft.rfft(centred, 2 * _SERIES)) ** 2
    correlation = np.fft.irfft(power)[:_SERIES]
    if not correlation[0] > 0:
        return 0.0
    correlation = correlation / correlation[0]
    ends = int(np.argmax(correlation <= 0)) or _SERIES
    return float(correlation[:ends].sum() - 0.5) * (end_s - start_s) / (_SERIES - 1)


def squared_cv(values: NDArray[np.int32] | Floats) -> float:
    """Squared coefficient of variation; 0 without a spread."""
    mean = float(values.mean()) if len(values) else 0.0
    return float(values.var()) / mean**2 if mean > 0 else 0.0
