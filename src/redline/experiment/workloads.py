"""What requests look like, from a name or a few settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Any

from redline.experiment.datasets import is_dataset
from redline.experiment.inputs import Described, Load, nowhere
from redline.experiment.loadshape import SHAPE, contradictions
from redline.experiment.presets import PRESETS
from redline.experiment.reserved import misplaced, unsendable
from redline.experiment.settings import Path, Problem, Read, choice, flag, not_yet, read, read_table, text, told, words
from redline.model import CommandWorkload, Dataset, Lengths, Prefix, Trace, UsageError, Workload
from redline.units import nearest, parse_count, parse_duration, parse_not_negative, parse_positive, parse_share


def _preset_name(value: object) -> str:
    if value not in PRESETS:
        raise UsageError(f"{value!r} is no preset; {nearest(str(value), PRESETS)}")
    return str(value)


def _lengths(value: object) -> dict[str, float]:
    """{ mean, cv, low, high }, or one number for lengths that are all the same."""
    if not isinstance(value, Mapping):
        return {"mean": parse_positive(value)}
    return read_table(
        value, {"mean": parse_positive, "cv": parse_not_negative, "low": parse_count, "high": parse_count}
    )


def _random(value: object) -> dict[str, float]:
    return read_table(value, _RANDOM, ("in", "out"), "{ in = 512, out = 128 }: mean tokens per request")


def _extra(value: object) -> dict[str, Any]:
    """Further fields of each request's body."""
    if not isinstance(value, Mapping):
        raise UsageError("must be a table such as { temperature = 0.7 }")
    if wrong := misplaced(value, "workload"):
        raise UsageError("; ".join(wrong))
    if why := unsendable(value):
        raise UsageError(f"holds {why}")
    return dict(value)


_RANDOM: Mapping[str, Read] = {
    "in": parse_positive,
    "out": parse_positive,
    "cv": parse_not_negative,
    "in_cv": parse_not_negative,
    "out_cv": parse_not_negative,
}
_PREFIX: Mapping[str, Read] = {"share": parse_share, "tokens": parse_count, "groups": parse_count}


def _prefix(value: object) -> Prefix:
    settings = read_table(value, _PREFIX)
    if ("share" in settings) == ("tokens" in settings):
        raise UsageError("needs one of share and tokens: write { share = 0.6, groups = 8 }")
    return Prefix(**settings)


_OVERRIDES: Mapping[str, Read] = {
    "api": choice("chat", "completions"),
    "prompt_kind": choice("text", "tokens"),
    "arrivals": choice("poisson", "constant", "gamma", "trace"),
    "burstiness": parse_positive,
    "ignore_eos": flag,
    "max_tokens": parse_count,
    "min_tokens": parse_count,
    "repeat": flag,
    "prefix": _prefix,
    "tokenizer": text,
    "extra": _extra,
    "request_timeout_s": parse_duration,
    **SHAPE,
}
_SHORT: Mapping[str, Read] = {
    **{key: reader for key, reader in _OVERRIDES.items() if key not in ("extra", "prefix")},
    **{"trace": text, "dataset": text, "output": _lengths},
}  # what also a short text can say
_COMMAND: Mapping[str, Read] = {"command": words, "reader": text, "timeout_s": parse_duration}
_BUILT_IN: Mapping[str, Read] = {
    "preset": _preset_name,
    "random": _random,
    "prompt": _lengths,
    "output": _lengths,
    "trace": text,
    "dataset": text,
    **_OVERRIDES,
}
_ALL: Mapping[str, Read] = {
    **_BUILT_IN,
    **_COMMAND,
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
    tokenizer = section.get("tokenizer") if isinstance(section, Mapping) else None
    files: Mapping[str, Read] = {
        "trace": lambda file: load.trace(text(file)),
        "dataset": lambda file: load.dataset(text(file), tokenizer if isinstance(tokenizer, str) else None),
        "tokenizer": lambda file: load.tokenizer(text(file)),
    }
    settings = read(section, {**_ALL, **files}, path, problems)
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
    if "dataset" in given:
        _check_dataset(settings, given, problem)
    elif not shape and not {"prompt", "output"} <= given:
        _check_lengths(settings.get("trace"), given, problem)
    workload = _built_in(name, settings)
    if len(problems) > before or workload is None:
        return None
    for key, why in _contradictions(workload, settings):
        problem(key, why)
    return workload if len(problems) == before else None


def _check_dataset(settings: Mapping[str, Any], given: Set[str], problem: Callable[[str, str], None]) -> None:
    """Do the prompts of a file say how long their outputs are, and does nothing say what they are beside it?"""
    for key in sorted(given & {"prompt", "prompt_kind", "prefix"}):
        problem(key, f"{key} does nothing beside dataset: its prompts are sent as they are; remove one of the two")
    found: Described[Dataset] | None = settings.get("dataset")
    if found is not None and found.output is None and not {"output", "max_tokens"} & given:
        why = "does not say how long its outputs are"
        problem(
            "dataset", f"{found.file.file} {why}: add output_tokens to each prompt, or output = 256 to the workload"
        )


def _check_lengths(traced: Described[Trace] | None, given: Set[str], problem: Callable[[str, str], None]) -> None:
    """Does something say how long requests are, if no preset, no random and not both of prompt and output do?"""
    if traced is None:
        if "trace" not in given:  # or it is named already as a file that cannot be read
            why = "says nothing on what is sent"
            problem("", f'{why}: write preset = "chat", random = {{ in = 512, out = 128 }}, dataset, trace or command')
    elif traced.prompt is None:
        problem("trace", 'the trace has times only: say how long requests are, with preset = "chat" or random')
    else:
        for key in sorted(given & {"prompt", "output"}):
            problem(key, f"the trace says how long requests are: remove {key}, or give both prompt and output")


def _built_in(name: str, settings: Mapping[str, Any]) -> Workload | None:
    """What the good settings describe; None as long as lengths are missing."""
    prompt, output = settings.get("prompt", {}), settings.get("output", {})
    base: Workload | None = None
    traced: Described[Trace] | None = settings.get("trace")
    written: Described[Dataset] | None = settings.get("dataset")
    own = bool({"preset", "random", "prompt", "dataset"} & settings.keys())
    if written is not None and written.prompt is not None:
        most = settings.get("max_tokens")
        prompt = asdict(written.prompt)
        output = output or (asdict(written.output) if written.output else {"mean": most} if most else {})
    elif "preset" in settings:
        base = PRESETS[settings["preset"]]
    elif random := settings.get("random"):
        prompt = {"mean": random["in"], "cv": random.get("in_cv", random.get("cv", 0.0)), **prompt}
        output = {"mean": random["out"], "cv": random.get("out_cv", random.get("cv", 0.0)), **output}
    elif traced is not None and not own and traced.prompt and traced.output:
        base = Workload(name=name, prompt=traced.prompt, output=traced.output)
    if base is None and not (prompt.get("mean") and output.get("mean")):
        return None
    overrides = {key: settings[key] for key in _OVERRIDES if key in settings}
    if traced is not None:
        has_lengths = traced.file.has_lengths and not own
        has_blocks = traced.file.has_blocks and has_lengths and not {"prefix", "turns"} & settings.keys()
        trace = replace(traced.file, has_lengths=has_lengths, has_blocks=has_blocks)
        overrides = {"arrivals": "trace", **overrides, "trace": trace}
    if written is not None:
        has_lengths = written.file.has_lengths and "output" not in settings
        overrides["dataset"] = replace(written.file, has_lengths=has_lengths)
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
    found = contradictions(workload)
    for key, lengths in (("prompt", workload.prompt), ("output", workload.output)):
        if not lengths.low <= lengths.mean <= lengths.high:
            at = key if key in settings else ""
            limits = f"{lengths.low} to {lengths.high}"
            found.append((at, f"{key}: the mean of {lengths.mean:g} tokens lies outside {limits} tokens"))
    if workload.prompt_kind == "tokens" and workload.api == "chat":
        found.append(("prompt_kind", 'prompt_kind = "tokens" needs api = "completions": chat takes text only'))
    if workload.dataset is not None and workload.api != "chat" and (n := workload.dataset.first_chat()) is not None:
        found.append(
            ("dataset", f'prompt {n + 1} of {workload.dataset.file} is messages: only api = "chat" takes those')
        )
    if workload.prompt_kind == "tokens" and workload.tokenizer is not None:
        found.append(("tokenizer", 'tokenizer does nothing beside prompt_kind = "tokens": token ids need no words'))
    if workload.min_tokens is not None and workload.ignore_eos:
        found.append(("min_tokens", "min_tokens needs ignore_eos = false: else outputs are as long as asked"))
    if workload.min_tokens is not None and workload.min_tokens > (workload.max_tokens or math.inf):
        found.append(("min_tokens", f"min_tokens is above max_tokens = {workload.max_tokens}"))
    common = workload.prefix is not None or (workload.trace is not None and workload.trace.has_blocks)
    if workload.repeat and workload.dataset is None and not common:
        found.append(
            ("repeat", "repeat needs dataset, prefix or a trace with hash_ids: nothing else of a prompt repeats")
        )
    if workload.arrivals == "trace" and workload.trace is None:
        found.append(("arrivals", 'arrivals = "trace" needs trace, a file with times'))
    if "burstiness" in settings and workload.arrivals != "gamma":
        found.append(("burstiness", 'burstiness needs arrivals = "gamma"'))
    if workload.arrivals == "gamma" and "burstiness" not in settings:
        found.append(("arrivals", 'arrivals = "gamma" needs burstiness, such as 0.5; 1 is the same as poisson'))
    return found


def parse_workload(spec: str, load: Load = nowhere) -> Workload:
    """A workload from `chat`, `random:in=512,out=128`, `prompts.jsonl`, `chat:api=completions`, `trace:file=azure.csv`.

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
    elif is_dataset(head):
        section["dataset"] = head
        name, head = PurePath(head).name + name[len(head) :], "dataset"
    elif head not in ("trace", "dataset"):
        hint = nearest(head, [*PRESETS, "random", "trace", "dataset"]) if head else f"write one of {', '.join(PRESETS)}"
        file = "; there is no such file either" if head.endswith(".toml") or "/" in head else ""
        raise UsageError(f"workload {name!r}: {head!r} is no preset{file}; {hint} (or random:in=512,out=128)")
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            problems.append(Problem(path=(), text=f"cannot read {part!r}; write KEY=VALUE, such as out=128"))
        elif why := _put(section, head, key, value):
            problems.append(Problem(path=(), text=why))
    if head in ("trace", "dataset") and head not in section:
        raise UsageError(f"workload {name!r}: which {head}? Write {head}:file={_EXAMPLES[head]}")
    workload = workload_of(name, section, (), problems, load)
    if problems or not isinstance(workload, Workload):
        raise told(problems, f"workload {name!r}")
    return workload


_EXAMPLES = {"trace": "azure.csv", "dataset": "prompts.jsonl"}


def _put(section: dict[str, Any], head: str, key: str, value: str) -> str:
    """Set what one part of a short text says; what is wrong with it, else nothing."""
    table, dot, inner = key.partition(".")
    if dot and table in ("extra", "prefix") and inner:
        place = section.setdefault(table, {})
        if inner in place:
            return f"{key} is given twice"
        place[inner] = _json_or_text(value) if table == "extra" else value
        return ""
    if key == "file" and head in _EXAMPLES:
        key = head
    elif key == "out" and head == "dataset":
        key = "output"
    place = section["random"] if head == "random" and key in _RANDOM else section
    if key in place:
        return f"{key} is given twice"
    if key not in _RANDOM and key not in _SHORT:
        known = [*(_RANDOM if head == "random" else ()), *_SHORT]
        return f"unknown key {key}; {nearest(key, known)}"
    if place is section and key in _RANDOM:
        return f"{key} belongs to random: write random:in=512,out=128,{key}={value}"
    place[key] = value
    return ""


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
