"""The true capacity of a simulated server, from long virtual runs, with its own error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redline import sla as slas
from redline.model import Criterion, Probe, Sla, Variable, Workload
from redline.records import Floats, Records
from redline.simulate.profiles import Profile
from redline.simulate.session import Run
from redline.stats import relaxation_s

_RUNS = 6  # independent runs at each load
_FIRST = 4_000  # requests per run, to know it to 1%
_MOST = 500_000  # requests at one load
_MEMORIES = 100  # times the memory of the queue, that a run must last: else it says too little of rare congestion
_AROUND = (-0.036, -0.012, 0.012, 0.036)  # loads near the estimate, in ln(load)


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """The largest load that meets the SLA for ever. 0: no load does; infinite: every load does."""

    capacity: float
    error: float  # two standard errors, relative to the capacity
    limiting: str | None = None  # the criterion that ends it


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """How far the worst criterion is from its bound at a load, above 0 when broken."""

    excess: float  # ln(stat / bound), of shares in log-odds
    criterion: str
    deviations: Floats  # each run's, from `excess`
    offered: Floats  # ln(rate that came / rate asked for) of each run
    memories: float  # how often a run forgot where it came from

    @property
    def error(self) -> float:
        """Standard error of the excess."""
        return float(self.deviations.std(ddof=1)) / math.sqrt(len(self.deviations))


def true_capacity(
    profile: Profile, workload: Workload, sla: Sla, by: Variable = "rate", *, precision: float = 0.01
) -> Truth:
    """The capacity for this SLA, to `precision` where up to a few million requests suffice; `error` says how near.

    Noise from run to run, drift and a cold start are left out: it is the capacity of the server at its median speed.
    Criteria with a lower bound on a throughput limit no load from above; they are checked at the capacity found.
    """
    steady = replace(
        profile,
        run_noise=0.0,
        drift_per_s=0.0,
        cold_factor=0.0,
        faults=replace(profile.faults, crash_after=0, crash_above=0),
    )
    limits = [c for c in sla.criteria if slas.metric_of(c.metric).kind != "throughput"]
    floors = [c for c in sla.criteria if slas.metric_of(c.metric).kind == "throughput"]

    patience_s = max((c.bound / 1e3 for c in limits if c.metric.endswith("_ms")), default=0.0)

    def at(requests: int, runs: int, criteria: Sequence[Criterion] = limits) -> Callable[[float], _Point]:
        def measured(load: float) -> _Point:
            # A run must last longer than a bound, or no request can be beyond it.
            most = max(requests, int(4 * patience_s * load)) if by == "rate" else requests
            return _measured(steady, workload, criteria, Probe(by=by, load=load, kind="main", max_requests=most), runs)

        return measured

    full = float(steady.max_num_seqs) if by == "concurrency" else _saturation(steady, workload)
    good, bad = _bracket(at(500 if by == "rate" else 500 + 20 * int(full), 2), full, by)
    if good == 0.0 or math.isinf(bad):
        return Truth(capacity=bad if good else 0.0, error=0.0)
    requests = max(1_000, int(_FIRST * min(0.01 / precision, 1.0)), 40 * int(good) * (by == "concurrency"))
    runs = _RUNS
    known: dict[float, _Point] = {}  # whole loads of which it is clear on which side they are
    while True:
        measure = at(requests, runs)
        if by == "concurrency":
            truth, memories = _whole(measure, good, bad, known), math.inf
        else:
            truth, memories = _root(measure, good, bad)
            if math.isinf(truth.error) and measure(_lowest(full, by)).excess > 0:  # a stall now and then is too much
                return Truth(capacity=0.0, error=0.0, limiting=truth.limiting)
        if (truth.error <= precision and memories >= _MEMORIES) or requests * runs >= _MOST or truth.capacity == 0.0:
            break
        good = bad = truth.capacity
        more = min(max((truth.error / precision) ** 2, 1.2 * _MEMORIES / memories, 1.5), 4.0)
        if by == "rate":
            requests = int(requests * more)
        else:  # users of equal requests fall in step, each run in its own way for ever: more runs, not longer ones
            runs = int(runs * more)
    if floors and truth.capacity and at(requests, runs, floors)(truth.capacity).excess > 0:
        return Truth(capacity=0.0, error=0.0, limiting=floors[0].text)
    return truth


def _saturation(profile: Profile, workload: Workload) -> float:
    """The rate at which the server is full."""
    users = float(profile.max_num_seqs)
    run = Run(profile, workload, Probe(by="concurrency", load=users, kind="main", max_requests=2_000), 0)
    run.advance(math.inf)
    return 2_000 / run.over_s


def _lowest(full: float, by: Variable) -> float:
    """A load at which requests hardly meet: what does not hold there holds nowhere."""
    return full / 4096 if by == "rate" else 1.0


def _bracket(at: Callable[[float], _Point], full: float, by: Variable) -> tuple[float, float]:
    """A load that holds and one that does not, within 5% or neighbouring integers; 0 or infinity where none is."""
    whole = by == "concurrency"
    least, good, bad = _lowest(full, by), 0.0, math.inf
    load = max(full / 2, least)
    while good == 0.0 or math.isinf(bad):
        load = float(round(load)) if whole else load
        if at(load).excess > 0:
            bad = load
            if load <= least:
                break
            load = max(load / 2, least)
        else:
            good = load
            if load > 16 * full:
                break
            load *= 2
    while good and math.isfinite(bad) and bad - good > (1 if whole else 0.05 * good):
        load = float((good + bad) // 2) if whole else math.sqrt(good * bad)
        good, bad = (good, load) if at(load).excess > 0 else (load, bad)
    return good, bad


def _root(at: Callable[[float], _Point], good: float, bad: float) -> tuple[Truth, float]:
    """The load at which the excess is 0, and how often the runs forgot where they came from.

    It is on a line through a few loads near it, each with runs of its own.

    The line goes over the rate that came, not the one asked for: half of the noise of a run is that it differs.
    """
    centre = math.log(good * bad) / 2
    for _ in range(10):
        points = [at(math.exp(centre + step)) for step in _AROUND]
        loads = [step + float(point.offered.mean()) for step, point in zip(_AROUND, points, strict=True)]
        slope, level = (float(x) for x in np.polyfit(loads, [point.excess for point in points], 1))
        off = -level / slope if slope > 0 else math.copysign(math.inf, -level)
        if abs(off) <= _AROUND[-1]:
            break
        centre += max(min(off, 0.08), -0.08)
    else:
        return Truth(capacity=math.exp(centre), error=math.inf, limiting=points[0].criterion), points[0].memories
    left = [(point.deviations - slope * (point.offered - point.offered.mean())).var(ddof=1) for point in points]
    error = 2 * math.sqrt(sum(left) / len(points[0].offered)) / len(points) / slope
    memories = min(point.memories for point in points)
    return Truth(capacity=math.exp(centre + off), error=error, limiting=points[2].criterion), memories


def _whole(at: Callable[[float], _Point], good: float, bad: float, known: dict[float, _Point]) -> Truth:
    """The largest whole load that holds. Measures what is not in `known`, and leaves there what is clear."""

    def broken(load: float) -> bool:
        if load not in known:
            known[load] = at(load)
        return known[load].excess > 0

    aside = max(1.0, float(round(0.03 * good)))
    low, high = max(good - aside, 1.0), bad + aside
    while low > 0 and broken(low):
        low, high, aside = max(low - aside, 0.0), low, 2 * aside
    while not broken(high):
        low, high, aside = high, high + aside, 2 * aside
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if broken(middle) else (middle, high)
    limiting = known[high].criterion
    unsure = [load for load, point in known.items() if abs(point.excess) < 2 * point.error]
    for load in unsure:
        del known[load]
    if low == 0:
        return Truth(capacity=0.0, error=0.0, limiting=limiting)
    error = max((abs(load - low) + (load <= low) for load in unsure), default=0.0) / low
    return Truth(capacity=low, error=error, limiting=limiting)


def _measured(profile: Profile, workload: Workload, criteria: Sequence[Criterion], probe: Probe, runs: int) -> _Point:
    """The worst criterion at a load, over independent runs."""
    gaps = any("itl" in slas.metric_of(criterion.metric).fields for criterion in criteria)
    stats, offered, memories = np.empty((runs, len(criteria))), np.empty(runs), np.empty(runs)
    for index in range(runs):
        run = Run(profile, workload, probe, seed=index + int(probe.load * 1e6))  # loads share no noise: it averages out
        run.advance(math.inf)
        records = run.records(run.over_s, gaps=gaps)
        window = _window(records)
        stats[index] = [_stat(criterion, records, window) for criterion in criteria]
        memories[index] = _memories(records, window)
        offered[index] = math.log(len(records) / run.over_s / probe.load)
    mean = stats.mean(axis=0)
    excess = np.array([_excess(criterion, float(stat)) for criterion, stat in zip(criteria, mean, strict=True)])
    worst = int(np.argmax(excess))
    share = slas.allowed_share(criteria[worst])
    near = max(float(mean[worst]), criteria[worst].bound if share is None else share)
    scale = near if share is None else near * max(1 - near, 0.1)
    return _Point(
        excess=float(excess[worst]),
        criterion=criteria[worst].text,
        deviations=(stats[:, worst] - mean[worst]) / scale,
        offered=offered,
        memories=float(np.median(memories)),
    )


def _window(records: Records) -> NDArray[np.bool_]:
    """The requests to count: after the start from idle has been forgotten, and early enough to have been decided."""
    times_s, end_s = records.scheduled_s, records.observed_s
    slow_s = float(np.quantile(records.age_s(), 0.99))
    warm_s = min(max(3 * slow_s, 0.1 * end_s), 0.3 * end_s)
    return (times_s >= warm_s) & (times_s <= end_s - min(slow_s, 0.2 * end_s))


def _memories(records: Records, window: NDArray[np.bool_]) -> float:
    """How many times as long as its memory the window is."""
    start_s, end_s = (float(t) for t in records.scheduled_s[window][[0, -1]])
    memory_s = relaxation_s(records, start_s, end_s)
    return (end_s - start_s) / memory_s if memory_s > 0 else math.inf


def _stat(criterion: Criterion, records: Records, window: NDArray[np.bool_]) -> float:
    """The share over the bound, the mean, or the throughput."""
    metric = slas.metric_of(criterion.metric)
    if metric.kind == "throughput":
        units = {"request": np.ones(len(records), np.int32), "output": records.tokens_out}.get(
            metric.field, records.tokens_in + records.tokens_out
        )
        times_s = records.scheduled_s[window]
        return float(units[window & records.ok].sum() / max(times_s[-1] - times_s[0], 1e-9))
    judged = slas.judged(criterion, records)
    weight = np.where(window, judged.weight, 0.0)
    if metric.kind == "mean":
        value, weight = judged.value, np.where(np.isfinite(judged.value), weight, 0.0)
        return float(np.sum(np.where(weight > 0, value, 0.0) * weight) / max(weight.sum(), 1e-12))
    return float(np.sum(np.where(window, judged.over, 0.0)) / max(weight.sum(), 1e-12))


def _excess(criterion: Criterion, stat: float) -> float:
    """How far it is broken: ln(stat / bound), for shares in log-odds. Above 0 when it is."""
    share = slas.allowed_share(criterion)
    if share is not None:
        stat = min(max(stat, share * 1e-3), 1 - (1 - share) * 1e-3)
        return math.log(stat / (1 - stat) / (share / (1 - share)))
    ratio = slas.ratio(criterion, stat)
    return math.log(ratio) if ratio > 0 else -math.inf
