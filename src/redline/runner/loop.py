"""The loop: one job in, events out, an answer for each of its cases and SLAs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from redline.events import (
    Answered,
    Emit,
    ServerReady,
    ServerStarting,
    ServerStopped,
    Warned,
)
from redline.model import (
    Answer,
    Case,
    EvidenceClass,
    Experiment,
    Failed,
    Job,
    Probe,
    RedlineError,
    Sla,
    Trial,
    UsageError,
)
from redline.runner.lab import Lab, Subject
from redline.runner.trial import Setting, measure
from redline.wording import notes, unit_of

_DEATHS = 2  # of the server in one case: it is started again once


@dataclass(slots=True)
class _Search:
    """One case on its way to its answers."""

    case: Case
    evidence: list[Trial]
    answers: list[Answer] | None = None
    deaths: int = 0  # of the server in its trials, in this run


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What stays the same for a whole job."""

    experiment: Experiment
    lab: Lab
    emit: Emit


def run_jobs(
    jobs: Sequence[Job], history: Mapping[str, Sequence[Trial]], experiment: Experiment, lab: Lab, emit: Emit
) -> list[Answer]:
    """The answers in the order of the cases; a job that breaks answers so, and the next one starts."""
    return [answer for job in jobs for answer in run_job(job, history, experiment, lab, emit)]


def run_job(
    job: Job, history: Mapping[str, Sequence[Trial]], experiment: Experiment, lab: Lab, emit: Emit
) -> list[Answer]:
    """Measure every case of a job until each SLA is answered; no server is started where the history answers all.

    `history` holds the finished trials by case key. What breaks is part of the answer: a configuration
    that does not start is `not_started`, a server that dies is started again until the search says that
    it died often enough. Raises UsageError, and what `emit` raises (a full disk ends the run).
    """
    run = _Run(experiment=experiment, lab=lab, emit=emit)
    searches = [_Search(case=case, evidence=list(history.get(case.key, ()))) for case in job.cases]
    while unanswered := [search for search in searches if _next(run, search)]:
        _serve(run, job, unanswered)
    return [answer for search in searches for answer in search.answers or ()]


def _serve(run: _Run, job: Job, searches: Sequence[_Search]) -> None:
    """One life of the server: ends with all searches answered, or with its death."""
    began = time.monotonic()
    run.emit(ServerStarting(server=job.server))
    with ExitStack() as stack:
        stack.callback(run.emit, ServerStopped(server=job.server))
        try:
            subject = stack.enter_context(run.lab.connect(job.server))
        except UsageError:
            raise
        except RedlineError as error:
            died = any(search.deaths for search in searches)
            for search in searches:
                _give_up(run, search, "crashed" if died else "not_started", str(error))
            return
        run.emit(ServerReady(server=job.server, endpoint=subject.endpoint, took_s=time.monotonic() - began))
        for search in searches:
            if not _measure_case(run, search, subject):
                return


def _measure_case(run: _Run, search: _Search, subject: Subject) -> bool:
    """Measure until the case is answered; False when the server died."""
    with ExitStack() as stack:
        try:
            session = stack.enter_context(run.lab.open_session(subject.endpoint, search.case))
            subject.warm_up(session)
        except UsageError:
            raise
        except RedlineError as error:
            if subject.alive():
                _give_up(run, search, None, str(error))
                return True
            _died(run, search, f"{error}\n{subject.log_tail()}".rstrip())
            return False
        setting = Setting(lab=run.lab, case=search.case, subject=subject, session=session, emit=run.emit)
        while step := _next(run, search):
            sla, probe = step
            if note := run.lab.budget_note(search.evidence, sla, run.experiment.goal):
                run.emit(Warned(text=note))
            trial = measure(setting, sla, probe, search.evidence)
            search.evidence.append(trial)
            if _server_died(trial):
                _died(run, search, None)
                return False
    return True


def _died(run: _Run, search: _Search, error: str | None) -> None:
    """Once is bad luck; the search says so too, but sees only deaths in trials."""
    search.deaths += 1
    if search.deaths >= _DEATHS:
        _give_up(run, search, "crashed", error)


# ---- deciding --------------------------------------------------------------------------------------------------------


def _next(run: _Run, search: _Search) -> tuple[Sla, Probe] | None:
    """What to measure next; None when the case is answered, which is told once."""
    if search.answers is not None:
        return None
    step = run.lab.next_job(tuple(search.evidence), run.experiment.slas, run.experiment.goal)
    if isinstance(step, list):
        _finish(run, search, step)
        return None
    return step


def _give_up(run: _Run, search: _Search, evidence: EvidenceClass | None, error: str | None) -> None:
    """Answer with what is known, because no more can be measured."""
    why = {"crashed": "the server died", "not_started": "the server did not start"}.get(evidence or "", "error")
    seen = tuple(search.evidence)
    answers = [run.lab.answer_now(seen, sla, run.experiment.goal, why) for sla in run.experiment.slas]
    open_ones = [answer.stop_reason == why for answer in answers]  # the others stand on what was measured before
    answers = [_as(a, evidence, seen, error) if is_open else a for a, is_open in zip(answers, open_ones, strict=True)]
    _finish(run, search, answers)


def _as(answer: Answer, evidence: EvidenceClass | None, trials: Sequence[Trial], error: str | None) -> Answer:
    answer = replace(answer, error=error or answer.error)
    if evidence is None:
        return answer
    if evidence != "crashed":
        nothing = replace(answer, capacity=None, estimate=None, low=None, high=None, at_capacity={}, headroom={})
        return replace(nothing, evidence=evidence)
    high = min((trial.probe.load for trial in trials if _server_died(trial)), default=answer.high)
    low = answer.low if answer.low is None or high is None else min(answer.low, high)
    return replace(answer, evidence=evidence, limiting="server exited", low=low, high=high)


def _server_died(trial: Trial) -> bool:
    return isinstance(trial.outcome, Failed) and trial.outcome.server_died


def _finish(run: _Run, search: _Search, answers: Sequence[Answer]) -> None:
    search.answers = [
        replace(
            answer,
            server=search.case.server.name,
            workload=search.case.workload.name,
            unit=unit_of(search.case.workload, answer.variable),
            warnings=notes(answer, search.evidence),
            error=answer.error or (_last_words(search.evidence) if answer.evidence == "crashed" else None),
        )
        for answer in answers
    ]
    for answer in search.answers:
        run.emit(Answered(case=search.case, answer=answer))


def _last_words(evidence: Sequence[Trial]) -> str | None:
    """Of the server that died, or of whatever broke last."""
    said = [f"{t.outcome.reason}\n{t.outcome.log_tail}".rstrip() for t in evidence if isinstance(t.outcome, Failed)]
    return said[-1] if said else None
