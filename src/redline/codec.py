"""Files and JSON to our values and back: experiments, trials, answers."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from redline.experiment.build import SECTIONS, experiment_of
from redline.experiment.configurations import records_of
from redline.experiment.goals import replaced
from redline.experiment.inputs import reader, remembered
from redline.experiment.redaction import redact
from redline.experiment.settings import Problem
from redline.experiment.tomllines import line_of, lines_of
from redline.experiment.workloads import WORKLOAD_KEYS, workload_of
from redline.model import (
    UNITS,
    Answer,
    ClientEvidence,
    CommandWorkload,
    Experiment,
    Failed,
    Invalid,
    Measured,
    Outcome,
    Probe,
    RedlineError,
    Stop,
    Trial,
    UsageError,
    Workload,
)

TRIAL_SCHEMA = "redline.trial/1"
ANSWER_SCHEMA = "redline.answer/1"
FindReader: TypeAlias = Callable[[str], object]


# ---- experiments -----------------------------------------------------------------------------------------------------


def load_experiment(
    path: Path, options: Mapping[str, object] | None = None, find_reader: FindReader | None = None
) -> Experiment:
    """The experiment of a TOML file; `options` of the command line take the place of its [search] keys.

    UsageError lists everything that is wrong with it, each with its line. `find_reader` raises UsageError for a
    reader that cannot be used: who is about to measure hands it in; who reads what is stored needs it not, nor a trace.
    """
    text = _text_of(path)
    data = _tables(text, path)
    problems: list[Problem] = []
    vary = data.get("server", {}).get("vary") if isinstance(data.get("server"), dict) else None
    if isinstance(vary, str):
        try:
            data["server"]["vary"] = list(_parameters(vary, path))
        except UsageError as error:
            problems.append(Problem(path=("server", "vary"), text=f"vary: {error}"))
            del data["server"]["vary"]
    search = data.get("search", {})
    if options and isinstance(search, dict):
        instead = replaced(options, search)
        data["search"] = {**{key: value for key, value in search.items() if key not in instead}, **options}
    workloads = data.get("workload")
    for name, entry in workloads.items() if isinstance(workloads, dict) else ():
        _check_reader(entry, ("workload", name), find_reader, problems)
    load = reader(path.parent) if find_reader else remembered(path.parent)
    experiment = experiment_of(path.stem, data, problems, load)
    if experiment is None or problems:
        raise _told(problems, path, text, options or {})
    return experiment


def load_workload_file(path: Path, find_reader: FindReader | None = None) -> Workload | CommandWorkload:
    """The workload of a TOML file: its settings, or one [workload.NAME] section; UsageError has all that is wrong."""
    text = _text_of(path)
    data = _tables(text, path)
    problems: list[Problem] = []
    name, section, at = path.stem, data, cast("tuple[str, ...]", ())
    sections = data.get("workload")
    if isinstance(sections, dict) and not data.keys() & set(WORKLOAD_KEYS):
        if len(sections) != 1:
            names = ", ".join(sections) or "none"
            raise UsageError(f"{path}: must hold one workload, not {len(sections)} ({names}); keep one of them")
        name, section = next(iter(sections.items()))
        at = ("workload", name)
    _check_reader(section, at, find_reader, problems)
    workload = workload_of(name, section, at, problems, reader(path.parent, absolute=True))
    if workload is None or problems:
        raise _told(problems, path, text, {})
    return workload


def _check_reader(
    section: object, at: tuple[str, ...], find_reader: FindReader | None, problems: list[Problem]
) -> None:
    """Can a reader of somebody's own be imported? The names of ours are checked with the rest."""
    reader = section.get("reader") if isinstance(section, dict) else None
    if find_reader and isinstance(reader, str) and ":" in reader:
        try:
            find_reader(reader)
        except UsageError as error:
            problems.append(Problem(path=(*at, "reader"), text=str(error)))


def attached_files(path: Path) -> dict[str, str]:
    """The files that an experiment's file refers to, by the name under which they can stand beside it."""
    server = _tables(_text_of(path), path).get("server")
    vary = server.get("vary") if isinstance(server, dict) else None
    return {Path(vary).name: _text_of(_beside(path, vary))} if isinstance(vary, str) else {}


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        hint = "give the experiment's TOML file" if path.is_dir() else "check the name"
        raise UsageError(f"cannot read {path}: {error.strerror}; {hint}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text; save it as UTF-8") from error


def _tables(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}; texts stand in quotes, tables under [name]") from error


def _beside(path: Path, name: str) -> Path:
    """A file named in another one: relative to it, or just beside it, where a store keeps its copy."""
    named = path.parent / name
    return named if named.exists() else path.parent / Path(name).name


def _parameters(name: str, path: Path) -> Sequence[Mapping[str, Any]]:
    file = _beside(path, name)
    if not file.exists():
        raise UsageError(f"there is no file {path.parent / name}; give the path from {path.name} to it")
    try:
        data = json.loads(_text_of(file))
    except ValueError as error:
        raise UsageError(f"{file} is no JSON: {error}") from error
    try:
        return records_of(data)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def _told(problems: Sequence[Problem], path: Path, text: str, options: Mapping[str, object]) -> UsageError:
    """All problems as one paragraph, in the order of the file."""
    lines = lines_of(text)
    told = []
    for problem in problems:
        where, at = problem.path, line_of(problem.path, lines)
        names = [part for part in where[:-1] or where if isinstance(part, str)]
        section = f"[{'.'.join(names)}] " if where[:1] and where[0] in SECTIONS else ""
        if where[:1] == ("search",) and len(where) > 1 and where[1] in options:
            told.append((0, f"--{str(where[1]).replace('_', '-')}: {problem.text.removeprefix(f'{where[1]}: ')}"))
        else:
            told.append((at or 0, (f"line {at}: " if at else "") + section + problem.text))
    texts = list(dict.fromkeys(text for _, text in sorted(told, key=lambda entry: entry[0])))
    if len(texts) == 1:
        return UsageError(f"{path}: {texts[0]}")
    return UsageError("\n  ".join([f"{path}: {len(texts)} problems", *texts]))


# ---- trials ----------------------------------------------------------------------------------------------------------

_LAX = ConfigDict(extra="ignore")  # a later version may add fields


@checked(config=_LAX, kw_only=True)
class _Measured:
    stop: Stop
    duration_s: float
    aggregates: tuple[dict[str, float], ...] = ()
    client: ClientEvidence = field(default_factory=ClientEvidence)
    requests: int | None = None  # how many the requests file holds; None where the trial has none


@checked(config=_LAX, kw_only=True)
class _Outcome:
    """One of the three is there."""

    measured: _Measured | None = None
    failed: Failed | None = None
    invalid: Invalid | None = None


@checked(config=_LAX, kw_only=True)
class _Line:
    """What one line of trials.jsonl says."""

    schema: Literal["redline.trial/1"]
    id: str
    case: str
    probe: Probe
    seed: int
    started: str
    outcome: _Outcome
    server_start: str = ""
    facts: dict[str, JsonValue] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


_LINES = TypeAdapter(_Line)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTrial:
    """A trial as its line tells it: without its requests, of which there are so many in a file of their own."""

    trial: Trial
    requests: int | None


def trial_to_json(trial: Trial, secrets: Sequence[str] = ()) -> str:
    """One line, without the trial's requests and without anything secret."""
    outcome = trial.outcome
    if isinstance(outcome, Measured):
        stored = _Outcome(
            measured=_Measured(
                stop=outcome.stop,
                duration_s=outcome.duration_s,
                aggregates=tuple(dict(run) for run in outcome.aggregates),
                client=outcome.client,
                requests=None if outcome.records is None else len(outcome.records),
            )
        )
    else:
        stored = _Outcome(failed=outcome) if isinstance(outcome, Failed) else _Outcome(invalid=outcome)
    line = _Line(
        schema="redline.trial/1",
        id=trial.id,
        case=trial.case,
        probe=trial.probe,
        seed=trial.seed,
        started=trial.started,
        outcome=stored,
        server_start=trial.server_start,
        facts=cast("dict[str, JsonValue]", trial.facts),
        warnings=trial.warnings,
    )
    return json.dumps(_spelled(redact(_LINES.dump_python(line), secrets)), separators=(",", ":"), allow_nan=False)


def _spelled(value: object) -> Any:
    """What JSON has no number for as text that reads back as the number; no half characters."""
    if isinstance(value, Mapping):
        return {str(_spelled(key)): _spelled(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spelled(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def read_trial(line: str | bytes) -> StoredTrial:
    """The inverse of `trial_to_json`; RedlineError where the line is no trial of this version."""
    try:
        stored = _LINES.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema",) and "input" in first:
            other = f"it has the schema {first['input']!r}, this version reads {TRIAL_SCHEMA}"
            raise RedlineError(f"{other}; use the version that wrote it") from error
        raise RedlineError(f"{'.'.join(str(part) for part in first['loc']) or 'it'}: {first['msg']}") from error
    outcome = stored.outcome.failed or stored.outcome.invalid or _measured(stored.outcome.measured)
    trial = Trial(
        id=stored.id,
        case=stored.case,
        probe=stored.probe,
        seed=stored.seed,
        started=stored.started,
        outcome=outcome,
        server_start=stored.server_start,
        facts=stored.facts,
        warnings=stored.warnings,
    )
    return StoredTrial(trial=trial, requests=stored.outcome.measured.requests if stored.outcome.measured else None)


def trial_from_json(line: str | bytes) -> Trial:
    """The trial of a line, without its requests."""
    return read_trial(line).trial


def _measured(stored: _Measured | None) -> Outcome:
    if stored is None:
        raise RedlineError("outcome: says neither measured nor failed nor invalid")
    return Measured(stop=stored.stop, duration_s=stored.duration_s, aggregates=stored.aggregates, client=stored.client)


# ---- answers ---------------------------------------------------------------------------------------------------------


def answers_document(
    directory: Path | str, answers: Sequence[Answer], extra: Sequence[Mapping[str, object]] | None = None
) -> dict[str, Any]:
    """The `redline.answer/1` document, with null for what is not finite.

    `extra` adds keys to each answer, in the same order.
    """
    extras = extra if extra is not None else [{}] * len(answers)
    return {
        "schema": ANSWER_SCHEMA,
        "experiment": str(directory),
        "answers": [finite({**_answer(answer), **more}) for answer, more in zip(answers, extras, strict=True)],
    }


_FIELDS = (
    *("server", "workload", "sla", "criteria", "variable", "unit"),
    *("capacity", "estimate", "low", "high", "confidence", "evidence", "quality", "limiting", "headroom"),
    *("verdict_at_capacity", "at_capacity", "feasible_from"),
    *("trials", "requests", "benchmark_s", "stop_reason", "warnings", "error"),
)


def _answer(answer: Answer) -> dict[str, Any]:
    values = {
        **asdict(answer),
        "criteria": [criterion.text for criterion in answer.criteria],
        "unit": answer.unit or UNITS[answer.variable],
    }
    return {key: values[key] for key in _FIELDS if key != "feasible_from" or answer.feasible_from is not None}


def finite(value: object) -> Any:
    """JSON has no number for what is not finite: null."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
