"""From all evidence so far to the next measurement, or the answer.

Everything is worked out anew from the stored trials at each call: a search that was cut off goes on as if it had not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from redline.model import Answer, Goal, Probe, Sla, Trial
from redline.search import curve
from redline.search.belief import Belief
from redline.search.conclude import Finding, answer, worst
from redline.search.evidence import Reading, needed
from redline.search.obstacles import obstacle, over_budget, undecided
from redline.search.scouts import BAD_SCOUT
from redline.search.state import COARSE_SHARE, FIRST_LOAD, SURE, State, deaths, state_of

COARSE, CONFIRM_SHARE = 0.12, 0.75
SEVERAL, LONG_SHARE = 8, 2.0
MAX_CONFIRMS, MAX_HOLDS, MAX_TRIES = 3, 3, 3
ALONE = 0.1  # requests in flight, below which they hardly ever meet: less load would not serve them better
HOPELESS_ERRORS, LOW_ENOUGH = 0.4, 0.25  # so many failures at so few requests/s: there is nothing to search
_HOLDS = "the SLA holds at the highest load allowed"


def next_step(evidence: Sequence[Trial], sla: Sla, goal: Goal) -> Probe | Answer:
    """The next measurement for this SLA, or its answer.

    In order: what ends every search, a list of loads, the range, the ends of the range, and then the belief, until it
    is narrow and rests on a trial at the capacity and one above it.
    """
    return _step(state_of(evidence, sla, goal))


def _step(state: State) -> Probe | Answer:
    narrowed = _narrow(state, state.belief) if state.belief and not state.goal.lists else None
    if isinstance(narrowed, Answer) and _stands(state, narrowed):
        return narrowed
    if found := obstacle(state):
        return found
    if state.goal.curve:
        return curve.step(state, _list)
    if state.goal.loads:
        return _list(state)
    step = _scout(state) or narrowed
    assert step is not None  # there is a belief once the range is known
    if isinstance(step, Answer):
        return step
    if reason := over_budget(state, step):
        return undecided(state, reason)
    return step


def _stands(state: State, found: Answer) -> bool:
    """What was measured since for other SLAs, at loads of their own, takes nothing from a capacity that was found."""
    within = found.high or found.capacity or 0.0
    return found.evidence in ("edge", "floor") and not any(t.probe.load <= within for t in deaths(state))


def next_job(evidence: Sequence[Trial], slas: Sequence[Sla], goal: Goal) -> tuple[Sla, Probe] | list[Answer]:
    """Among the SLAs without an answer the one whose next measurement is cheapest; all answers when there is none."""
    answers: list[Answer] = []
    jobs: list[tuple[float, Sla, Probe]] = []
    for sla in slas:
        state = state_of(evidence, sla, goal)
        step = _step(state)
        if isinstance(step, Answer):
            answers.append(step)
        else:
            jobs.append((state.planned_s(step), sla, step))
    if not jobs:
        return answers
    _, sla, probe = min(jobs, key=lambda job: job[0])
    return curve.watched_for(sla, probe), probe


def answer_now(evidence: Sequence[Trial], sla: Sla, goal: Goal, stop_reason: str) -> Answer:
    """What the stored evidence says without measuring more; `stop_reason` where that is not yet an answer."""
    state = state_of(evidence, sla, goal)
    step = _step(state)
    return step if isinstance(step, Answer) else undecided(state, stop_reason)


# ---- a list of loads -------------------------------------------------------------------------------------------------


def _list(state: State) -> Probe | Answer:
    """Each listed load once, then what they say."""
    done = {r.load for r in state.readings if r.trial.probe.kind == "list"}
    tried = Counter(t.probe.load for t in state.trials if t.probe.kind == "list")
    left = [load for load in state.goal.loads if load not in done and tried[load] < MAX_TRIES]
    if not left:
        return undecided(state, "all listed loads are measured")
    probe = replace(state.probe(left[0], "list"), load=float(left[0]), need=_list_need(state))
    reason = over_budget(state, probe) if state.goal.max_time_s or state.goal.max_requests else None
    if reason is None:
        return probe
    return undecided(state, f"{reason}; not measured: {', '.join(f'{load:g}' for load in left)}")


def _list_need(state: State) -> dict[str, int]:
    """As many requests as a full trial, and a few more than the fewest that can pass the default error rate."""
    return {c.text: max(needed(c), 240) if c.default else needed(c) for c in state.sla.criteria}


# ---- the range -------------------------------------------------------------------------------------------------------


def _scout(state: State) -> Probe | Answer | None:
    """The next first look; None once the range is known."""
    goal, ok, bad = state.goal, state.scouted.ok, state.scouted.bad
    if ok is None and bad is None:
        return state.probe(FIRST_LOAD, "scout")
    if ok is None:
        assert bad is not None  # the case above
        if hopeless := _hopeless_already(state, bad):
            return hopeless
        return state.probe(bad / 4, "scout") if state.fitting(bad) > state.fitting(goal.min_load) else None
    if bad is None and ok < state.fitting(goal.max_load):
        return state.probe(_higher(state, ok), "scout")
    return None


def _higher(state: State, ok: float) -> float:
    """Four times the load when far from every bound, else twice; past the loads at which requests hardly meet."""
    reading, ratio = max(((r, ratio) for r, ratio in state.marks if r.load == ok), key=lambda mark: mark[1])
    load = ok * (4 if ratio < 0.6 else 2)
    if state.goal.by == "rate" and ratio < 0.8 and load * reading.mean_e2e_s < 1:
        load = max(load, 2.5 / reading.mean_e2e_s)
    return load


def _hopeless_already(state: State, bad: float) -> Probe | Answer | None:
    """Lower loads need no look: requests that met no others were too slow, or most requests failed."""
    reading, ratio = next((r, ratio) for r, ratio in state.marks if r.load == bad and ratio > BAD_SCOUT)
    words, share = _server_words(reading)
    lowest = state.fitting(bad) <= state.fitting(state.goal.min_load) or (state.goal.by == "rate" and bad <= LOW_ENOUGH)
    if share > (HOPELESS_ERRORS if lowest else 0.9):
        reason = f"{100 * share:.0f}% of the requests failed at a load of {bad:g}"
        return answer(state, Finding(evidence="none", reason=reason, limiting=_error_text(state), error=words))
    slow = share <= 0 and state.goal.by == "rate" and bad * reading.mean_e2e_s < ALONE
    if slow and not math.isinf(ratio) and sum(t.probe.kind == "scout" for t in state.trials) < MAX_TRIES:
        return state.probe(bad, "scout")  # one slow request of a dozen is a hint: look again
    if slow and reading.role in ("fail", "scout"):
        reason = f"at a load of {bad:g} requests hardly meet, and were over a bound all the same: less will not help"
        return answer(state, Finding(evidence="none", reason=reason, limiting=reading.failed or worst(state, reading)))
    return None


def _server_words(reading: Reading) -> tuple[str, float]:
    """What the server said most often, and the share of requests that failed."""
    outcome = reading.trial.outcome
    records = getattr(outcome, "records", None)
    errors = getattr(getattr(outcome, "client", None), "errors", {})
    most = max(errors, key=lambda text: errors[text]) if errors else ""
    if records is None or not len(records):
        return most, 0.0
    ended = ~records.running
    broken = int(records.broken.sum())
    words = f"{broken} of {int(ended.sum())} requests failed at a load of {reading.load:g}"
    return f"{words}; the server said most often: {most}" if most else words, broken / max(int(ended.sum()), 1)


def _error_text(state: State) -> str | None:
    return next((c.text for c in state.sla.criteria if c.metric == "error_rate"), None)


# ---- the capacity ----------------------------------------------------------------------------------------------------


def _narrow(state: State, belief: Belief) -> Probe | Answer:
    """The ends of the range first; then the belief, until it is narrow, supported at the capacity, broken above."""
    goal = state.goal
    if step := _at_the_ends(state, belief):
        return step
    capacity = state.relied_on(belief)
    if not _narrow_enough(state, belief):
        return _main(state, belief)
    support = _support(state, belief, capacity)
    confirms = sum(1 for t in state.own if t.probe.kind == "confirm" and t.probe.load >= capacity * 0.8)
    if support is None and confirms >= MAX_CONFIRMS:
        support = _fallback(state, belief, capacity)
        if support is None:
            return undecided(
                state, f"no trial near {capacity:.4g} met the SLA, although the loads around it say it should"
            )
        capacity = support.load
    if support is None:
        return state.probe(capacity, "confirm", CONFIRM_SHARE)
    if not any(r.load > capacity for r in state.broken()):
        if capacity >= state.fitting(goal.max_load):
            return _sustained(state, Finding(evidence="floor", reason=_HOLDS, support=support), capacity)
        return state.probe(_step_above(state, belief, capacity), "main", CONFIRM_SHARE)
    found = Finding(evidence="edge", reason="precision reached", capacity=capacity, support=support)
    return _sustained(state, found, capacity)


def _narrow_enough(state: State, belief: Belief) -> bool:
    if belief.half <= state.goal.precision:
        return True
    a, b = belief.quantile(0.1), belief.quantile(0.9)
    return state.goal.by == "concurrency" and math.floor(b) - math.floor(a) <= 1


def _main(state: State, belief: Belief) -> Probe:
    if belief.half > COARSE:
        return state.probe(belief.quantile(0.5), "main", COARSE_SHARE)
    turn = len(state.own) % 3
    # A search that goes on and on has much to tell apart: then longer trials, for each one's start is lost.
    share = 1.0 if len(state.own) < SEVERAL else LONG_SHARE
    return state.probe(belief.quantile((0.5, 0.3, 0.7)[turn]), "main", share)


def _support(state: State, belief: Belief, capacity: float) -> Reading | None:
    """The trial that met the SLA at the capacity or a little above, the one with most requests."""
    top = max(belief.quantile(0.5), capacity)
    near = [r for r in state.supported() if 0.995 * capacity <= r.load <= top]
    return max(near, key=lambda r: r.sent, default=None)


def _fallback(state: State, belief: Belief, capacity: float) -> Reading | None:
    """A supported load a little below: less than we could say, but nothing that was not seen."""
    low = min(0.97 * belief.quantile(0.05), (1 - state.goal.precision) * capacity)
    return max((r for r in state.supported() if low <= r.load <= capacity), key=lambda r: r.load, default=None)


def _step_above(state: State, belief: Belief, capacity: float) -> float:
    above = belief.quantile(0.9) * 1.03
    return max(above, capacity + 1) if state.goal.by == "concurrency" else max(above, capacity * 1.03)


def _at_the_ends(state: State, belief: Belief) -> Probe | Answer | None:
    """Does the SLA hold at the highest load allowed, or not even at the lowest?"""
    low, high = state.fitting(state.goal.min_load), state.fitting(state.goal.max_load)
    broken, supported = state.broken(), state.supported()
    at_high = [r for r in supported if r.load >= high]
    if at_high and (belief.above(high) >= SURE or not broken):
        return _sustained(state, Finding(evidence="floor", reason=_HOLDS, support=at_high[-1]), high)
    unbroken = state.scouted.bad is None and not any(r.load >= high for r in state.readings if r.role != "scout")
    if unbroken:
        return state.probe(high, "main", CONFIRM_SHARE)
    at_low = [r for r in broken if r.load <= low]
    if at_low and belief.above(low) <= 1 - SURE:
        return answer(state, Finding(evidence="none", reason="the SLA does not hold at the lowest load allowed"))
    if belief.quantile(0.5) <= low and not at_low:
        return state.probe(low, "main", CONFIRM_SHARE)
    return None


def _sustained(state: State, found: Finding, capacity: float) -> Probe | Answer:
    """The answer, once the load was held for as long as was asked for, at the capacity or a little below it."""
    if not state.goal.sustain_s:
        return answer(state, found)
    holds = [r for r in state.readings if r.trial.probe.kind == "hold"]
    lowest = (1 - state.goal.precision) * capacity
    held = [r for r in holds if r.load >= lowest and r.supports(state.limits)]
    if best := max(held, key=lambda r: r.load, default=None):
        relied = min(capacity, best.load) if found.evidence == "edge" else None
        return answer(state, replace(found, capacity=relied, support=best))
    if len(holds) >= MAX_HOLDS:
        return undecided(state, f"the SLA did not hold for {state.goal.sustain_s:g} s at any capacity found")
    probe = state.probe(capacity, "hold")
    if state.left_s < state.planned_s(probe):
        return answer(state, replace(found, reason=f"{found.reason}; too little time was left to sustain the load"))
    return probe
