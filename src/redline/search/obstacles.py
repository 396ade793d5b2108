"""What ends a search before its answer: a server or command that breaks, a client that gave out, a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

from redline.model import Answer, Goal, Probe, Sla, Trial
from redline.search.conclude import Finding, answer
from redline.search.evidence import Reading, asked, needed
from redline.search.state import COARSE_SHARE, State, breakdowns, client_limits, deaths, requests, state_of
from redline.sla import metric_of

MAX_SCOUTS = 30
BUDGET_REQUESTS, BUDGET_S = 25_000, 120.0
_REPORT = "make it report that (for vLLM, --metric-percentiles)"
_COUNT_FAILURES = "make it count the requests that failed (for sglang, --output-details), or leave error_rate out"


def undecided(state: State, reason: str) -> Answer:
    """No answer yet, and why."""
    return answer(state, Finding(evidence="undecided", reason=reason))


def obstacle(state: State) -> Answer | None:
    """The answer that what went wrong is, if anything did."""
    died = deaths(state)
    if len(died) >= 2:
        load = min(t.probe.load for t in died)
        reason = f"the server exited twice, at loads of {load:g} and more"
        outcome = died[-1].outcome
        error = f"{getattr(outcome, 'reason', '')}\n{getattr(outcome, 'log_tail', '')}".strip()
        return answer(
            state, Finding(evidence="crashed", reason=reason, below=load, limiting="server exited", error=error)
        )
    if len(broken := breakdowns(state)) >= 2:
        tail = f"\n{broken[-1].log_tail}" if broken[-1].log_tail else ""
        reason = "the measurement broke twice in a row"
        return answer(state, Finding(evidence="undecided", reason=reason, error=broken[-1].reason + tail))
    if len(limits := client_limits(state)) >= 2:
        reason = f"the client gave out before the server: {limits[-1]}"
        return answer(state, Finding(evidence="client_limited", reason=reason))
    return _unjudgeable(state)


def _unjudgeable(state: State) -> Answer | None:
    """A metric that the measurements do not have, however long they last."""
    for criterion in state.sla.criteria:
        field = metric_of(criterion.metric).field
        told = [r.tallies[criterion.text] for r in state.readings if criterion.text in r.tallies and not _all_broken(r)]
        if not told or any(t.n > 0 for t in told):
            continue
        totals = any(r.runs for r in state.readings)
        if totals:
            how = _COUNT_FAILURES if criterion.metric == "error_rate" else _REPORT
            cure = f"the command reported no {criterion.metric}: {how}"
        elif field in ("itl", "tpot") and any(r.role == "full" or r.scouting for r in state.readings):
            cure = f"no request had the tokens that {criterion.metric} needs: ask for outputs of several tokens"
        else:
            continue
        reason = f"{criterion.metric} could not be measured"
        return answer(state, Finding(evidence="undecided", reason=reason, error=cure))
    return None


def _all_broken(reading: Reading) -> bool:
    records = getattr(reading.trial.outcome, "records", None)
    return records is not None and bool(records.broken.any()) and not records.ok.any()


def over_budget(state: State, probe: Probe) -> str | None:
    """Why this measurement is more than we may spend; None while it is not."""
    goal = state.goal
    scouting = probe.kind == "scout"
    if state.left_s <= 0:
        return f"the time budget of {goal.max_time_s:g} s was used up"
    if not scouting and state.left_s < (planned_s := state.planned_s(probe)) / 2:
        budget = f"the time budget of {goal.max_time_s:g} s leaves {state.left_s:.0f} s"
        return f"{budget}, and a load of {probe.load:g} needs about {planned_s:.0f} s"
    if scouting:
        scouts = sum(1 for t in state.trials if t.probe.kind == "scout" and asked(t, state.sla))
        return f"{MAX_SCOUTS} first looks found no range" if scouts >= MAX_SCOUTS else None
    need = max(probe.need.values(), default=1)
    if (left := state.requests_left()) is not None and left < max(1, need // 2):
        budget = f"the budget of {goal.max_requests} request{'s' * (goal.max_requests != 1)}"
        return (
            f"{budget} leaves {left}, and a load of {probe.load:g} needs about {need}"
            if left
            else f"{budget} was used up"
        )
    own = state.own
    if len(own) >= goal.max_trials:
        budget = f"the budget of {goal.max_trials} trial{'s' * (goal.max_trials != 1)} was used up"
        return f"{budget} (first looks not counted){_how_far(state)}"
    if goal.max_requests is None:
        most = max(BUDGET_REQUESTS, 10 * max((needed(c) for c in state.sla.criteria), default=0))
        spent_s = sum(t.outcome.duration_s for t in own)
        if sum(requests(t) for t in own) > most and spent_s > BUDGET_S:
            return f"the default budget of {most} requests was used up (--max-requests raises it)"
    return None


def _how_far(state: State) -> str:
    """What a search without more trials has come to, and what to do about it."""
    if state.belief is None or state.belief.half <= state.goal.precision:
        return "; --max-trials raises it"
    known, asked_for = 100 * state.belief.half, 100 * state.goal.precision
    return f": the capacity is known to ±{known:.0f}%, not to ±{asked_for:g}%; raise --max-trials, or --precision"


def budget_note(evidence: Sequence[Trial], sla: Sla, goal: Goal) -> str | None:
    """A warning, once the range is known, that the budget cannot hold two full trials there."""
    state = state_of(evidence, sla, goal)
    if state.belief is None or state.own or goal.lists:
        return None
    probe = state.probe(state.belief.quantile(0.5), "main", COARSE_SHARE)
    left_s, left = state.left_s, state.requests_left()
    each_s, each = state.planned_s(probe), max(probe.need.values(), default=0)
    if 2 * each_s <= left_s and (left is None or 2 * each <= left):
        return None
    per_s = each / max(each_s, 1e-9)
    affordable = int(min(left_s * per_s, left if left is not None else math.inf) / 2)
    what = f"two full trials near {probe.load:g} take about {2 * each_s:.0f} s and {2 * each} requests"
    if affordable < 90:
        return f"{what}: the budget that is left cannot decide anything there; raise it"
    return f"{what}, more than the budget has left; it can decide percentiles up to about p{_percentile(affordable)}"


def _percentile(affordable: int) -> str:
    """The highest percentile for which so many requests make a coarse trial."""
    return f"{math.floor(1000 * (1 - COARSE_SHARE * 8 / max(affordable, 90))) / 10:g}"
