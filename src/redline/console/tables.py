"""Answers, trials and plans as tables, or as lines where the terminal is too narrow for them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console as Screen
from rich.console import Group, RenderableType
from rich.text import Text

from redline import wording
from redline.console.fitting import fitting
from redline.experiment.estimate import Estimate
from redline.experiment.redaction import redact
from redline.model import Answer, Experiment, Measured, ServerConfig, Sla, Trial
from redline.search.state import requests
from redline.stored import Opened, values
from redline.verdict import judge, usable

_ANSWERS_SAVE = ("heads", "requests", "cells", "alike", "time", "trials")
_TRIALS_SAVE = ("heads", "alike", "time", "requests", "cells")


# ---- answers ---------------------------------------------------------------------------------------------------------


def answers(found: Sequence[Answer], columns: Mapping[str, Sequence[str]], screen: Screen) -> RenderableType:
    """One row for each answer, sentences on what is not plain, a comparison, warnings and stop reasons."""
    rows = [
        {**_cells(answer), **{name: texts[index] for name, texts in columns.items()}}
        for index, answer in enumerate(found)
    ]
    for name in ("workload", "SLA"):
        if len({row[name] for row in rows}) == 1:
            rows = [{key: cell for key, cell in row.items() if key != name} for row in rows]
    several = len(found) > 1
    lines: list[RenderableType] = [Text(""), *fitting(rows, screen, _ANSWERS_SAVE), Text("")]
    for answer, sentence in zip(found, wording.sentences(found), strict=True):
        if not several or answer.evidence not in ("edge", "floor"):
            lines.append(Text(sentence))
    if best := wording.best_text(found):
        lines.append(Text(best))
    for answer in found:
        if answer.stop_reason and answer.evidence not in ("undecided", "not_started"):
            about = f"{wording.subject_text(answer, several)}: " if several else ""
            lines.append(Text(f"{about}the search ended: {answer.stop_reason}", "dim"))
        lines += _notes(answer, several, told=True)
    return Group(*lines)


def listed(found: Sequence[Answer]) -> RenderableType:
    """A sentence for each answer that rests on a list of loads; the table of trials says more."""
    lines: list[RenderableType] = [Text("")]
    for answer in found:
        several = len(found) > 1
        lines.append(Text(wording.listed_text(answer, several=several)))
        lines += _notes(answer, several, told=False)
    return Group(*lines)


def _cells(answer: Answer) -> dict[str, str]:
    return {
        "configuration": answer.server or "-",
        "workload": answer.workload or "-",
        "SLA": answer.sla,
        "capacity": wording.capacity_text(answer),
        f"{wording.number(100 * answer.confidence)} % interval": wording.interval_text(answer),
        "evidence": answer.evidence,
        "limited by": answer.limiting or "-",
        "trials": f"{answer.trials}",
        "requests": f"{answer.requests:,}",
        "time": wording.duration(answer.benchmark_s),
    }


def _notes(answer: Answer, several: bool, *, told: bool) -> Iterator[Text]:
    """Its warnings, and its error where that was not `told` in its sentence."""
    about = f"{wording.subject_text(answer, several)}: " if several else ""
    for warning in answer.warnings:
        yield Text("warning: ", "yellow").append(f"{about}{warning}", "default")
    if answer.error and not (told and wording.tells_error(answer)):
        yield Text("error: ", "red").append(f"{about}{answer.error.strip()}", "default")


# ---- trials ----------------------------------------------------------------------------------------------------------


def trials(opened: Opened, slas: Sequence[Sla], screen: Screen) -> RenderableType:
    """For each case and SLA its trials in the order of their numbers: values, and the exact verdict at that load."""
    parts: list[RenderableType] = []
    for case in opened.cases:
        kept = sorted(opened.trials.get(case.key, ()), key=lambda trial: (len(trial.id), trial.id))
        for sla in slas if kept else ():
            about = ", ".join(part for part in (case.server.name, case.workload.name, sla.name) if part)
            rows = [_trial_cells(trial, sla, opened.experiment.goal.confidence) for trial in kept]
            parts += [Text(""), Text(f"trials of {about}", "dim"), *fitting(rows, screen, _TRIALS_SAVE)]
    return Group(*parts)


def _trial_cells(trial: Trial, sla: Sla, confidence: float) -> dict[str, str]:
    stats, outcome = values(trial, sla), trial.outcome
    good = usable(trial, sla)[0]
    if not isinstance(outcome, Measured):
        ended = type(outcome).__name__.lower()
    else:
        ended = outcome.stop.reason if good else "not usable"
    judged = good and trial.probe.kind != "scout"  # a quick look only sets the range
    return {
        "trial": wording.trial_number(trial.id),
        "load": wording.load_text(trial.probe.load, trial.probe.by),
        "kind": trial.probe.kind,
        "ended": ended,
        "time": wording.duration(outcome.duration_s),
        "requests": f"{requests(trial):,}",
        **{c.metric: wording.quantity(c.metric, stats[c.metric]) if c.metric in stats else "-" for c in sla.criteria},
        "verdict": judge(trial, sla, confidence).verdict if judged else "-",
    }


# ---- plans -----------------------------------------------------------------------------------------------------------


def plan(experiment: Experiment, estimate: Estimate) -> RenderableType:
    """Each configuration with its command, what is measured on it, about how long, and on what that rests."""
    lines: list[RenderableType] = []
    for server in experiment.servers:
        lines.append(Text(server.name or "server", "bold"))
        lines += [Text(f"  {line}") for line in _commands(server)]
        for entry in estimate.cases:
            if entry.case.server.name == server.name:
                left = f"about {entry.trials} trials, {entry.requests:,} requests, {wording.duration(entry.seconds)}"
                done = f" ({entry.done} trials are done)" if entry.done else ""
                lines.append(Text(f"  {entry.case.workload.name}: {left if entry.trials else 'nothing is left'}{done}"))
    for sla in experiment.slas:
        criteria = ", ".join(c.text + (" (default)" if c.default else "") for c in sla.criteria)
        lines.append(Text("SLA ", "bold").append(f"{sla.name}: {criteria}", "default"))
    launches = f", {estimate.launches} launch{'es' * (estimate.launches > 1)}" if estimate.launches else ""
    total = f"about {wording.duration(estimate.seconds)}, {estimate.requests:,} requests{launches}"
    lines.append(Text("in all ", "bold").append(total, "default"))
    lines += [Text(f"  assuming that {text}", "dim") for text in estimate.assumptions]
    lines += [Text("warning: ", "yellow").append(text, "default") for text in estimate.warnings]
    return Group(*lines)


def _commands(server: ServerConfig) -> Iterator[str]:
    if server.attached:
        yield f"runs already at {server.url}"
    for words in (server.command, server.start, server.stop):
        if words:
            env = [f"{name}={redact({name: value})[name]}" for name, value in server.env.items()]
            yield " ".join([*env, shlex.join(redact(list(words)))])
