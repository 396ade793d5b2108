"""About how long an experiment would take, what that assumes, and what its budget can decide at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redline.model import Case, CommandWorkload, Criterion, Experiment, Goal, Measured, Sla, Trial, Workload
from redline.search import listed_loads
from redline.sla import allowed_share, metric_of
from redline.stats import floor_to_pass

PACE = 10.0  # requests/s, where nothing is known of a server
LAUNCH_S = 60.0
PHI = 4.0  # overdispersion near capacity: so many dependent requests are worth one

_TRIAL_S = 10.0  # warm-up, and waiting until the server is idle
_SCOUTS, _SCOUT_REQUESTS = 4, 15
_DEFAULT_BUDGET = 8_000  # requests per case after scouting, where 800 judge the hardest criterion
_SHARE_OF_FULL = 0.75  # what a trial of a search costs on average; the hopeless ones end early


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseEstimate:
    """What one case would still cost."""

    case: Case
    trials: int
    requests: int
    seconds: float
    done: int  # trials that are stored already


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What an experiment would still cost, with what that assumes in words."""

    cases: tuple[CaseEstimate, ...]
    launches: int
    seconds: float
    requests: int
    percentile: float  # the largest that a pass can be shown for, from independent requests
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]


def estimate_of(
    experiment: Experiment,
    cases: Sequence[Case],
    done: Mapping[str, Sequence[Trial]],
    unanswered: Mapping[str, Sequence[str]] | None = None,
) -> Estimate:
    """What is left to do, from the trials that are `done` by case key; rough, and says on what it rests.

    `unanswered` has the names of the SLAs that those trials do not answer, where somebody has looked.
    """
    goal = experiment.goal
    estimates = tuple(
        _case(case, experiment, done.get(case.key, ()), (unanswered or {}).get(case.key)) for case in cases
    )
    open_jobs = {entry.case.server.name for entry in estimates if entry.trials and not entry.case.server.attached}
    budget = request_budget(goal, experiment.slas)
    return Estimate(
        cases=estimates,
        launches=len(open_jobs),
        seconds=sum(entry.seconds for entry in estimates) + LAUNCH_S * len(open_jobs),
        requests=sum(entry.requests for entry in estimates),
        percentile=largest_percentile(budget, goal.confidence),
        assumptions=_assumptions(experiment, done, len(open_jobs), budget),
        warnings=_warnings(experiment, budget),
    )


def judged_requests(criterion: Criterion) -> int:
    """How many requests a full trial judges a criterion on."""
    share = allowed_share(criterion)
    return 400 if share is None else math.ceil(max(150.0, 8.0 / share))


def largest_percentile(requests: int, confidence: float, phi: float = 1.0) -> float:
    """The largest percentile that so many requests can show a pass for, when none is over."""
    return 100.0 * math.exp(math.log(1.0 - confidence) * phi / max(requests, 1))


def request_budget(goal: Goal, slas: Sequence[Sla]) -> int:
    """Requests per case after scouting."""
    return goal.max_requests or max(_DEFAULT_BUDGET, _DEFAULT_BUDGET * _judged(slas) // 800)


def _judged(slas: Sequence[Sla]) -> int:
    return max((judged_requests(c) for sla in slas for c in sla.criteria), default=150)


def _trials(goal: Goal) -> int:
    """Measured on simulated servers: 12 at 5%, 15 at 4%, 20 at 3%."""
    return min(max(round(0.6 / goal.precision), 5), 20)


def _case(case: Case, experiment: Experiment, done: Sequence[Trial], unanswered: Sequence[str] | None) -> CaseEstimate:
    goal = experiment.goal
    if unanswered is not None and not unanswered:
        return CaseEstimate(case=case, trials=0, requests=0, seconds=0.0, done=len(done))
    each = _judged(experiment.slas)
    start_s = _TRIAL_S
    if isinstance(case.workload, CommandWorkload):
        each = math.ceil(1.2 * each)  # it cannot end early, and its warm-up counts
    else:
        start_s += case.workload.ramp_s
    pace = _pace(done)
    if goal.lists:
        loads = listed_loads(done, goal) or [(pace or PACE) / 1.5**k for k in range(8)]
        left = [load for load in loads if not any(_measured(trial, load) for trial in done)]
        trials, requests = len(left), each * len(left)
        seconds = sum(each / (load if goal.by == "rate" else pace or PACE) for load in left) + start_s * trials
    else:
        share = 1.0 if isinstance(case.workload, CommandWorkload) else _SHARE_OF_FULL
        whole = _trials(goal) * max(1, round(0.7 * len(experiment.slas)))
        trials = max(min(whole, goal.max_trials) - sum(trial.probe.kind != "scout" for trial in done), 0)
        trials = max(trials, _least(goal, done, unanswered or ()))
        scouts = 0 if done else _SCOUTS
        sent = sum(_requests(trial) for trial in done)
        most = max(request_budget(goal, experiment.slas) - sent, 0)
        if unanswered:
            most = max(most, each) if goal.max_requests is None else most
        requests = min(round(share * each * trials), most) + scouts * _SCOUT_REQUESTS
        seconds = requests / (pace or PACE) + start_s * (trials + scouts)
        trials += scouts
        if goal.sustain_s and not any(trial.probe.kind == "hold" for trial in done):
            trials, seconds = trials + 1, seconds + goal.sustain_s
            requests += round(goal.sustain_s * (pace or PACE))
    if goal.max_time_s is not None:
        spent = sum(trial.outcome.duration_s for trial in done)
        seconds = min(seconds, max(goal.max_time_s - spent, 0.0))
    return CaseEstimate(case=case, trials=trials, requests=requests, seconds=seconds, done=len(done))


def _least(goal: Goal, done: Sequence[Trial], unanswered: Sequence[str]) -> int:
    """Trials at least: one for what is open, and most of a search for an SLA that no trial was made for yet."""
    asked = {trial.probe.asked_by for trial in done if trial.probe.kind != "scout"}
    new = sum(name not in asked for name in unanswered)
    return max(min(round(0.7 * _trials(goal)), goal.max_trials) * new, 1 if unanswered else 0)


def _measured(trial: Trial, load: float) -> bool:
    return isinstance(trial.outcome, Measured) and math.isclose(trial.probe.load, load)


def _requests(trial: Trial) -> int:
    outcome = trial.outcome
    return outcome.client.sent if isinstance(outcome, Measured) and trial.probe.kind != "scout" else 0


def _pace(done: Sequence[Trial]) -> float | None:
    """Requests per second in the trials so far; they lie around the capacity, as the next ones will."""
    known = [t.outcome for t in done if isinstance(t.outcome, Measured) and t.probe.kind != "scout"]
    seconds = sum(outcome.duration_s for outcome in known)
    sent = sum(outcome.client.sent for outcome in known)
    return sent / seconds if sent and seconds > 0 else None


def _assumptions(
    experiment: Experiment, done: Mapping[str, Sequence[Trial]], launches: int, budget: int
) -> tuple[str, ...]:
    goal = experiment.goal
    judged = _judged(experiment.slas)
    texts = []
    if goal.lists:
        loads = f"{len(goal.loads)}" if goal.loads else "about 8"
        texts.append(f"each of {loads} loads is measured until {judged:,} requests can be judged")
    else:
        texts.append(
            f"a search to {100 * goal.precision:g}% takes about {_trials(goal)} trials of up to {judged:,} judged "
            "requests, as it did on simulated servers; hopeless ones end early"
        )
    if not (goal.loads and goal.by == "rate"):
        known = any(_pace(trials) for trials in done.values())
        where = "as measured where there are trials, else " if known else ""
        texts.append(
            f"the server answers {where}{PACE:g} requests/s near its capacity; "
            "one that answers a tenth of that takes ten times as long"
        )
    if launches:
        texts.append(f"a launch takes {LAUNCH_S:g} s")
    if goal.max_time_s is None:
        texts.append("there is no limit of time: set max_time to have one")
    texts.append(
        f"the budget of {budget:,} requests per case can show a pass at {100 * goal.confidence:g}% confidence up to "
        f"{_percentile(budget, goal.confidence, 1.0)} if requests were independent, and up to "
        f"{_percentile(budget, goal.confidence, PHI)} where {PHI:g} that queue together are worth one"
    )
    return tuple(texts)


def _percentile(requests: int, confidence: float, phi: float) -> str:
    percentile = math.floor(100 * largest_percentile(requests, confidence, phi)) / 100
    return f"p{percentile:g}" if percentile >= 1 else "no percentile"


def _warnings(experiment: Experiment, budget: int) -> tuple[str, ...]:
    goal = experiment.goal
    texts = []
    for criterion in dict.fromkeys(c for sla in experiment.slas for c in sla.criteria):
        share = allowed_share(criterion)
        if share is None:
            continue
        floor = floor_to_pass(share, goal.confidence)
        if floor > budget:
            cure = f"raise max_requests to {floor:,} or more"
            if metric_of(criterion.metric).kind == "quantile":
                cure += f", or ask for {_percentile(budget, goal.confidence, 1.0)}"
            texts.append(
                f"{criterion.text} needs {floor:,} requests even when none is over, {budget:,} are allowed: {cure}"
            )
    for dataset in dict.fromkeys(w.dataset for w in experiment.workloads if isinstance(w, Workload) and not w.repeat):
        if dataset is not None and 0 < len(dataset.sizes) < budget:
            texts.append(
                f"{dataset.file} has {len(dataset.sizes):,} prompts, for up to {budget:,} requests: each repeat begins "
                "with a few words of its own, so that no prefix cache holds it; repeat = true leaves them as they are"
            )
    if any(isinstance(workload, CommandWorkload) for workload in experiment.workloads):
        texts.append("an external command cannot be stopped early, so that hopeless loads cost as much as good ones")
    return tuple(texts)
