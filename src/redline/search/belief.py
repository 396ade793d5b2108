"""What the readings say on the capacity: a posterior over its logarithm.

Each criterion has a capacity u = ln(load) and a slope S, by which its log-odds of exceeding (shares) or the log of its
mean rise per unit of ln(load). The capacity of the SLA is the smallest of its criteria's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import expit, gammainc, logit, ndtr, xlog1py, xlogy

from redline import stats
from redline.model import Criterion, Goal, Sla
from redline.records import Floats
from redline.search.evidence import MIN_JUDGED, Reading, for_another, hears_over
from redline.search.scouts import BAD_SCOUT, scout_ratio
from redline.sla import allowed_share, metric_of
from redline.verdict.tally import Tally
from redline.verdict.watch import HOPELESS_MEAN, pooled

STEP = 0.008
SHARE_SLOPES = np.array([0.6, 1.1, 2, 3.5, 6, 10, 17, 30, 55, 110.0])
SHARE_SLOPE_PRIOR = (math.log(11), 1.1)
QUEUE_SLOPE_PRIOR = (math.log(17), 1.0)  # of a time to first token in open loop: little but the queue decides it
MEAN_SLOPES = np.array([0.5, 1, 1.7, 3, 6, 12, 25.0])
MEAN_SLOPE_PRIOR = (math.log(2.5), 1.0)
LOAD_NOISE = 0.02  # standard deviation of ln(load): no two runs of a server are quite the same
SHAPE_NOISE = 0.2  # the straight line in ln(load) is wrong by so much of the distance
FLUKE = 0.03  # the chance that an early end misleads, so that later trials can overrule it
TIMES = np.array([1.0, 2, 4, 8])  # as much may trials differ from each other as one of them differs within
TIMES_PRIOR = np.array([0.7, 0.15, 0.1, 0.05])
NEAR = 3.0  # times the share allowed: beyond it a queue grows, and all are over in one go
OTHERS = 14  # trials of other SLAs, by rate: more than so many count for no more
CLUMPS = 20  # requests over a bound, for which the guess at how they come together stands
_BELOW, _ABOVE = 1.0, 0.7  # how far the grid goes beyond the scouted range
_PILED, _PILED_SHARE, _MOVES = 0.05, 0.10, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """What scouts found: the highest good load and the lowest bad one, where there is one."""

    ok: float | None
    bad: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """What one trial says on one criterion."""

    load: float
    kind: Literal["share", "mean", "beyond"]  # beyond: the load is above the capacity, by how much is not known
    n: float = 0.0
    k: float = 0.0
    phi: float = 1.0
    distance: float = 0.0  # ln(mean / bound)
    variance: float = 0.0  # of the distance
    load_variance: float = 0.0
    failed: bool = False  # it was ended as hopeless: what it would have shown in the end is at least this
    queue: float = 0.0  # variance of what a queue is fed, per request; 0 where no queue is heard of
    crowd: float = 0.0  # requests in flight; 0 where no queue is heard of
    sent: int = 1
    weight: float = 1.0  # how much of a trial it counts for


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Belief:
    """The posterior over ln(capacity) on a grid, and each criterion's own median."""

    grid: Floats
    cdf: Floats
    medians: Mapping[str, float]  # criterion text -> load

    def quantile(self, p: float) -> float:
        """The load below which the capacity lies with probability p."""
        return math.exp(float(np.interp(p, self.cdf, self.grid)))

    def above(self, load: float) -> float:
        """The probability that the capacity is at least this load."""
        return 1 - float(np.interp(math.log(load), self.grid, self.cdf))

    @property
    def half(self) -> float:
        """Half the width of the 80% interval of ln(capacity): .05 is 5%."""
        return math.log(self.quantile(0.9) / self.quantile(0.1)) / 2


def believe(readings: Sequence[Reading], sla: Sla, scouted: Range, goal: Goal) -> Belief:
    """The posterior after these readings."""
    words = {c: words_on(c, readings, sla) for c in active(readings, sla, goal)}
    words = {c: said for c, said in words.items() if said}
    first, last = math.log(goal.min_load) - _BELOW, math.log(goal.max_load) + _ABOVE
    ok = scouted.ok if scouted.ok is not None else goal.min_load
    bad = scouted.bad if scouted.bad is not None else goal.max_load
    start, end = math.log(min(ok, bad)) - _BELOW, math.log(max(ok, bad)) + _ABOVE
    start, end = max(start, first), min(end, last)
    for _ in range(_MOVES + 1):
        grid = np.linspace(start, end, max(2, math.ceil((end - start) / STEP)) + 1)
        prior = np.minimum(0, grid - math.log(ok)) + np.minimum(0, math.log(bad) - grid)
        belief = _posterior(grid, prior, words)
        edge = _PILED_SHARE, 1 - _PILED_SHARE
        low = float(np.interp(start + _PILED, grid, belief.cdf)) > edge[0] and start > first
        high = float(np.interp(end - _PILED, grid, belief.cdf)) < edge[1] and end < last
        if not (low or high):
            break
        start, end = max(first, start - _BELOW * low), min(last, end + _ABOVE * high)
    return belief


def active(readings: Sequence[Reading], sla: Sla, goal: Goal) -> list[Criterion]:
    """The criteria that can limit the load from above.

    A throughput asks for more load, not less. The error rate stays out until something fails, for all it could say is
    that the limit is further up; unless, in open loop, no other criterion hears of a queue that grows without end:
    then its requests will time out.
    """
    chosen = []
    limiting = [c for c in sla.criteria if metric_of(c.metric).kind not in ("throughput", "error_rate")]
    deaf = goal.by == "rate" and not any(hears_over(c) for c in limiting)
    for criterion in sla.criteria:
        kind = metric_of(criterion.metric).kind
        if kind == "throughput":
            continue
        if kind == "error_rate" and not deaf:
            told = (r.tallies.get(criterion.text) for r in readings)
            if not any(t.k > 0 for t in told if t) and not any(r.failed == criterion.text for r in readings):
                continue
        chosen.append(criterion)
    return chosen


def words_on(criterion: Criterion, readings: Sequence[Reading], sla: Sla) -> list[Word]:
    """What each reading says on this criterion; passing scouts and scouts in a growing queue say nothing.

    By rate the trials of other SLAs are often too short for this one, and all flatter in the same way, since each
    starts idle: many of them count for no more than `OTHERS`.
    """
    full = [r for r in readings if r.role == "full" and r.tallies[criterion.text].requests >= MIN_JUDGED]
    phi = _overdispersion(criterion, full)
    said = [(r, word) for r in readings if (word := _word_on(criterion, r, sla, phi)) is not None]
    theirs = [r.trial.probe.by == "rate" and word.kind != "beyond" and for_another(r.trial, sla) for r, word in said]
    weight = min(1.0, OTHERS / max(sum(theirs), 1))
    return [replace(word, weight=weight) if other else word for (_, word), other in zip(said, theirs, strict=True)]


def _word_on(criterion: Criterion, reading: Reading, sla: Sla, phi: float) -> Word | None:
    beyond = Word(load=reading.load, kind="beyond")
    if reading.role == "over":
        return beyond if hears_over(criterion) and not reading.scouting else None
    if reading.role == "silent" or (reading.role == "fail" and reading.failed != criterion.text):
        return None
    found = reading.tallies[criterion.text]
    if reading.role == "fail":
        return _word_of_failed(reading, found, phi) or beyond
    if reading.role == "full" and found.requests >= MIN_JUDGED:
        return beyond if _far_beyond(found) else _word(reading, found, phi)
    far = reading.role == "scout" and scout_ratio(reading, sla) > BAD_SCOUT and found.n >= 5 and _far_beyond(found)
    return beyond if far else None


def _overdispersion(criterion: Criterion, full: Sequence[Reading]) -> float:
    """By how much the number over varies more than that of independent requests, in full trials.

    Where a queue decides, calm trials say nothing of how many are over in one go when it builds up. Until enough were,
    it is taken for as many as are in flight: which of them is over hangs on all of these.
    """
    tallies = [r.tallies[criterion.text] for r in full]
    allowed = allowed_share(criterion)
    queues = any(r.trial.probe.by == "rate" for r in full) and hears_over(criterion)
    if allowed is None or not queues or metric_of(criterion.metric).kind == "error_rate":
        return pooled(tallies)
    near = [(r, t) for r, t in zip(full, tallies, strict=True) if t.k <= NEAR * allowed * t.n]
    guess = max(stats.PHI_PRIOR, float(np.mean([r.load * r.mean_e2e_s for r, _ in near] or [0.0])))
    over = sum(t.k for _, t in near)
    return max(1.0, (CLUMPS * guess + sum(t.clumped for _, t in near)) / (CLUMPS + over))


def _far_beyond(found: Tally) -> bool:
    """So far on the wrong side that only the sign counts: out there the model is no more than that."""
    allowed = allowed_share(found.criterion)
    if allowed is None or found.from_totals:
        return math.log(max(found.ratio, 1e-9)) > 0.5
    capped = allowed + 0.6 * (1 - allowed)
    return found.k / found.n > min(0.6, 25 * allowed, max(6 * allowed, 0.3), capped)


def _word(reading: Reading, found: Tally, phi: float) -> Word:
    closed = reading.trial.probe.by == "concurrency"
    noise = (reading.arrival_cv2 + reading.length_cv2) / max(reading.sent, 1)
    if closed:
        noise = 0.6 * (1 + reading.length_cv2 / 2) / max(reading.sent, 1)
    allowed = allowed_share(found.criterion)
    word = Word(load=reading.load, kind="share", phi=phi, load_variance=noise, sent=max(reading.sent, 1))
    if hears_over(found.criterion) and not closed:
        fed = reading.arrival_cv2 + reading.length_cv2
        crowd = 0.0 if found.from_totals else reading.load * reading.mean_e2e_s
        word = replace(word, queue=fed, crowd=crowd)
    if allowed is not None and not found.from_totals:
        return replace(word, n=found.n, k=found.k)
    if found.from_totals:
        variance = _variance_of_totals(found, allowed, max(reading.runs, 1))
    else:
        variance = 1.5 * phi * found.relative_variance / found.n
    return replace(word, kind="mean", distance=math.log(max(found.ratio, 1e-9)), variance=max(variance, 1e-6))


def _word_of_failed(reading: Reading, found: Tally, phi: float) -> Word | None:
    """What was over by then; None where only the sign of that counts.

    A mean counts as just hopeless: how far it went on says how long the queue grew, not how steep the way there is.
    """
    if found.n < 5 or (allowed_share(found.criterion) is not None and _far_beyond(found)):
        return None
    word = _word(reading, found, phi)
    return replace(word, failed=True, distance=min(word.distance, math.log(HOPELESS_MEAN)))


def _variance_of_totals(found: Tally, allowed: float | None, runs: int) -> float:
    """Of the mean log over a command's runs: what they showed, but no less than such a statistic must vary."""
    floor = 0.05 if allowed is None else 0.22 * math.sqrt(4.0 / max(found.n / runs * allowed, 1e-9))
    return max(found.relative_variance, floor**2) / runs


def _posterior(grid: Floats, prior: Floats, words: Mapping[Criterion, Sequence[Word]]) -> Belief:
    survival = np.ones_like(grid)
    medians = {}
    for criterion, said in words.items():
        mass = _criterion_mass(grid, criterion, said)
        cdf = np.cumsum(mass) - mass / 2
        medians[criterion.text] = math.exp(float(np.interp(0.5, cdf, grid)))
        survival *= 1 - cdf
    mass = np.gradient(1 - survival) if words else np.ones_like(grid)
    mass = np.maximum(mass, 0) * np.exp(prior)
    total = float(mass.sum())
    mass = mass / total if total > 0 else np.full_like(grid, 1 / len(grid))
    return Belief(grid=grid, cdf=np.cumsum(mass) - mass / 2, medians=medians)


def _criterion_mass(grid: Floats, criterion: Criterion, words: Sequence[Word]) -> Floats:
    """The posterior of one criterion's ln(capacity), its slope summed out."""
    allowed = allowed_share(criterion)
    shares = allowed is not None and all(w.kind != "mean" for w in words)
    slopes, (middle, spread) = (SHARE_SLOPES, SHARE_SLOPE_PRIOR) if shares else (MEAN_SLOPES, MEAN_SLOPE_PRIOR)
    if shares and metric_of(criterion.metric).field == "ttft" and any(w.queue > 0 for w in words):
        middle, spread = QUEUE_SLOPE_PRIOR
    times = TIMES[:, None, None]
    slope_prior = -0.5 * ((np.log(slopes) - middle) / spread) ** 2
    log = np.log(TIMES_PRIOR)[:, None, None] + np.broadcast_to(slope_prior, (len(TIMES), len(grid), len(slopes)))
    room = _room(allowed if shares else None, slopes)
    for word in words:
        memory = word.queue / room**2
        du = (math.log(word.load) - grid)[:, None]
        noise = slopes**2 * (times * LOAD_NOISE**2 + word.load_variance + (SHAPE_NOISE * du) ** 2)
        if word.kind == "beyond":
            log += np.log(expit(du / LOAD_NOISE) + FLUKE)
        elif word.kind == "mean":
            own = word.variance + (memory + word.crowd) / word.sent
            log += word.weight * _log_of_mean(word, slopes * du, times * own, noise)
        elif allowed is not None:
            p = np.clip(expit(logit(allowed) + slopes * du), 1e-12, 1 - 1e-12)
            log += word.weight * _log_of_share(
                word, p, times * np.maximum(word.phi, memory) + word.n * p * (1 - p) * noise
            )
    mass = np.exp(log - log.max()).sum(axis=(0, 2))
    return np.asarray(mass / mass.sum(), dtype=np.float64)


def _log_of_mean(word: Word, expected: Floats, own: Floats, noise: Floats) -> Floats:
    """The log likelihood of a trial's mean: lognormal, of variance `own` within trials, about exp(expected).

    So most trials show less than the mean of them all, and a few show far more: as queues do that seldom build up.
    """
    variance = own + noise
    away = word.distance - (expected - own / 2)
    if word.failed:
        return np.asarray(np.log(ndtr(-away / np.sqrt(variance)) + FLUKE))
    return np.asarray(-0.5 * away**2 / variance - 0.5 * np.log(variance))


def _log_of_share(word: Word, p: Floats, inflation: Floats) -> Floats:
    """The log likelihood of k of n over, each worth 1 / inflation independent ones."""
    if word.failed:  # as Poisson: so many or more
        return np.asarray(np.log(gammainc(word.k / inflation, word.n * p / inflation) + FLUKE))
    best = min(max(word.k, 0.5) / word.n, 1 - 0.5 / word.n)
    gain = _log_likelihood(word, p) - _log_likelihood(word, best)
    return np.asarray(gain / inflation - 0.5 * np.log(inflation))


def _room(allowed: float | None, slopes: Floats) -> Floats:
    """How far below its saturation, as a share, a queue reaches a bound with this slope.

    Near saturation waits are exponential, with a mean that goes as 1 / room: so the slope tells the room. And the less
    room, the longer a queue remembers: for 1 / room^2 requests, times the variance of what it is fed.
    """
    if allowed is None:
        return 1 / slopes
    found: Floats = math.log(1 / allowed) / (1 - allowed) / slopes
    return found


def _log_likelihood(word: Word, p: Floats | float) -> Floats:
    return np.asarray(xlogy(word.k, p) + xlog1py(word.n - word.k, -np.asarray(p)), dtype=np.float64)
