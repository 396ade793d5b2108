"""What the driver hands to its worker: a few facts as JSON, and the files of a workload as columns of numbers."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from redline.loadgen.payload import Shape, Target
from redline.model import Lengths, ThinkTime, Trace, Workload


def to_json(value: Target | Shape | Workload) -> dict[str, Any]:
    """All but what `inputs_of` has."""
    if not isinstance(value, Workload):
        return asdict(value)
    facts = asdict(replace(value, trace=None))
    if value.trace is not None:
        facts["trace"] = {name: entry for name, entry in _fields(value.trace).items() if not isinstance(entry, array)}
    return facts


def inputs_of(workload: Workload) -> dict[str, bytes | array[Any]]:
    """The numbers that came from files, by name; handed over once."""
    if workload.trace is None:
        return {}
    return {name: entry for name, entry in _fields(workload.trace).items() if isinstance(entry, array)}


def shape_from(facts: dict[str, Any]) -> Shape:
    """The inverse of `to_json`."""
    shape = Shape(**facts)
    return replace(shape, ids=tuple(shape.ids)) if shape.ids else shape  # type: ignore[arg-type]  # JSON made it a list


def workload_from(facts: dict[str, Any], inputs: Mapping[str, bytes]) -> Workload:
    """The inverse of `to_json` and `inputs_of`."""
    plain = {**facts, "prompt": Lengths(**facts["prompt"]), "output": Lengths(**facts["output"])}
    if facts["trace"] is not None:
        plain["trace"] = _trace(facts["trace"], inputs)
    if facts["think_time_s"] is not None:
        plain["think_time_s"] = ThinkTime(**facts["think_time_s"])
    return Workload(**plain)


def _trace(facts: dict[str, Any], inputs: Mapping[str, bytes]) -> Trace:
    trace = Trace(**facts)
    for name, numbers in _fields(trace).items():
        if isinstance(numbers, array):
            numbers.frombytes(inputs.get(name, b""))
    return trace


def _fields(trace: Trace) -> dict[str, Any]:
    return {entry.name: getattr(trace, entry.name) for entry in fields(trace)}
