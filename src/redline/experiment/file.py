"""An experiment as the text of the file that describes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from redline.experiment.goals import AUTO
from redline.model import (
    LOAD_LIMITS,
    CommandWorkload,
    Criterion,
    Experiment,
    Goal,
    Lengths,
    ServerConfig,
    ThinkTime,
    UsageError,
    Workload,
)

_OPTIONS = {"min_load": "min", "max_load": "max", "max_time_s": "max_time", "sustain_s": "sustain"}


def experiment_to_toml(experiment: Experiment) -> str:
    """The file that `load_experiment` reads as this experiment; it is named by where it stands.

    Not covered: several server configurations. They come from a file, which is kept as given.
    """
    if len(experiment.servers) != 1:
        raise UsageError("several server configurations have no file of their own; describe them with vary in one")
    sections = [_section("server", _server(experiment.servers[0]))]
    sections += [_section(f"workload.{_key(w.name)}", _workload(w)) for w in experiment.workloads]
    sections.append(_section("sla", {sla.name: _criteria(sla.criteria) for sla in experiment.slas}))
    sections.append(_section("search", _goal(experiment.goal)))
    return "\n".join(sections)


def _server(server: ServerConfig) -> dict[str, object]:
    settings = _changed(server, ServerConfig(name=server.name))
    settings.pop("parameters", None)  # they are in the command
    return settings


def _workload(workload: Workload | CommandWorkload) -> dict[str, object]:
    if isinstance(workload, CommandWorkload):
        return {key: value for key, value in asdict(workload).items() if key != "name"}
    plain = Workload(name=workload.name, prompt=Lengths(mean=0), output=Lengths(mean=0))
    settings = _changed(workload, plain)
    if workload.turns is not None:
        settings["turns"] = {"mean": workload.turns.mean, "cv": workload.turns.cv}
    if workload.arrivals == "gamma":
        settings["burstiness"] = workload.burstiness
    if workload.trace is not None:
        settings["trace"] = workload.trace.file
        if workload.trace.has_lengths and workload.dataset is None:
            del settings["prompt"], settings["output"]
        settings["arrivals"] = workload.arrivals
    if workload.tokenizer is not None:
        settings["tokenizer"] = workload.tokenizer.file
    if (prefix := workload.prefix) is not None:
        settings["prefix"] = {key: value for key, value in asdict(prefix).items() if value}
    if workload.dataset is not None:
        settings["dataset"] = workload.dataset.file
        del settings["prompt"]
        if workload.dataset.has_lengths or workload.output == Lengths(mean=workload.max_tokens or 0):
            del settings["output"]
    return settings


def _criteria(criteria: Sequence[Criterion]) -> list[str]:
    return [f"{c.metric}{c.op}{c.bound!r}" for c in criteria if not c.default]


def _goal(goal: Goal) -> dict[str, object]:
    low, high = LOAD_LIMITS[goal.by]
    settings = _changed(goal, Goal(by=goal.by, min_load=low, max_load=high))
    if settings.pop("curve", False):
        settings["loads"] = AUTO
    return {"by": goal.by, **{_OPTIONS.get(key, key): value for key, value in settings.items()}}


def _changed(value: Goal | ServerConfig | Workload, plain: object) -> dict[str, object]:
    """What differs from the defaults."""
    pairs = ((f.name, getattr(value, f.name), getattr(plain, f.name)) for f in fields(value))
    changed = {name: ours for name, ours, theirs in pairs if ours != theirs}
    return {name: asdict(ours) if isinstance(ours, Lengths | ThinkTime) else ours for name, ours in changed.items()}


def _section(name: str, settings: Mapping[str, object]) -> str:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in settings.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _key(name: str) -> str:
    return name if name and name.isascii() and name.replace("-", "").replace("_", "").isalnum() else _value(name)


def _value(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return repr(value)
