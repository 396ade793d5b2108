"""A JSON object of somebody else, which knows where it stands: every complaint names the file and the key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redline.bench.checked import floats, number, text_of, whole
from redline.bench.reading import ResultError
from redline.records import Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """An object in a result file. A number that is null or NaN is not there."""

    data: Mapping[str, object]
    where: str  # the file, and the keys that lead to it
    client: str  # whose file it should be

    def number(self, key: str) -> float | None:
        return number(self.data, key, self.where)

    def required(self, key: str) -> float:
        value = self.number(key)
        if value is None:
            raise self._lacks(key)
        return value

    def count(self, key: str) -> int:
        return whole(self.required(key), key, self.where)

    def text(self, key: str) -> str:
        value = self.data.get(key)
        return "" if value is None else str(value)

    def numbers(self, key: str) -> Floats:
        """The numbers in the list of this key; none where it is absent."""
        values = self.data.get(key)
        found = floats(self.data, key, len(values), self.where) if isinstance(values, list) else None
        return np.zeros(0) if found is None else found

    def part(self, key: str) -> Part:
        if key not in self.data:
            raise self._lacks(key)
        return self._at(key, self.data[key])

    def maybe(self, key: str) -> Part:
        """The object of this key; an empty one where there is none."""
        return self._at(key, {} if self.data.get(key) is None else self.data[key])

    def parts(self, key: str) -> list[Part]:
        """The objects in the list of this key; none where the list is null."""
        if key not in self.data:
            raise self._lacks(key)
        rows = self.data[key]
        if rows is None:
            return []
        if not isinstance(rows, list):
            raise ResultError(f"{self.where}: {key} is no list")
        return [self._at(f"{key}[{i}]", row) for i, row in enumerate(rows)]

    def _at(self, key: str, value: object) -> Part:
        if not isinstance(value, Mapping):
            raise ResultError(f"{self.where}: {key} is no object")
        return Part(data=value, where=f"{self.where}: {key}", client=self.client)

    def _lacks(self, key: str) -> ResultError:
        return ResultError(f"{self.where}: has no {key}: is it a complete result of {self.client}?")


def object_in(path: Path, client: str) -> Part:
    """The one JSON object that the file holds."""
    text = text_of(path)
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ResultError(f"{path}: no complete JSON ({error}); is it a complete result of {client}?") from error
    if not isinstance(data, dict):
        raise ResultError(f"{path}: holds a JSON {type(data).__name__}, not a result of {client}")
    return Part(data=data, where=str(path), client=client)


def lines_in(path: Path, client: str) -> list[Part]:
    """The JSON objects of a file with one in each line; at least one."""
    return list(_objects(text_of(path), path, client))


def first_line(path: Path) -> Mapping[str, object]:
    """The JSON object in the first line, which tells a file of lines from a document; empty where there is none."""
    first = next((line for line in text_of(path).splitlines() if line.strip()), "")
    try:
        data = json.loads(first)
    except (json.JSONDecodeError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _objects(text: str, path: Path, client: str) -> Iterator[Part]:
    lines = [(row, line) for row, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ResultError(f"{path}: is empty; did {client} run to its end?")
    for row, line in lines:
        try:
            data = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ResultError(
                f"{path}: line {row} is no complete JSON ({error}); did {client} run to its end?"
            ) from error
        if not isinstance(data, dict):
            raise ResultError(f"{path}: line {row} holds a JSON {type(data).__name__}, not a result of {client}")
        yield Part(data=data, where=f"{path}: line {row}", client=client)
