"""Where one search stands: everything that its next decision rests on, worked out from the stored trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from redline.model import Criterion, Failed, Goal, Measured, Probe, ProbeKind, Sla, Trial
from redline.search.belief import Belief, Range, believe
from redline.search.evidence import MIN_JUDGED, Reading, asked, for_another, least, needed, readings
from redline.search.scouts import BAD_SCOUT, scout_ratio
from redline.sla import metric_of
from redline.stats import WARM_UP
from redline.verdict import usable
from redline.verdict.watch import MIN_REQUESTS, MIN_WINDOW_S, SCOUT_REQUESTS

FIRST_LOAD = 1.0
COARSE_SHARE = 0.35  # of the requests of a trial, while the belief is wide
OTHERS_SHARE = 0.5  # of what this SLA needs, in another's trial at the capacity
WORTH, MOST_LONGER = 2.0, 4  # times the overhead; but at most so many times the requests
PASSED, BROKEN = 0.9, 1.1  # of its bound: what another SLA's full trial must show to stand for a scout of this one
SCOUT_MAX_S, MIN_MAX_S = 600.0, 60.0
SURE = 0.8  # how probable it must be that a load meets the SLA, to be relied on
NEARLY = 0.1  # of a request in flight: a whole load that is so little above counts as reached
MANY_LIMITED = 3  # more unusable trials than that, and more than a third of all, are no accident


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """One SLA's view of all evidence of its case and variable."""

    sla: Sla
    goal: Goal
    trials: tuple[Trial, ...]
    readings: tuple[Reading, ...]
    limits: tuple[Criterion, ...]  # the criteria that limit the load from above: all but throughputs
    marks: tuple[tuple[Reading, float], ...]  # scouts, and what stands for one, with their worst ratio to a bound
    scouted: Range
    belief: Belief | None  # None: the range is not known yet

    # -- the past --

    @property
    def own(self) -> list[Trial]:
        """The trials after scouting that this very SLA asked for."""
        return [t for t in self.trials if t.probe.kind != "scout" and asked(t, self.sla)]

    @property
    def used_s(self) -> float:
        return sum(t.outcome.duration_s for t in self.trials)

    @property
    def left_s(self) -> float:
        return math.inf if self.goal.max_time_s is None else self.goal.max_time_s - self.used_s

    def supported(self) -> list[Reading]:
        """Full trials that met the SLA; of those that another SLA asked for, none that is far too short."""
        met = [r for r in self.readings if r.supports(self.limits)]
        return [r for r in met if not for_another(r.trial, self.sla) or r.judges(self.limits, OTHERS_SHARE)]

    def broken(self) -> list[Reading]:
        return [r for r in self.readings if r.breaks(self.limits)]

    def nearest(self, load: float) -> Reading | None:
        """The trial at the load most like this one."""
        return min(self.readings, key=lambda r: abs(math.log(r.load / load)), default=None)

    # -- the future --

    def probe(self, load: float, kind: ProbeKind, share: float = 1.0) -> Probe:
        """One measurement at this load, in the range that is allowed, with its limits."""
        load = self.fitting(load)
        near = self.nearest(load)
        need = self.need(kind, share, load)
        max_s = self.max_s(load, kind, need)
        return Probe(
            by=self.goal.by,
            load=load,
            kind=kind,
            need=need,
            spread_s=min(near.p90_e2e_s, 60.0) if near else 1.0,
            max_s=min(max_s, self.left_s) if kind != "hold" else max_s,
            max_requests=None if kind == "scout" else self.requests_left(),
            asked_by=self.sla.name,
        )

    def relied_on(self, belief: Belief) -> float:
        """The load to rely on: the belief gives it 80%."""
        load = belief.quantile(1 - SURE)
        return self.fitting(math.floor(load + NEARLY) if self.goal.by == "concurrency" else load)

    def fitting(self, load: float) -> float:
        """The nearest load that can be asked for: in range, and whole or with four digits."""
        return fitting(load, self.goal)

    def need(self, kind: ProbeKind, share: float, load: float) -> dict[str, int]:
        if kind == "hold":
            return {c.text: 0 for c in self.sla.criteria}
        if kind == "scout":
            n = SCOUT_REQUESTS if self.goal.by == "rate" else int(load) + max(SCOUT_REQUESTS, int(load))
            return {c.text: n for c in self.sla.criteria}
        n = round(min(self._worth_its_overhead(load, share), MOST_LONGER * max(map(needed, self.sla.criteria))))
        return {c.text: max(needed(c, share), n) if _latency(c) else needed(c, share) for c in self.sla.criteria}

    def _worth_its_overhead(self, load: float, share: float) -> float:
        """Requests such that a fine trial judges for longer than it warms up and waits for the last to end."""
        near = self.nearest(load)
        if share < 0.5 or near is None:
            return 0.0
        return WORTH * self._per_s(load, near) * (WARM_UP * near.p90_e2e_s + self._lag_s(near.p90_e2e_s))

    def planned_s(self, probe: Probe) -> float:
        """About how long it will take, should nothing end it early."""
        near = self.nearest(probe.load)
        e2e_s, p90_s = (near.mean_e2e_s, near.p90_e2e_s) if near else (1.0, 1.0)
        per_s = self._per_s(probe.load, near)
        if probe.kind == "hold":
            return probe.max_s
        requests = max((self._requests(text, n) for text, n in probe.need.items()), default=0)
        if probe.kind == "scout":
            return max(1.0, requests / per_s + e2e_s)
        return 2 * p90_s + max(MIN_WINDOW_S, 4 * p90_s, requests / per_s) + self._lag_s(p90_s)

    def max_s(self, load: float, kind: ProbeKind, need: dict[str, int]) -> float:
        """Far more than it should take: a trial must end, whatever the server does."""
        if kind == "hold":  # as long as was asked for, and long enough to be judged
            near = self.nearest(load)
            p90_s, per_s = near.p90_e2e_s if near else 1.0, self._per_s(load, near)
            least_s = 1.5 * WARM_UP * p90_s + least_requests(self.sla) / per_s + self._lag_s(p90_s)
            return max(self.goal.sustain_s or 0.0, least_s) + 1.0
        draft = Probe(by=self.goal.by, load=load, kind=kind, need=need)
        planned_s = self.planned_s(draft)
        return max(SCOUT_MAX_S, 8 * planned_s) if kind == "scout" else max(MIN_MAX_S, 8 * planned_s)

    def _per_s(self, load: float, near: Reading | None) -> float:
        """Requests/s: of users, what they send between their answers and their pauses."""
        if self.goal.by == "rate":
            return load
        return load / max(near.mean_e2e_s / near.busy, 1e-6) if near else load

    def requests_left(self) -> int | None:
        if self.goal.max_requests is None:
            return None
        return max(0, self.goal.max_requests - sum(requests(t) for t in self.trials if t.probe.kind != "scout"))

    def _requests(self, text: str, n: int) -> int:
        criterion = next((c for c in self.sla.criteria if c.text == text), None)
        return min(n, MIN_REQUESTS) if criterion and metric_of(criterion.metric).field == "itl" else n

    def _lag_s(self, p90_s: float) -> float:
        bounds = [c.bound / 1e3 for c in self.sla.criteria if metric_of(c.metric).field in ("ttft", "e2el")]
        return max([1.3 * p90_s, *bounds])


def _latency(criterion: Criterion) -> bool:
    metric = metric_of(criterion.metric)
    return metric.field != "itl" and metric.kind in ("quantile", "mean", "attainment")


def requests(trial: Trial) -> int:
    """How many requests a trial sent."""
    outcome = trial.outcome
    if not isinstance(outcome, Measured):
        return 0
    if outcome.records is not None:
        return len(outcome.records)
    return int(sum(run.get("completed", 0) + run.get("failed", 0) for run in outcome.aggregates))


def fitting(load: float, goal: Goal) -> float:
    """The nearest load that can be asked for: in range, and whole or with four digits, or an end of the range."""
    low, high = goal.min_load, goal.max_load
    if goal.by == "concurrency":
        return float(min(max(round(load), math.ceil(low)), math.floor(high)))
    return min(max(float(f"{load:.4g}"), low), high) if low < load < high else min(max(load, low), high)


def state_of(evidence: Sequence[Trial], sla: Sla, goal: Goal) -> State:
    trials = tuple(t for t in evidence if t.probe.by == goal.by)
    seen = tuple(readings(trials, sla))
    limits = tuple(c for c in sla.criteria if metric_of(c.metric).kind != "throughput")
    marks = _marks(seen, sla, limits)
    good = [r.load for r, ratio in marks if ratio <= BAD_SCOUT]
    # A first look that was just bad is overruled by a good one, or a supporting trial, at no less load.
    fine = max([*good, *(r.load for r in seen if r.supports(limits))], default=0.0)
    bad = [r.load for r, ratio in marks if ratio > BAD_SCOUT and (math.isinf(ratio) or r.load > fine)]
    scouted = Range(ok=max(good, default=None), bad=min(bad, default=None))
    known = scouted.ok is not None and (scouted.bad is not None or scouted.ok >= fitting(goal.max_load, goal))
    known = known or (scouted.bad is not None and scouted.bad <= fitting(goal.min_load, goal))
    return State(
        sla=sla,
        goal=goal,
        trials=trials,
        readings=seen,
        limits=limits,
        marks=marks,
        scouted=scouted,
        belief=believe(seen, sla, scouted, goal) if known else None,
    )


def _marks(seen: Sequence[Reading], sla: Sla, limits: Sequence[Criterion]) -> tuple[tuple[Reading, float], ...]:
    """Scouts of whichever SLA, seen by this one, and other SLAs' full trials that speak as clearly as a scout."""
    marks = []
    for reading in seen:
        if reading.role == "silent" or _cut_short(reading):
            continue
        if reading.scouting or reading.role == "scout":
            marks.append((reading, scout_ratio(reading, sla)))
        elif asked(reading.trial, sla):
            continue  # scouts set the range: our own trials near the limit are too noisy to narrow it
        elif reading.role == "full":
            if all(reading.tallies[c.text].n >= MIN_JUDGED for c in limits):
                tallies = [reading.tallies[c.text] for c in limits]
                worst = max((t.ratio for t in tallies if not t.criterion.default or t.k), default=0.0)
                if worst <= PASSED and reading.supports(limits):
                    marks.append((reading, worst))
                elif worst > BROKEN:
                    marks.append((reading, math.inf))
        elif reading.breaks(limits) and max((t.ratio for t in reading.tallies.values()), default=math.inf) > BROKEN:
            marks.append((reading, math.inf))
    return tuple(marks)


def _cut_short(reading: Reading) -> bool:
    """A first look that the time budget ended before it saw anything."""
    outcome = reading.trial.outcome
    assert isinstance(outcome, Measured)  # or it were no reading
    return reading.scouting and outcome.stop.reason == "budget" and outcome.duration_s < SCOUT_MAX_S


def deaths(state: State) -> list[Trial]:
    """Trials in which the server died."""
    return [t for t in state.trials if isinstance(t.outcome, Failed) and t.outcome.server_died]


def breakdowns(state: State) -> list[Failed]:
    """What broke, otherwise than by the server's death, since the last trial that worked."""
    broken: list[Failed] = []
    for trial in state.trials:
        if isinstance(trial.outcome, Failed) and not trial.outcome.server_died:
            broken.append(trial.outcome)
        elif isinstance(trial.outcome, Measured):
            broken = []
    return broken


def client_limits(state: State) -> list[str]:
    """Why trials were of no use to this SLA by the client's fault: those in a row, or all when they are many.

    On a shared machine one trial or another is disturbed. Two in a row, or a third of them all, are no accident.
    """
    reasons: list[str] = []
    row = judged = 0
    for trial in state.trials:
        if isinstance(trial.outcome, Failed):
            continue
        judged += 1
        good, why = usable(trial, state.sla)
        row = 0 if good else row + 1
        reasons += [] if good else [why]
    many = len(reasons) > MANY_LIMITED and len(reasons) * 3 > judged
    return reasons if many else reasons[len(reasons) - row :]


def least_requests(sla: Sla) -> int:
    """How many requests a trial needs to support this SLA."""
    counts = [least(c) for c in sla.criteria if metric_of(c.metric).field != "itl"]
    return math.ceil(max([MIN_REQUESTS, *counts]))
