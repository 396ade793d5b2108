"""When a running trial has seen enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline import stats
from redline.model import Criterion, Measured, Probe, Sla, Stop, Trial, Watch
from redline.records import Records
from redline.sla import allowed_share, judged, latency_ms, metric_of
from redline.verdict.tally import (
    FIRST_SIGHT,
    Tally,
    Window,
    at_first_sight,
    first_look,
    steady_window,
    tally,
    window_of,
)

SCOUT_REQUESTS, SETTLED = FIRST_SIGHT, 0.9
FEW_ALONE, ALONE, WELL_WITHIN = (
    5,
    0.5,
    0.8,
)  # requests, if fewer are in flight than that, and within that share of bounds
EXTENSION, MAX_EXTENSIONS = 1.7, 3
HOPELESS_MEAN = 1.6  # times the bound
MIN_WINDOW_S = 5.0
MEMORIES, FORGOTTEN = 15, 2  # times the memory of the queue: a window, and the start that is cut off
MOST_LONGER = 8  # unless that takes so many times the requests
MIN_REQUESTS = 90  # gaps come by the hundred, but those of one request tell one story


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """What the trials before this one lead us to expect."""

    p90_e2e_s: float  # of the nearest load; 1 s if there is none
    mean_e2e_s: float
    phi: dict[str, float]  # criterion text -> pooled overdispersion


def earlier(history: Sequence[Trial], sla: Sla, probe: Probe) -> Earlier:
    """What to expect of this probe."""
    nearest: Window | None = None
    distance = math.inf
    seen: dict[str, list[Tally]] = {criterion.text: [] for criterion in sla.criteria}
    for trial in history:
        outcome = trial.outcome
        if trial.probe.by != probe.by or not isinstance(outcome, Measured):
            continue
        if outcome.records is None or not outcome.records.ok.any():
            continue
        away = abs(math.log(trial.probe.load / probe.load))
        if away <= distance:
            nearest, distance = window_of(outcome.records, 0.0), away
        if outcome.stop.reason in ("full", "ended") and trial.probe.kind != "scout":
            window = steady_window(outcome)
            for criterion in sla.criteria if window else ():
                assert window is not None  # or there would be no criterion here
                seen[criterion.text].append(tally(criterion, outcome.records, window))
    return Earlier(
        p90_e2e_s=nearest.p90_e2e_s if nearest else 1.0,
        mean_e2e_s=nearest.mean_e2e_s if nearest else 1.0,
        phi={text: pooled(tallies) for text, tallies in seen.items()},
    )


def pooled(tallies: Sequence[Tally]) -> float:
    """One overdispersion for a criterion from all its trials."""
    prior = float(np.mean([t.prior_phi for t in tallies])) if tallies else stats.PHI_PRIOR
    return stats.pooled_phi([t.seen for t in tallies], prior)


def watcher(probe: Probe, sla: Sla, history: Sequence[Trial]) -> Watch:
    """The rule that ends this probe's trial, to be called about once a second with all requests so far.

    In order: hopeless for a criterion, the queue grows beyond doubt, a scout has seen enough, every criterion has its
    requests in a steady window. A listed load is measured to the end even if hopeless, a hold lasts its whole time.
    """
    known = earlier(history, sla, probe)
    warm_s: float | None = None
    extensions = 0
    target_s = MIN_WINDOW_S

    def watch(records: Records) -> Stop | None:
        nonlocal warm_s, extensions, target_s
        t = records.observed_s
        if not len(records):
            return None
        if warm_s is None and t >= 1.3 * (found := stats.warm_up_s(records)):
            warm_s = found
        if probe.kind != "list" and (stop := _hopeless(probe, sla, records, known, warm_s)):
            return stop
        if probe.by == "rate" and t > max(3.0, known.p90_e2e_s) and stats.piles_up(records):
            return Stop(
                reason="over", at_s=t, window_start_s=warm_s or 0.0, detail="requests queue up faster than they leave"
            )
        if probe.kind == "scout":
            return _scouted(probe, sla, records)
        if warm_s is None:
            return None
        window = window_of(records, warm_s)
        if probe.kind == "hold":
            if t < probe.max_s - 1:  # or the session's own limit would end it first
                return None
        elif window.length_s < max(target_s, 2 * warm_s) or not _enough(probe, sla, records, window):
            return None
        if probe.by == "rate":
            rise = stats.growth(records, warm_s, t)
            surely = rise.share > 0.05 and rise.z > (3 if extensions else 6)
            if rise.z > 1.3 and (surely or extensions == MAX_EXTENSIONS):
                grows = f"{100 * rise.share:.0f}% of what arrived stayed"
                return Stop(reason="over", at_s=t, window_start_s=warm_s, detail=f"the number in flight grows: {grows}")
            if rise.z > 1.3 and probe.kind != "hold":
                extensions, target_s = extensions + 1, EXTENSION * window.length_s
                return None
        if probe.by == "rate":
            warm_s = max(warm_s, min(FORGOTTEN * stats.relaxation_s(records, warm_s, t), t / 3))
        return Stop(reason="full", at_s=t, window_start_s=warm_s)

    return watch


def _enough(probe: Probe, sla: Sla, records: Records, window: Window) -> bool:
    """Has every criterion its requests?"""
    for criterion in sla.criteria:
        need = probe.need.get(criterion.text, 0)
        found = tally(criterion, records, window)
        if criterion.default and found.k > 0:
            # Nothing failed: the other criteria say how long. Something did: then it must be judged like any other.
            need = max(need, math.ceil(8 / criterion.bound))
        metric = metric_of(criterion.metric)
        if metric.kind != "throughput" and found.n < need:
            return False
        if metric.field == "itl" and found.requests < min(need, MIN_REQUESTS):
            return False
        # A queue near its limit rises and falls slowly: within one rise or fall, requests by the hundred tell one
        # story, and since a trial starts idle, a flattering one.
        queues = probe.by == "rate" and metric.field in ("ttft", "e2el") and found.n < MOST_LONGER * need
        if queues and window.length_s < MEMORIES * stats.relaxation_s(records, window.start_s, window.end_s):
            return False
    return True


def _scouted(probe: Probe, sla: Sla, records: Records) -> Stop | None:
    skip = first_wave(probe)
    ended = ~records.running
    want = SCOUT_REQUESTS if probe.by == "rate" else skip + max(SCOUT_REQUESTS, skip)
    if probe.by == "rate" and _untroubled(sla, records):
        want = FEW_ALONE
    latencies = stats.e2e_s(records)
    settle_s = 1.5 * float(latencies.mean()) if len(latencies) else 0.0
    if int(ended.sum()) < want or records.observed_s < max(1.0, settle_s):
        return None
    looked_at = at_first_sight(records, skip)
    for criterion in sla.criteria:
        if metric_of(criterion.metric).kind != "throughput":
            # A second of a load far too high looks well as long as only what was served at once is judged.
            settled = (judged(criterion, records).weight > 0) | ended
            if float(settled[looked_at].mean()) < SETTLED:
                return None
    return Stop(reason="scouted", at_s=records.observed_s)


def _untroubled(sla: Sla, records: Records) -> bool:
    """Do requests hardly meet, and keep well within all bounds? Then a few more would say no more."""
    if float(records.age_s().sum()) > ALONE * records.observed_s:
        return False
    looks = [first_look(c, records, 0) for c in sla.criteria if metric_of(c.metric).kind != "throughput"]
    return all(found.n > 0 and found.k <= 0 and not found.ratio > WELL_WITHIN for found in looks)


def first_wave(probe: Probe) -> int:
    """The requests of a closed loop that all users send as they come: no steady state yet."""
    return int(probe.load) if probe.by == "concurrency" else 0


def early_limit(allowed: float) -> float:
    """The share over the bound above which a criterion may be called hopeless early."""
    return min(3 * allowed, allowed + 0.6 * (1 - allowed))


def _hopeless(probe: Probe, sla: Sla, records: Records, known: Earlier, warm_s: float | None) -> Stop | None:
    t = records.observed_s
    for criterion in sla.criteria:
        metric = metric_of(criterion.metric)
        detail = ""
        if allowed_share(criterion) is not None:
            detail = _hopeless_share(probe, criterion, records, known, warm_s)
        elif metric.kind == "mean" and metric.field in ("ttft", "e2el") and t > known.p90_e2e_s:
            begun = _counted(probe, records, warm_s) & ~records.broken
            ages = latency_ms(metric.field, records)[begun]
            if len(ages) >= 40 and float(ages.mean()) > HOPELESS_MEAN * criterion.bound:
                detail = f"{len(ages)} requests already took {ages.mean():.0f} ms on average"
        if detail:
            return Stop(reason="fail", at_s=t, window_start_s=warm_s or 0.0, criterion=criterion.text, detail=detail)
    return None


def _counted(probe: Probe, records: Records, warm_s: float | None) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Open loop: all requests. Closed loop: those after the warm-up, for the first wave is served like no other."""
    if probe.by == "rate":
        return np.ones(len(records), bool)
    if warm_s is not None and probe.kind != "scout":
        return records.scheduled_s >= warm_s
    return np.arange(len(records)) >= first_wave(probe)


def _hopeless_share(probe: Probe, criterion: Criterion, records: Records, known: Earlier, warm_s: float | None) -> str:
    allowed = allowed_share(criterion)
    assert allowed is not None  # by the caller
    t = records.observed_s
    found = judged(criterion, records)
    counted = _counted(probe, records, warm_s)
    metric = metric_of(criterion.metric)
    bounds_ms = [b.bound for b in metric.bounds] or ([criterion.bound] if metric.kind == "quantile" else [0.0])
    patience_s = probe.spread_s + 4 * known.p90_e2e_s + 3 * max(bounds_ms) / 1e3
    if probe.by == "concurrency" and warm_s is None and t > patience_s:
        # By now all users should have been served once: a server that answers none must not go unjudged.
        if (found.over > 0).all() and np.isnan(records.first_s).all():
            return f"no token came in {t:.0f} s"
        counted = np.ones(len(records), bool)
    counted &= found.weight > 0
    weight, over = found.weight[counted], found.over[counted]
    n, k = float(weight.sum()), float(over.sum())
    if len(weight) < 5 or int((over > 0).sum()) < 4 or not k / n > early_limit(allowed):
        return ""
    phi = known.phi[criterion.text]
    if metric.field == "itl":
        phi = max(phi, stats.PHI_PRIOR * stats.dispersion(over, weight, k / n * (1 - k / n), len(over)).phi)
    if _log_likelihood(k, n, k / n) - _log_likelihood(k, n, allowed) <= 10 * phi:
        return ""
    slow = records.scheduled_s[counted][over > 0]
    if k / n <= 0.5 and float(np.ptp(slow)) <= 0.3 * t:
        return ""
    if metric.kind == "error_rate":
        return f"{k:.0f} of {n:.0f} requests failed"
    return f"{k:.0f} of {n:.0f} {'gaps' if metric.field == 'itl' else 'requests'} are over the bound"


def _log_likelihood(k: float, n: float, p: float) -> float:
    p = min(max(p, 1e-12), 1 - 1e-12)
    return k * math.log(p) + (n - k) * math.log1p(-p)
