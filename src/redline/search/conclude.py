"""An answer in numbers and words, from where a search stands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from redline.model import Answer, Criterion, EvidenceClass, Measured, Sla, Verdict
from redline.search.doubts import doubts
from redline.search.evidence import Reading
from redline.search.state import State, requests
from redline.sla import metric_of, ratio
from redline.verdict import judge, summary

LENGTH_TOLERANCE = 0.05
LEAST_PRECISION = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a search came to."""

    evidence: EvidenceClass
    reason: str
    capacity: float | None = None
    support: Reading | None = None  # the trial at the capacity; None: the best one there is
    below: float = math.inf  # only trials below this load count
    limiting: str | None = None
    error: str | None = None
    high: float | None = None


def answer(state: State, finding: Finding) -> Answer:
    """The answer that this finding is; a throughput that is missed at the capacity turns it into `none`."""
    found = _bounded(state, finding)
    support = finding.support or _best_support(state, found, finding)
    settled = found.evidence in ("edge", "floor")
    missed = [c for c in _throughputs(state) if settled and support and _misses(c, support, state)]
    if missed and support:
        return _missed(state, found, missed[0], support)
    capacity = found.capacity
    if not settled and found.evidence != "none":
        capacity = _as_relied_on(state, support) if support else None
    shown = support if capacity is not None else None
    limiting = found.limiting or _binding(state, found.evidence)
    return Answer(
        sla=state.sla.name,
        criteria=state.sla.criteria,
        variable=state.goal.by,
        evidence=found.evidence,
        capacity=capacity,
        estimate=found.estimate,
        low=found.low if found.evidence != "client_limited" else capacity,
        high=finding.high if finding.high is not None else found.high,
        confidence=state.goal.confidence,
        quality="aggregates" if any(r.runs for r in state.readings) else "records",
        limiting=limiting,
        headroom=_headroom(state, shown, limiting),
        verdict_at_capacity=_verdict(state, shown),
        at_capacity=_metrics(state, shown),
        feasible_from=_feasible_from(state) if settled else None,
        trials=len(state.trials),
        requests=sum(requests(t) for t in state.trials),
        benchmark_s=state.used_s,
        stop_reason=finding.reason,
        warnings=(*_warnings(state), *doubts(state.trials, support.load if support else found.estimate)),
        error=finding.error,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bounded:
    evidence: EvidenceClass
    limiting: str | None
    capacity: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None


def _bounded(state: State, finding: Finding) -> _Bounded:
    """The numbers that each class of evidence has."""
    evidence, limiting, goal = finding.evidence, finding.limiting, state.goal
    if evidence == "none":
        return _Bounded(evidence=evidence, limiting=limiting, low=0.0, high=goal.min_load)
    if evidence == "floor":
        top = state.fitting(goal.max_load)
        return _Bounded(evidence=evidence, limiting=limiting, capacity=top, low=top)
    if evidence == "client_limited":
        return _Bounded(evidence=evidence, limiting=limiting)
    low, estimate, high = _interval(state)
    if evidence == "crashed":
        low = min(low, finding.below) if low is not None else None
        return _Bounded(evidence=evidence, limiting=limiting, low=low, high=finding.below)
    if low is not None and finding.capacity is not None:  # an interval of little confidence is narrow
        low = min(low, finding.capacity)
    return _Bounded(
        evidence=evidence, limiting=limiting, capacity=finding.capacity, estimate=estimate, low=low, high=high
    )


def _interval(state: State) -> tuple[float | None, float | None, float | None]:
    """Low, estimate and high at the confidence asked for; whole numbers where the load is one."""
    belief, goal = state.belief, state.goal
    if belief is None:  # first looks set a range to search, and bound nothing
        return None, None, None
    outside = (1 - goal.confidence) / 2
    low, estimate, high = (belief.quantile(p) for p in (outside, 0.5, 1 - outside))
    if goal.by == "rate":
        return low, estimate, high
    lowest = math.ceil(goal.min_load)
    return tuple(float(max(lowest, math.floor(load))) for load in (low, estimate, high))  # type: ignore[return-value]  # three in, three out


def _best_support(state: State, found: _Bounded, finding: Finding) -> Reading | None:
    """The highest load that met the SLA in a full trial and that the belief does not think too high."""
    top = math.inf
    if state.belief is not None and found.evidence in ("undecided", "crashed"):
        top = max(state.belief.quantile(0.5), state.goal.min_load)
    fine = [r for r in state.supported() if r.supports(state.sla.criteria)]  # throughputs too
    met = [r for r in fine if r.load <= top and r.load < finding.below]
    return max(met, key=lambda r: (r.load, r.sent), default=None)


def _as_relied_on(state: State, support: Reading) -> float:
    """The load of a trial that met the SLA, or less where the belief says so; listed loads are left as they are."""
    if state.belief is None or state.goal.lists:
        return support.load
    return min(support.load, state.relied_on(state.belief))


def _throughputs(state: State) -> list[Criterion]:
    return [c for c in state.sla.criteria if metric_of(c.metric).kind == "throughput"]


def _misses(criterion: Criterion, support: Reading, state: State) -> bool:
    """Is the throughput out of reach at the capacity, beyond what its own noise may do?"""
    if support.tallies[criterion.text].met:
        return False
    alone = Sla(name="", criteria=(criterion,))
    return bool(support.runs) or judge(support.trial, alone, state.goal.confidence).verdict == "fail"


def _missed(state: State, found: _Bounded, criterion: Criterion, support: Reading) -> Answer:
    stat = support.tallies[criterion.text].stat
    reason = (
        f"no load meets the SLA: at {found.capacity:.4g}, the highest load that keeps the other criteria, "
        f"{criterion.metric} is {stat:.4g}, short of {criterion.bound:g}"
    )
    return answer(state, Finding(evidence="none", reason=reason, limiting=criterion.text, high=found.high))


def _binding(state: State, evidence: EvidenceClass) -> str | None:
    """The criterion whose own capacity is the smallest."""
    if state.belief is None or evidence in ("floor", "client_limited") or not state.belief.medians:
        return None
    medians = state.belief.medians
    return min(medians, key=lambda text: medians[text])


def _headroom(state: State, support: Reading | None, limiting: str | None) -> dict[str, float]:
    if support is None:
        return {}
    others = [c for c in state.sla.criteria if c.text != limiting and not c.default]
    pairs = {c.text: support.tallies[c.text].ratio for c in others}
    return {text: 1 / found for text, found in pairs.items() if 0 < found < math.inf}


def _verdict(state: State, support: Reading | None) -> Verdict:
    """The exact verdict at the capacity, from the sustained trial where there is one."""
    if support is None:
        return "undecided"
    holds = [r for r in state.readings if r.trial.probe.kind == "hold" and r.load >= 0.995 * support.load]
    return judge((holds[-1] if holds else support).trial, state.sla, state.goal.confidence).verdict


def _metrics(state: State, support: Reading | None) -> dict[str, float]:
    if support is None or not isinstance(support.trial.outcome, Measured):
        return {}
    own = {c.metric: support.tallies[c.text].stat for c in state.sla.criteria}
    return {**summary(support.trial.outcome), **own}


def _feasible_from(state: State) -> float | None:
    """The load from which on every throughput is reached."""
    ends = []
    for criterion in _throughputs(state):
        told = {r.load: r.tallies[criterion.text] for r in state.readings if criterion.text in r.tallies}
        points = sorted((load, t.stat) for load, t in told.items() if t.stat > 0)
        if points:
            ends.append(_reaches(points, criterion.bound))
    return float(f"{max(ends):.4g}") if ends else None


def _reaches(points: list[tuple[float, float]], bound: float) -> float:
    """Where the throughput reaches its bound: in proportion below the first point, else between two of them."""
    before = (0.0, 0.0)
    for load, stat in points:
        if stat >= bound:
            rise = (bound - before[1]) / (stat - before[1]) if stat > before[1] else 1.0
            return before[0] + rise * (load - before[0])
        before = (load, stat)
    return before[0] * bound / before[1]


def _warnings(state: State) -> tuple[str, ...]:
    found: list[str] = []
    if state.goal.precision < LEAST_PRECISION and not state.goal.lists:
        found.append(
            f"a precision of {100 * state.goal.precision:g}% is finer than a server repeats itself: "
            "the interval may be too narrow"
        )
    asked, got, by_events = 0, 0, False
    for reading in state.readings:
        outcome = reading.trial.outcome
        if not isinstance(outcome, Measured) or outcome.records is None:
            continue
        ok = outcome.records.ok
        asked += int(np.sum(outcome.records.tokens_asked[ok], dtype=np.int64))
        got += int(np.sum(outcome.records.tokens_out[ok], dtype=np.int64))
        by_events |= not outcome.client.tokens_from_usage
    if asked and abs(got / asked - 1) > LENGTH_TOLERANCE:
        word = "shorter" if got < asked else "longer"
        found.append(f"outputs were {100 * abs(got / asked - 1):.0f}% {word} than the workload asks for")
    if by_events:
        found.append("the server reports no usage: tokens were counted as one for each event")
    found += [warning for trial in state.trials for warning in trial.warnings]
    return tuple(dict.fromkeys(found))


def worst(state: State, reading: Reading) -> str | None:
    """The criterion furthest on the wrong side in this trial."""
    told = [(ratio(c, reading.tallies[c.text].stat), c.text) for c in state.limits if c.text in reading.tallies]
    told = [pair for pair in told if not math.isnan(pair[0])]
    return max(told)[1] if told else None
