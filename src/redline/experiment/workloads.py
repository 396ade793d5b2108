"""What requests look like, from a name or a few settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from typing import Any

from redline.experiment.commands import placeholders
from redline.experiment.inputs import Described, Load, nowhere
from redline.experiment.loadshape import SHAPE
from redline.experiment.settings import Path, Problem, Read, choice, flag, not_yet, read, text, told, words
from redline.model import CommandWorkload, Lengths, UsageError, Variable, Workload
from redline.units import nearest, parse_count, parse_duration, parse_not_negative, parse_positive


def _preset(name: str, prompt: tuple[float, float, int], output: tuple[float, float, int]) -> Workload:
    (p_mean, p_cv, p_high), (o_mean, o_cv, o_high) = prompt, output
    return Workload(
        name=name,
        prompt=Lengths(mean=p_mean, cv=p_cv, low=8, high=p_high),
        output=Lengths(mean=o_mean, cv=o_cv, low=2, high=o_high),
    )


# Chosen, not measured: round figures for the shape of each use, so that two people who say "rag" mean the same load.
# Your own traffic differs; its mean lengths in `random = { in = ..., out = ..., cv = ... }` are the better question.
PRESETS: Mapping[str, Workload] = {
    preset.name: preset
    for preset in (
        _preset("chat", (512, 0.8, 2_048), (256, 0.8, 1_024)),
        _preset("rag", (4_096, 0.3, 8_192), (256, 0.6, 1_024)),  # retrieved passages fill the prompt
        _preset("code", (2_048, 0.8, 8_192), (64, 1.0, 512)),  # completion: much context, a few lines back
        _preset("summarize", (6_144, 0.5, 16_384), (256, 0.4, 1_024)),
        _preset("reasoning", (512, 0.8, 2_048), (4_096, 0.6, 16_384)),  # long thinking before the answer
    )
}

READERS = ("vllm", "sglang", "guidellm", "aiperf", "inference-perf")
PLACEHOLDERS = ("url", "model", "rate", "concurrency", "requests", "seed", "result")  # of an external command


def _preset_name(value: object) -> str:
    if value not in PRESETS:
        raise UsageError(f"{value!r} is no preset; {nearest(str(value), PRESETS)}")
    return str(value)


def _lengths(value: object) -> dict[str, float]:
    """{ mean, cv, low, high }, or one number for lengths that are all the same."""
    if not isinstance(value, Mapping):
        return {"mean": parse_positive(value)}
    return _sub_table(
        value, {"mean": parse_positive, "cv": parse_not_negative, "low": parse_count, "high": parse_count}
    )


def _random(value: object) -> dict[str, float]:
    settings = _sub_table(value, _RANDOM)
    if missing := [key for key in ("in", "out") if key not in settings]:
        raise UsageError(f"{' and '.join(missing)} missing; write {{ in = 512, out = 128 }}: mean tokens per request")
    return settings


def _sub_table(value: object, table: Mapping[str, Read]) -> dict[str, Any]:
    problems: list[Problem] = []
    settings = read(value, table, (), problems)
    if problems:
        raise UsageError("; ".join(problem.text for problem in problems))
    return settings


_RANDOM: Mapping[str, Read] = {
    "in": parse_positive,
    "out": parse_positive,
    "cv": parse_not_negative,
    "in_cv": parse_not_negative,
    "out_cv": parse_not_negative,
}
_OVERRIDES: Mapping[str, Read] = {
    "api": choice("chat", "completions"),
    "prompt_kind": choice("text", "tokens"),
    "arrivals": choice("poisson", "constant", "gamma", "trace"),
    "burstiness": parse_positive,
    "ignore_eos": flag,
    "request_timeout_s": parse_duration,
    **SHAPE,
}
_SHORT: Mapping[str, Read] = {**_OVERRIDES, "trace": text}  # what also a short text can say
_COMMAND: Mapping[str, Read] = {"command": words, "reader": text, "timeout_s": parse_duration}
_BUILT_IN: Mapping[str, Read] = {
    "preset": _preset_name,
    "random": _random,
    "prompt": _lengths,
    "output": _lengths,
    "trace": text,
    **_OVERRIDES,
}
_ALL: Mapping[str, Read] = {
    **_BUILT_IN,
    **_COMMAND,
    "dataset": not_yet("say the lengths of your requests with random = { in = 512, out = 128, cv = 0.5 }"),
    "goodput": not_yet("use the criterion attainment(ttft_ms<=..., tpot_ms<=...)>=95% in [sla]"),
}
WORKLOAD_KEYS = tuple(_ALL)


def workload_of(
    name: str, section: object, path: Path, problems: list[Problem], load: Load = nowhere
) -> Workload | CommandWorkload | None:
    """The workload that these settings describe; None, and more `problems`, where they describe none.

    `load` reads the files that they name.
    """
    before = len(problems)
    settings = read(section, {**_ALL, "trace": lambda file: load(text(file))}, path, problems)
    given = set(section) if isinstance(section, Mapping) else set()

    def problem(key: str, why: str) -> None:
        problems.append(Problem(path=(*path, key) if key else path, text=why))

    if "command" in given:
        for key in sorted(given & set(_BUILT_IN)):
            problem(key, f"{key} does nothing beside command: the command makes the requests; remove one of the two")
        if "reader" not in given:
            problem("command", 'reader is missing: what reads the result file, such as reader = "vllm"')
        if len(problems) > before:
            return None
        return CommandWorkload(name=name, **settings)
    for key in sorted(given & {"reader", "timeout_s"}):
        hint = "; the built-in generator has request_timeout_s" if key == "timeout_s" else ""
        problem(key, f"{key} needs command, an external benchmark command{hint}")
    shape = given & {"preset", "random", "dataset"}
    if len(shape) > 1:
        problem("", f"{' and '.join(sorted(shape))} both say what is sent: keep one")
    if not shape and not {"prompt", "output"} <= given:
        _check_lengths(settings.get("trace"), given, problem)
    workload = _built_in(name, settings)
    if len(problems) > before or workload is None:
        return None
    for key, why in _contradictions(workload, settings):
        problem(key, why)
    return workload if len(problems) == before else None


def _check_lengths(traced: Described | None, given: Set[str], problem: Callable[[str, str], None]) -> None:
    """Does something say how long requests are, if no preset, no random and not both of prompt and output do?"""
    if traced is None:
        if "trace" not in given:  # or it is named already as a file that cannot be read
            why = "says nothing on what is sent"
            problem("", f'{why}: write preset = "chat", random = {{ in = 512, out = 128 }}, trace or command')
    elif traced.prompt is None:
        problem("trace", 'the trace has times only: say how long requests are, with preset = "chat" or random')
    else:
        for key in sorted(given & {"prompt", "output"}):
            problem(key, f"the trace says how long requests are: remove {key}, or give both prompt and output")


def _built_in(name: str, settings: Mapping[str, Any]) -> Workload | None:
    """What the good settings describe; None as long as lengths are missing."""
    prompt, output = settings.get("prompt", {}), settings.get("output", {})
    base: Workload | None = None
    traced: Described | None = settings.get("trace")
    own = bool({"preset", "random", "prompt"} & settings.keys())
    if "preset" in settings:
        base = PRESETS[settings["preset"]]
    elif random := settings.get("random"):
        prompt = {"mean": random["in"], "cv": random.get("in_cv", random.get("cv", 0.0)), **prompt}
        output = {"mean": random["out"], "cv": random.get("out_cv", random.get("cv", 0.0)), **output}
    elif traced is not None and not own and traced.prompt is not None and traced.output is not None:
        base = Workload(name=name, prompt=traced.prompt, output=traced.output)
    if base is None and not (prompt.get("mean") and output.get("mean")):
        return None
    overrides = {key: settings[key] for key in _OVERRIDES if key in settings}
    if traced is not None:
        trace = replace(traced.trace, has_lengths=traced.trace.has_lengths and not own)
        overrides = {"arrivals": "trace", **overrides, "trace": trace}
    if base is None:
        return Workload(name=name, prompt=Lengths(**prompt), output=Lengths(**output), **overrides)
    return replace(
        base, name=name, prompt=_changed(base.prompt, prompt), output=_changed(base.output, output), **overrides
    )


def _changed(lengths: Lengths, given: Mapping[str, Any]) -> Lengths:
    """A preset's lengths with these changes; a new mean widens the preset's limits where it lies outside them."""
    if not given:
        return lengths
    mean = given.get("mean", lengths.mean)
    limits = {"low": min(lengths.low, math.ceil(mean)), "high": max(lengths.high, math.ceil(4 * mean))}
    return replace(lengths, **{**limits, **given})


def _contradictions(workload: Workload, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for key, lengths in (("prompt", workload.prompt), ("output", workload.output)):
        if not lengths.low <= lengths.mean <= lengths.high:
            at = key if key in settings else ""
            limits = f"{lengths.low} to {lengths.high}"
            found.append((at, f"{key}: the mean of {lengths.mean:g} tokens lies outside {limits} tokens"))
    if workload.prompt_kind == "tokens" and workload.api == "chat":
        found.append(("prompt_kind", 'prompt_kind = "tokens" needs api = "completions": chat takes text only'))
    if workload.arrivals == "trace" and workload.trace is None:
        found.append(("arrivals", 'arrivals = "trace" needs trace, a file with times'))
    if "burstiness" in settings and workload.arrivals != "gamma":
        found.append(("burstiness", 'burstiness needs arrivals = "gamma"'))
    if workload.arrivals == "gamma" and "burstiness" not in settings:
        found.append(("arrivals", 'arrivals = "gamma" needs burstiness, such as 0.5; 1 is the same as poisson'))
    return found


def check_command(workload: CommandWorkload, by: Variable, path: Path, problems: list[Problem]) -> None:
    """Does an external command take the load that is searched, and nothing that nobody gives?"""
    names = placeholders(workload.command)
    other = "concurrency" if by == "rate" else "rate"

    def problem(key: str, text: str) -> None:
        problems.append(Problem(path=(*path, key), text=text))

    if unknown := [name for name in names if name not in PLACEHOLDERS]:
        hints = ", ".join(f"{{{name}}} ({nearest(name, PLACEHOLDERS)})" for name in unknown)
        problem("command", f"unknown placeholder {hints}")
    if other in names:
        problem("command", f"{{{other}}} has no value when {by} is searched: remove it, or search by {other}")
    if by not in names:
        problem("command", f"the command must take the load that is searched: put {{{by}}} in it")
    if "result" not in names:
        problem("command", "the command must leave its result file where it is told: put {result} in it")
    reader = workload.reader
    if ":" not in reader and reader not in READERS:
        why = f"is unknown; {nearest(reader, READERS)}"
        problem("reader", f'reader "{reader}" {why}; your own is "package.module:function"')


def parse_workload(spec: str, load: Load = nowhere) -> Workload:
    """A workload from `chat`, `random:in=512,out=128`, `chat:api=completions` or `trace:file=azure.csv`.

    UsageError has all that is wrong.
    """
    name = spec.strip()
    head, _, rest = name.partition(":")
    head = head.strip()
    problems: list[Problem] = []
    section: dict[str, Any] = {}
    if head == "random":
        section["random"] = {}
    elif head in PRESETS:
        section["preset"] = head
    elif head != "trace":
        hint = nearest(head, [*PRESETS, "random", "trace"]) if head else f"write one of {', '.join(PRESETS)}"
        file = "; there is no such file either" if head.endswith(".toml") or "/" in head else ""
        raise UsageError(f"workload {name!r}: {head!r} is no preset{file}; {hint} (or random:in=512,out=128)")
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            problems.append(Problem(path=(), text=f"cannot read {part!r}; write KEY=VALUE, such as out=128"))
            continue
        key = "trace" if key == "file" and head == "trace" else key
        place = section["random"] if head == "random" and key in _RANDOM else section
        if key in place:
            problems.append(Problem(path=(), text=f"{key} is given twice"))
        elif key not in _RANDOM and key not in _SHORT:
            known = [*(_RANDOM if head == "random" else ()), *_SHORT]
            problems.append(Problem(path=(), text=f"unknown key {key}; {nearest(key, known)}"))
        elif place is section and key in _RANDOM:
            problems.append(
                Problem(path=(), text=f"{key} belongs to random: write random:in=512,out=128,{key}={value}")
            )
        else:
            place[key] = value
    if head == "trace" and "trace" not in section:
        raise UsageError(f"workload {name!r}: which trace? Write trace:file=azure.csv")
    workload = workload_of(name, section, (), problems, load)
    if problems or not isinstance(workload, Workload):
        raise told(problems, f"workload {name!r}")
    return workload
