"""The rows of a CSV, JSONL or JSON text, each with its line, and the problems of a file as one error."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from redline.model import UsageError

Row: TypeAlias = tuple[int, Mapping[str, Any]]  # its line, from 1, and its fields

_MOST_TOKENS = 10_000_000
_SHOWN = 10  # problems of a file that are told one by one

csv.field_size_limit(1 << 30)  # else a prompt of 128 KiB is no CSV


class Complaints:
    """What is wrong with the lines of a file."""

    def __init__(self) -> None:
        self.unit = "line"
        self._texts: list[str] = []
        self._count = 0

    def add(self, line: int, text: str) -> None:
        self._count += 1
        if self._count <= _SHOWN:
            self._texts.append(f"{self.unit} {line}: {text}")

    def tell(self) -> None:
        """UsageError with all of them, if there are any."""
        if not self._count:
            return
        more = [f"and {self._count - _SHOWN:,} more"] if self._count > _SHOWN else []
        raise UsageError("; ".join([*self._texts, *more]))


def rows_of(text: str, complaints: Complaints) -> Iterator[Row]:
    """Its rows, by the first character but blanks: JSONL after a brace, a list in JSON after a bracket, else CSV."""
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] == "{":
        yield from _json_lines(text, complaints)
    elif text.lstrip()[:1] == "[":
        yield from _json_list(text, complaints)
    else:
        yield from _csv_lines(text, complaints)


def value_of(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    """What stands under the first of these names that is there; None where none is, or nothing stands there."""
    found = next((fields[name] for name in names if name in fields), None)
    return None if found == "" else found


def plain(name: str) -> str:
    """A name as it is compared: `Request tokens`, `request_tokens` and `RequestTokens` are one."""
    return "".join(char for char in name.lower() if char.isalnum())


def tokens_of(value: object) -> int | None:
    """A number of tokens, as a number or as text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() and 0 <= number <= _MOST_TOKENS else None


def _json_list(text: str, complaints: Complaints) -> Iterator[Row]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        complaints.add(getattr(error, "lineno", 1), f"is no JSON: {str(error).split(': line')[0].lower()}")
        return
    complaints.unit = "entry"
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict):
            yield number, {plain(name): value for name, value in entry.items()}
        else:
            complaints.add(number, "must be an object")


def _json_lines(text: str, complaints: Complaints) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            complaints.add(number, f"is no JSON: {str(error).split(': line')[0].lower()}")
            continue
        if isinstance(entry, dict):
            yield number, {plain(name): value for name, value in entry.items()}
        else:
            complaints.add(number, 'must be an object such as {"timestamp": 0, ...}')


def _csv_lines(text: str, complaints: Complaints) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        names = [plain(name) for name in next(reader, [])]
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(names):
                complaints.add(line, f"has {len(cells)} fields, and the first line names {len(names)}")
            elif cells:
                yield line, dict(zip(names, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        complaints.add(line, f"is no CSV: {error}")
