"""What the driver hands to its worker: a few facts as JSON, and the files of a workload as columns."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

from redline.loadgen.payload import Shape, Target
from redline.model import Dataset, Lengths, Prefix, ThinkTime, Trace, Vocabulary, Workload

_FILES: Mapping[str, Callable[..., Any]] = {"trace": Trace, "dataset": Dataset, "tokenizer": Vocabulary}
_File = TypeVar("_File", Trace, Dataset, Vocabulary)


def to_json(value: Target | Shape | Workload) -> dict[str, Any]:
    """All but what `inputs_of` has."""
    if not isinstance(value, Workload):
        return asdict(value)
    facts = asdict(replace(value, trace=None, dataset=None, tokenizer=None))
    for kind in _FILES:
        if (file := getattr(value, kind)) is not None:
            facts[kind] = {name: entry for name, entry in _fields(file).items() if not _is_column(entry)}
    return facts


def inputs_of(workload: Workload) -> dict[str, bytes | array[Any]]:
    """The columns that came from files, by kind and name; handed over once."""
    return {
        f"{kind}.{name}": entry
        for kind in _FILES
        if (file := getattr(workload, kind)) is not None
        for name, entry in _fields(file).items()
        if _is_column(entry)
    }


def shape_from(facts: dict[str, Any]) -> Shape:
    """The inverse of `to_json`."""
    shape = Shape(**facts)
    return replace(shape, ids=tuple(shape.ids)) if shape.ids else shape  # type: ignore[arg-type]  # JSON made it a list


def workload_from(facts: dict[str, Any], inputs: Mapping[str, bytes]) -> Workload:
    """The inverse of `to_json` and `inputs_of`."""
    plain = {**facts, "prompt": Lengths(**facts["prompt"]), "output": Lengths(**facts["output"])}
    for kind, make in _FILES.items():
        if facts[kind] is not None:
            plain[kind] = _filled(make(**facts[kind]), kind, inputs)
    if facts["turns"] is not None:
        plain["turns"] = Lengths(**facts["turns"])
    if facts["think_time_s"] is not None:
        plain["think_time_s"] = ThinkTime(**facts["think_time_s"])
    if facts["prefix"] is not None:
        plain["prefix"] = Prefix(**facts["prefix"])
    return Workload(**plain)


def _filled(file: _File, kind: str, inputs: Mapping[str, bytes]) -> _File:
    columns: dict[str, Any] = {}
    for name, entry in _fields(file).items():
        there = inputs.get(f"{kind}.{name}", b"")
        if isinstance(entry, array):
            entry.frombytes(there)
        elif isinstance(entry, bytes):
            columns[name] = there
    return replace(file, **columns)


def _is_column(entry: object) -> bool:
    return isinstance(entry, array | bytes)


def _fields(file: Trace | Dataset | Vocabulary) -> dict[str, Any]:
    return {entry.name: getattr(file, entry.name) for entry in fields(file)}
