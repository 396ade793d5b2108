"""The files that workloads name: read once, and known by their digest ever after."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.experiment.traces import parse_trace
from redline.model import CommandWorkload, Lengths, Trace, UsageError, Workload

INPUTS = "inputs.json"  # beside a stored experiment: what its files held, since they may be gone


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A trace, and how long its requests are; None where it does not say."""

    trace: Trace
    prompt: Lengths | None
    output: Lengths | None


Load = Callable[[str], Described]


def reader(base: Path, *, absolute: bool = False) -> Load:
    """Reads files named relative to `base`; UsageError has everything that is wrong with one.

    With `absolute`, the workload remembers a name that holds wherever it will be written down.
    """
    known: dict[str, Described] = {}

    def load(name: str) -> Described:
        if name not in known:
            trace = _parsed(base / name, str((base / name).absolute()) if absolute else name)
            with_lengths = trace.has_lengths
            known[name] = Described(
                trace=trace,
                prompt=_like(trace.prompt_tokens) if with_lengths else None,
                output=_like(trace.output_tokens) if with_lengths else None,
            )
        return known[name]

    return load


def remembered(directory: Path) -> Load:
    """Knows of the files of a stored experiment what was written down; the rest it reads."""
    path = directory / INPUTS
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}; it says which files this experiment used") from error
    read = reader(directory)

    def load(name: str) -> Described:
        if name not in known:
            return read(name)
        facts = known[name]
        lengths = {key: Lengths(**facts[key]) if facts[key] else None for key in ("prompt", "output")}
        trace = Trace(file=name, sha256=facts["sha256"], has_lengths=lengths["prompt"] is not None)
        return Described(trace=trace, **lengths)

    return load


def nowhere(name: str) -> Described:
    """For who has no folder to read files in."""
    raise UsageError(f"{name} cannot be read here; write the workload into a file")


def noted(workloads: Iterable[Workload | CommandWorkload]) -> dict[str, str]:
    """The file that `remembered` reads, by its name; nothing where these workloads name no file."""
    known: dict[str, Any] = {}
    for workload in workloads:
        if isinstance(workload, Workload) and (trace := workload.trace) is not None:
            known[trace.file] = {"sha256": trace.sha256, "requests": len(trace.times_s), **_described(trace)}
    return {INPUTS: json.dumps(known, indent=2) + "\n"} if known else {}


def _described(trace: Trace) -> Mapping[str, Any]:
    counts = {"prompt": trace.prompt_tokens, "output": trace.output_tokens}
    return {key: asdict(_like(numbers)) if len(numbers) else None for key, numbers in counts.items()}


def _like(numbers: object) -> Lengths:
    """In a few figures, for who reads of the workload; what is sent are the numbers themselves."""
    tokens = np.asarray(numbers)
    mean = float(tokens.mean())
    return Lengths(
        mean=round(mean, 1), cv=round(float(tokens.std()) / mean, 3), low=int(tokens.min()), high=int(tokens.max())
    )


def _parsed(path: Path, name: str) -> Trace:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; a name counts from the folder of the file that names it") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text; save it as UTF-8") from error
    try:
        return parse_trace(text, name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
