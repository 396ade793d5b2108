"""A list of loads that is found by looking: from a light load up to where the server gives no more.

Short looks, which no SLA judges, find the load that fills the server. From there down go the loads of the list, each
so many times the one before; it ends at the first load that turns out to be too much, or goes on beyond the last one.
All is worked out from the stored trials: what was measured leads to the same list again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from redline.model import Answer, Failed, Goal, Measured, Probe, Sla, Trial
from redline.search.obstacles import over_budget, undecided
from redline.search.state import FIRST_LOAD, State, fitting
from redline.verdict import summary, usable
from redline.verdict.tally import steady_window

LOOK = "--loads auto"  # who asks for the looks
LOOK_REQUESTS = 60  # of a benchmark command; the built-in generator looks until it is steady
FAR, NEAR = 4.0, 2.0  # times the load: from look to look, and how near two of them must be at last
DEPTH = 16.0  # the lightest load is the one that fills the server, over this
STEP, CLOSE = 1.5, 1.2  # times the load, from one to the next of the list; and what is no step
MOST_LOADS, MOST_LOOKS = 12, 30
KEEPS_UP = 0.9  # of the rate must be answered
GROWS = 0.25  # x times as many in flight must bring x to this power times as much
_NO_SLA = Sla(name="", criteria=())  # by which only the client is judged
BROKEN, FEW = 0.5, 10  # so many of no fewer requests failed: the server gives up


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What one trial says of its load, whatever the SLA."""

    load: float
    throughput: float = 0.0  # requests/s that were answered
    window_s: float = 1.0  # over which they were counted
    full: bool = False  # beyond doubt: the queue grew, requests failed, or the server died


def next_look(looks: Sequence[Point], goal: Goal) -> float | None:
    """The load to look at next; None once it is known where the server is full, or that no load allowed fills it.

    In order: up until it is full, down until it is not, then between the two until they are near.
    """
    well, full = _between(looks, goal)
    if well is None and full is None:
        return fitting(FIRST_LOAD, goal)
    if full is None:
        assert well is not None  # the case above
        return fitting(well * FAR, goal) if well < fitting(goal.max_load, goal) else None
    if well is None:
        return fitting(full / FAR, goal) if full > fitting(goal.min_load, goal) else None
    middle = fitting(math.sqrt(well * full), goal)
    return middle if full > NEAR * well and well < middle < full else None


def list_of(looks: Sequence[Point], measured: Sequence[Point], goal: Goal) -> tuple[float, ...]:
    """The loads of the list as far as it is known, ascending; those `measured` say where it ends."""
    well, full = _between(looks, goal)
    top = full or well
    if top is None:
        return ()
    steps = math.ceil(math.log(DEPTH) / math.log(STEP))
    ladder: list[float] = []
    for load in (fitting(top * STEP**k, goal) for k in range(-steps, MOST_LOADS - steps)):
        apart = not ladder or load >= CLOSE * ladder[-1]  # the ends of the range may come close to the next load
        if apart or (load > ladder[-1] and load in (top, fitting(goal.max_load, goal))):
            ladder.append(load)
    known = {point.load: point for point in measured}
    loads: list[float] = []
    for load in ladder:
        before = [known[lower] for lower in loads if lower in known]
        loads.append(load)
        if load not in known and load >= top:
            break
        if load in known and _too_much(known[load], before[-1:], goal):
            break
    return tuple(loads)


def _between(looks: Sequence[Point], goal: Goal) -> tuple[float | None, float | None]:
    """The highest load that was well, and the lowest one, above it, that filled the server."""
    well: Point | None = None
    for point in sorted(looks, key=lambda point: point.load):
        if _too_much(point, [well] if well else [], goal):
            return (well.load if well else None), point.load
        well = point
    return (well.load if well else None), None


def _too_much(point: Point, before: Sequence[Point], goal: Goal) -> bool:
    """Does the server give no more than at less load, or not what is offered, beyond what chance does?"""
    if point.full:
        return True
    if goal.by == "rate":
        offered = point.load * point.window_s
        return point.throughput * point.window_s < KEEPS_UP * offered - 2 * math.sqrt(offered)
    return any(point.throughput < (point.load / less.load) ** GROWS * less.throughput for less in before)


# ---- in the search ---------------------------------------------------------------------------------------------------


def step(state: State, measure_list: Callable[[State], Probe | Answer]) -> Probe | Answer:
    """The next look, or what `measure_list` makes of the list that was found."""
    looks = _points(state.trials, "main")
    load = next_look(looks, state.goal)
    if load is None:
        loads = listed_loads(state.trials, state.goal)
        return measure_list(replace(state, goal=replace(state.goal, loads=loads)))
    if sum(map(is_look, state.trials)) >= MOST_LOOKS:
        return undecided(state, f"{MOST_LOOKS} looks found no load that fills the server")
    bare = replace(state, sla=Sla(name=state.sla.name, criteria=()))  # whose bounds no look waits for
    need = {c.text: LOOK_REQUESTS for c in state.sla.criteria}
    probe = state.probe(load, "main")
    probe = replace(probe, need=need, max_s=min(bare.max_s(load, "main", need), state.left_s), asked_by=LOOK)
    reason = over_budget(bare, probe) if state.goal.max_time_s or state.goal.max_requests else None
    return probe if reason is None else undecided(state, reason)


def listed_loads(trials: Sequence[Trial], goal: Goal) -> tuple[float, ...]:
    """The loads of the list, given or found; none while they are still looked for."""
    if not goal.curve:
        return goal.loads
    looks = _points(trials, "main")
    return () if next_look(looks, goal) is not None else list_of(looks, _points(trials, "list"), goal)


def is_look(trial: Trial) -> bool:
    """Was it made to find the loads of a list, and is none of them?"""
    return trial.probe.asked_by == LOOK


def watched_for(sla: Sla, probe: Probe) -> Sla:
    """By what the trial is judged while it runs: a look by no SLA, since one that is broken fills no server."""
    return Sla(name=sla.name, criteria=()) if probe.asked_by == LOOK else sla


def _points(trials: Sequence[Trial], kind: str) -> list[Point]:
    """Of the looks, or of the loads listed; the last one at each load counts."""
    chosen = [t for t in trials if t.probe.kind == kind and is_look(t) == (kind == "main")]
    return list({t.probe.load: point for t in chosen if (point := _point(t)) is not None}.values())


def _point(trial: Trial) -> Point | None:
    """None where the trial says nothing of the server."""
    outcome, load = trial.outcome, trial.probe.load
    if isinstance(outcome, Failed) and outcome.server_died:
        return Point(load=load, full=True)
    if not isinstance(outcome, Measured) or not usable(trial, _NO_SLA)[0]:
        return None
    records, window = outcome.records, steady_window(outcome)
    seen = summary(outcome)
    throughput, window_s = seen.get("request_throughput", 0.0), window.length_s if window else outcome.stop.at_s
    if records is None and trial.probe.by == "rate":  # a command's total counts the time in which the last ones ended
        sending_s = max(window_s - seen.get("mean_e2el_ms", 0.0) / 1e3, 0.1 * window_s)
        throughput, window_s = throughput * window_s / sending_s, sending_s
    broken = False
    if records is not None:
        ended = int(np.count_nonzero(~records.running))
        broken = ended >= FEW and int(np.count_nonzero(records.broken)) > BROKEN * ended
    return Point(
        load=load,
        throughput=throughput,
        window_s=window_s,
        full=broken or outcome.stop.reason == "over",
    )
