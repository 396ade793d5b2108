"""Numbers from a JSON file of somebody else, each checked: what is wrong, and where it stands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from redline.bench.reading import ResultError
from redline.records import Floats


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ResultError(f"{path}: the command wrote no result; does it use {{result}}?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{path}: cannot be read ({error})") from error


def json_object(path: Path) -> Mapping[str, object]:
    text = text_of(path)
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ResultError(f"{path}: no complete JSON ({error})") from error
    if not isinstance(data, dict):
        raise ResultError(f"{path}: holds a JSON {type(data).__name__}, not the object of one run")
    return data


def number(data: Mapping[str, object], key: str, path: Path | str) -> float | None:
    """A number that is not negative; None where it is absent, null or NaN."""
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ResultError(f"{path}: {key} is {value!r}, not a number")
    if value < 0 or math.isinf(value):
        raise ResultError(f"{path}: {key} is {value:g}")
    return None if math.isnan(value) else float(value)


def required(data: Mapping[str, object], key: str, path: Path | str) -> float:
    value = number(data, key, path)
    if value is None:
        raise ResultError(f"{path}: has no {key}: is it a result of `vllm bench serve --save-result`?")
    return value


def count(data: Mapping[str, object], key: str, path: Path | str) -> int:
    return whole(required(data, key, path), key, path)


def whole(value: float, key: str, path: Path | str) -> int:
    if value != int(value):
        raise ResultError(f"{path}: {key} is {value:g}, not a count")
    return int(value)


def floats(data: Mapping[str, object], key: str, n: int, path: Path | str) -> Floats | None:
    """A list of n numbers, none negative or NaN; None where the key is absent or its list empty."""
    values = data.get(key)
    if not values:
        return None
    if not isinstance(values, list) or len(values) != n:
        size = f"{len(values)} values" if isinstance(values, list) else "no list"
        raise ResultError(f"{path}: {key} has {size}, but there were {n} requests")
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ResultError(f"{path}: {key} holds something that is no number ({error})") from error
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(bad):
        raise ResultError(f"{path}: {key}[{bad[0]}] is {array[bad[0]]:g}")
    return array


def lists(data: Mapping[str, object], key: str, n: int, path: Path | str) -> Sequence[Sequence[float]] | None:
    rows = data.get(key)
    if not rows:
        return None
    if not isinstance(rows, list) or len(rows) != n:
        size = f"{len(rows)} values" if isinstance(rows, list) else "no list"
        raise ResultError(f"{path}: {key} has {size}, but there were {n} requests")
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise ResultError(f"{path}: {key}[{i}] is no list")
        floats({f"{key}[{i}]": row}, f"{key}[{i}]", len(row), path)
    return rows
