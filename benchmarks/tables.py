"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def lines_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table's lines: its head, and one for each row."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
