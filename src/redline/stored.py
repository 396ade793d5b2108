"""An experiment directory opened to read: its cases, its trials, and the answers that they give to any SLA."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from redline.codec import load_experiment
from redline.experiment.plan import jobs
from redline.experiment.settings import Problem, told
from redline.model import (
    Answer,
    Case,
    Criterion,
    Experiment,
    Measured,
    Probe,
    RedlineError,
    Sla,
    Trial,
    UsageError,
)
from redline.requesttable import csv_lines
from redline.search import answer_now, is_look, listed_loads, next_step, seen
from redline.sla import met, parse_sla
from redline.store import EXPERIMENT, open_store, reusable
from redline.units import nearest
from redline.verdict import judge, summary
from redline.verdict.tally import first_look, steady_window, tally
from redline.verdict.watch import first_wave
from redline.wording import load_text, notes, trial_number, unit_of

OPTIONS = "options.json"  # what the command line changed in the experiment's file
_NOT_YET = "it was not measured to an end"


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """What a directory holds. Nothing here writes."""

    directory: Path
    experiment: Experiment
    trials: Mapping[str, tuple[Trial, ...]]  # by case key: those that answers rest on
    notes: tuple[str, ...]  # what is not used, and why
    environment: Mapping[str, Any]

    @property
    def cases(self) -> tuple[Case, ...]:
        return tuple(case for job in jobs(self.experiment) for case in job.cases)

    @property
    def listed(self) -> bool:
        """A list of loads was asked for, and each was measured."""
        return all_listed(self.experiment, self.trials)

    @property
    def about(self) -> dict[str, str]:
        """What it ran on last, in words."""
        last = (self.environment.get("runs") or [{}])[-1]
        return {str(key): _in_words(value) for key, value in last.items() if key != "servers"}

    def slas(self, asked: Sequence[str | Sla] = ()) -> tuple[Sla, ...]:
        """These SLAs, or the experiment's own; UsageError has all that is wrong with them."""
        problems: list[Problem] = []
        slas = []
        for sla in asked:
            try:
                slas.append(parse_sla(sla) if isinstance(sla, str) else sla)
            except UsageError as error:
                problems.append(Problem(path=(), text=str(error)))
        if problems:
            raise told(problems, "cannot answer")
        return tuple(slas) or self.experiment.slas

    def answers(self, slas: Sequence[str | Sla] = ()) -> tuple[Answer, ...]:
        """What the trials say on these SLAs (or the experiment's own), for each case; nothing is measured."""
        return tuple(self.answer(case, sla) for case in self.cases for sla in self.slas(slas))

    def answer(self, case: Case, sla: Sla) -> Answer:
        trials = self.trials.get(case.key, ())
        found = answer_now(trials, sla, self.experiment.goal, _NOT_YET if trials else "nothing was measured yet")
        return replace(
            found,
            server=case.server.name,
            workload=case.workload.name,
            unit=unit_of(case.workload, found.variable),
            warnings=notes(found, trials),
        )

    def verdicts(self, slas: Sequence[Sla]) -> list[dict[str, object]]:
        """For each answer, in their order, what each full trial proves at its load: further keys of its JSON."""
        found: list[dict[str, object]] = []
        for case in self.cases:
            trials = sorted(self.trials.get(case.key, ()), key=lambda trial: trial.probe.load)
            full = [trial for trial in trials if trial.probe.kind != "scout"]
            for sla in slas:
                confidence = self.experiment.goal.confidence
                found.append({"loads": [verdict_entry(trial, sla, confidence) for trial in full]})
        return found

    def missing(self, slas: Sequence[Sla] = ()) -> str:
        """What would still be measured for these SLAs, and the command that does; empty where nothing is missing."""
        lines, new = [], [sla for sla in slas if sla not in self.experiment.slas]
        for case in self.cases:
            for sla in slas or self.experiment.slas:
                step = next_step(self.trials.get(case.key, ()), sla, self.experiment.goal)
                if isinstance(step, Probe):
                    about = ", ".join(part for part in (case.server.name, case.workload.name, sla.name) if part)
                    lines.append(f"{about}: the next measurement would be at {load_text(step.load, step.by)}")
        return "\n  ".join(["not answered yet:", *lines, self._how_to_measure(new)]) if lines else ""

    def _how_to_measure(self, new: Sequence[Sla]) -> str:
        for run in reversed(self.environment.get("runs") or ()):
            command = [str(word) for word in run.get("command", [])[1:] if word != "--again"]
            if command[:1] == ["find"]:
                more = [part for sla in new for part in ("--sla", _text(sla))]
                return f"to measure only that: {shlex.join(['redline', *command, *more, *self._out(command)])}"
            if command[:1] == ["import"]:
                return "these results are of files: measure it with their client, and import all files together"
            if command[:1] == ["run"]:
                add = "put the SLA into the experiment's file, and then " if new else ""
                return f"to measure only that: {add}{shlex.join(['redline', *command, *self._out(command)])}"
        return "run the same command or call again, with this SLA, to measure only that"

    def _out(self, command: Sequence[str]) -> list[str]:
        return [] if any(word.partition("=")[0] == "--out" for word in command) else ["--out", str(self.directory)]

    def trial(self, name: str) -> Trial:
        """The trial of this number, with leading zeros or without; UsageError names those there are."""
        every = {trial_number(trial.id): trial for trials in self.trials.values() for trial in trials}
        if trial_number(name) not in every:
            raise UsageError(f"{self.directory} has no trial {name}; {nearest(trial_number(name), every)}")
        return every[trial_number(name)]

    def requests_csv(self, name: str) -> Iterator[str]:
        """Every request of a trial as CSV, line by line, with a header."""
        outcome = self.trial(name).outcome
        if not isinstance(outcome, Measured) or outcome.records is None:
            raise RedlineError(f"trial {name} holds no single requests: its command reported totals only, or it broke")
        return csv_lines(outcome.records)


def open_experiment(directory: Path | str) -> Opened:
    """What this directory holds; UsageError where it is no experiment of Redline."""
    directory = Path(directory)
    with open_store(directory, write=False) as store:
        trials, notes, environment = dict(store.trials), list(store.notes), store.environment
    path = directory / EXPERIMENT
    if not path.is_file():
        raise RedlineError(f"{path} is missing, so that the trials beside it have no meaning; put it back")
    experiment = replace(load_experiment(path, _options(directory)), name=directory.resolve().name)
    for job in jobs(experiment):
        for case in job.cases:
            if job.server.attached and (kept := trials.get(case.key)):
                last = kept[-1]
                trials[case.key], unused = reusable(kept, datetime.fromisoformat(last.started), last.server_start)
                notes += [unused] if unused else []
    known = {case.key for job in jobs(experiment) for case in job.cases}
    if others := sum(len(kept) for key, kept in trials.items() if key not in known):
        notes.append(f"{others} trials belong to configurations that the experiment no longer has")
    return Opened(
        directory=directory, experiment=experiment, trials=trials, notes=tuple(notes), environment=environment
    )


def _options(directory: Path) -> dict[str, Any]:
    try:
        options = json.loads((directory / OPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def all_listed(experiment: Experiment, trials: Mapping[str, Sequence[Trial]]) -> bool:
    """Is there a list of loads, and was each measured on every case?"""
    kept = [trials.get(case.key, ()) for job in jobs(experiment) for case in job.cases]
    return experiment.goal.lists and all(_listed(of_case, listed_loads(of_case, experiment.goal)) for of_case in kept)


def _listed(trials: Sequence[Trial], loads: Sequence[float]) -> bool:
    measured = {t.probe.load for t in trials if isinstance(t.outcome, Measured) and not is_look(t)}
    return bool(loads) and measured.issuperset(loads)


def _text(sla: Sla) -> str:
    """What --sla takes for it; one without a name of its own is named by its text."""
    with suppress(UsageError):
        if parse_sla(sla.name).criteria == sla.criteria:
            return sla.name
    return f"{sla.name}: " + ", ".join(criterion.text for criterion in sla.criteria if not criterion.default)


def values(trial: Trial, sla: Sla) -> dict[str, float]:
    """Each metric's value in this trial, wherever it is shown: what the search sees of it, else what its requests say.

    Empty for a trial that broke; without the metrics that it tells nothing of.
    """
    found = seen(trial, sla)
    if isinstance(trial.outcome, Measured):
        left = [criterion for criterion in sla.criteria if criterion.metric not in found]
        found |= {criterion.metric: _unjudged(trial, trial.outcome, criterion) for criterion in left}
        for criterion in left:  # ended by requests that still ran: those that ended do not tell its value
            if trial.outcome.stop.criterion == criterion.text and met(criterion, found[criterion.metric]):
                del found[criterion.metric]
    return {metric: stat for metric, stat in found.items() if not np.isnan(stat)}


def _unjudged(trial: Trial, outcome: Measured, criterion: Criterion) -> float:
    """Over the steady window; of a trial that had none (a quick look, an early end) over everything."""
    records, window = outcome.records, steady_window(outcome)
    if records is not None:
        if window is not None and trial.probe.kind != "scout" and (found := tally(criterion, records, window)).n > 0:
            return found.stat
        if (found := first_look(criterion, records, first_wave(trial.probe))).n > 0:
            return found.stat
    return summary(outcome).get(criterion.metric, np.nan)


def verdict_entry(trial: Trial, sla: Sla, confidence: float) -> dict[str, object]:
    """What this trial proves of the SLA at its load, for JSON."""
    judgement, stats = judge(trial, sla, confidence), values(trial, sla)
    return {
        "load": trial.probe.load,
        "trial": trial.id,
        "verdict": judgement.verdict,
        "criteria": [
            {
                "criterion": c.criterion.text,
                "value": stats.get(c.criterion.metric, c.stat),
                "verdict": c.verdict,
                "more_requests": c.more,
            }
            for c in judgement.criteria
        ],
        "reason": judgement.reason,
    }


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return shlex.join(str(entry) for entry in value)
    return str(value)
