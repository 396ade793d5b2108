"""Tables and lines that fit the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console as Screen
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_NUMBERS = {
    *("capacity", "trials", "requests", "time", "load", "trial", "error_rate"),
    *("failed", "requests/s", "offered/s", "good/s", "output tokens/s", "tokens/s"),
}
_WIDE = 10_000
_VERDICTS = {"pass": "green", "fail": "red", "undecided": "yellow"}
_AMOUNT = re.compile(r"([\d.,]+|\?) ([^\d\s][^\d]*)")  # a number and its unit
_BREAKABLE = re.compile(r"(?<![<>=]) (?! |(?<=\d )(?:ms|s|min|h|%|requests)\b|(?<=\d )%)")
_CRITERION = re.compile(r"([\w.]+)([<>]=?[\d.e+-]+)")


def hanging(line: Text, width: int, indent: int) -> Text:
    """The line, broken so that it fits: never between a number and its unit, with what follows indented."""
    found, start, room = [], 0, width
    spaces = [match.start() for match in _BREAKABLE.finditer(line.plain)]
    for place, after in zip(spaces, [*spaces[1:], len(line.plain)], strict=True):
        if after - start > room and line.plain[start:place].strip():
            found.append(place + 1)
            start, room = place + 1, width - indent
    pieces = line.divide(found)
    for piece in pieces:
        piece.rstrip()
    return Text(f"\n{' ' * indent}").join(pieces)


def fitting(rows: Sequence[Mapping[str, str]], screen: Screen, savings: Sequence[str]) -> Iterator[RenderableType]:
    """A table where it fits, else a block of lines for each row.

    Args:
        savings: what is done, one after the other, until it fits: `heads` sets units and words of the heads below each
            other, `cells` does so in cells, `alike` tells columns that are the same in all rows beneath instead, and
            any other is a column that is left out.
    """
    for count in range(len(savings) + 1):
        table, beneath = _table(rows, savings[:count])
        if screen.measure(table, options=screen.options.update(width=_WIDE)).maximum <= screen.width:
            yield table
            if beneath:
                yield Text(beneath, "dim")
            return
    names = list(rows[0])
    width = max(len(name) for name in names)
    for index, row in enumerate(rows):
        yield from ([Text("")] if index else [])
        yield from (Text(f"{name:<{width}}  ", "dim").append(row[name], "default") for name in names)


def _table(rows: Sequence[Mapping[str, str]], savings: Sequence[str]) -> tuple[Table, str]:
    """The table with so much saved, and what is to be said beneath it."""
    every = list(rows[0]) if rows else []
    same = [name for name in every[1:] if len({row[name] for row in rows}) == 1] if len(rows) > 1 else []
    alike = [name for name in same if "alike" in savings and name not in savings]
    out = [name for name in every if name in savings]
    table = Table(box=None, pad_edge=False, padding=(0, 2 if savings else 3, 0, 0))
    columns = []
    for name in every:
        if name in (*alike, *out):
            continue
        head, cells = name, [row[name] for row in rows]
        if "heads" in savings:
            head, cells = _with_unit_in_head(name, cells)
        if "cells" in savings:
            cells = [_broken_cell(cell) for cell in cells]
        right = name in _NUMBERS or name.endswith("_ms")
        table.add_column(
            head,
            no_wrap=True,
            header_style="dim",
            justify="right" if right else "left",
            style="bold" if name == "capacity" else "",
        )
        columns.append(cells)
    for row_cells in zip(*columns, strict=True):
        table.add_row(*(Text(cell, _VERDICTS.get(cell, "")) for cell in row_cells))
    beneath = [f"in all: {', '.join(f'{name} {rows[0][name]}' for name in alike)}"] if alike else []
    beneath += [f"no room for: {', '.join(out)}"] if out else []
    return table, "; ".join(beneath)


def _with_unit_in_head(name: str, cells: Sequence[str]) -> tuple[str, list[str]]:
    """The unit that all cells share moves into the head, which is broken where that makes it narrowest."""
    found = [_AMOUNT.fullmatch(cell) for cell in cells]
    units = {match[2] if match else None for match, cell in zip(found, cells, strict=True) if cell != "-"}
    (unit,) = units if len(units) == 1 else (None,)
    head = _broken_head(name)
    if unit is None:
        return head, list(cells)
    bare = [match[1] if match else cell for match, cell in zip(found, cells, strict=True)]
    if name.endswith(f"_{unit}"):
        return head, bare
    return f"{head} %" if unit == "%" else f"{name}\n{unit}", bare


def _broken_head(name: str) -> str:
    if "(" in name:
        return name.replace("(", "(\n").replace(", ", ",\n")
    places = [match.end() for match in re.finditer("[_ ]", name)]
    halves = [(name[:place].rstrip(), name[place:]) for place in places]
    narrowest = min(halves, key=lambda pair: max(map(len, pair)), default=None)
    return "\n".join(narrowest) if narrowest else name


def _broken_cell(cell: str) -> str:
    if match := _CRITERION.fullmatch(cell):
        return f"{match[1]}\n{match[2]}"
    return re.sub(r"(?<=[a-z]) (?=\d)", "\n", cell) if _is_duration(cell) else cell.replace(", ", ",\n")


def _is_duration(cell: str) -> bool:
    return re.fullmatch(r"\d+ (h|min) \d+ (min|s)", cell) is not None
