"""On which line of a TOML text each key stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_TOKEN = re.compile(
    r'''(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<newline>\n)
    |(?P<text>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<mark>[\[\]{}=,.])
    |(?P<bare>[^\s\[\]{}=,."'\#]+)''',
    re.VERBOSE | re.DOTALL,
)


class _Tokens:
    """A text's tokens with their lines; the text has been parsed before, so that it is known to be TOML."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def peek(self) -> tuple[str, str, int]:
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def take(self) -> tuple[str, str, int]:
        token = self.peek()
        self._at += 1
        return token

    def skip_lines(self) -> None:
        while self.peek()[0] == "newline":
            self.take()

    def key(self) -> tuple[list[str], int]:
        """A dotted key, and its line."""
        parts, line = [], self.peek()[2]
        while True:
            kind, text, _ = self.take()
            parts.append(_name(text) if kind == "text" else text)
            if self.peek()[1] != ".":
                return parts, line
            self.take()


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of each key and list element by its path."""
    tokens = _Tokens(text)
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    while True:
        tokens.skip_lines()
        kind, mark, line = tokens.peek()
        if kind == "end":
            return lines
        if mark == "[" and kind == "mark":
            tokens.take()
            several = tokens.peek()[1] == "["
            if several:
                tokens.take()
            table = tuple(tokens.key()[0])
            if several:
                counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, line)
                table = (*table, counts[table])
            _note(lines, table, line)
            while tokens.peek()[0] not in ("newline", "end"):
                tokens.take()
        else:
            _pair(tokens, table, lines)


def line_of(path: Path, lines: Mapping[Path, int]) -> int | None:
    """The line of a path, or of the nearest thing around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _pair(tokens: _Tokens, table: Path, lines: dict[Path, int]) -> None:
    key, line = tokens.key()
    path = (*table, *key)
    _note(lines, path, line)
    tokens.take()  # =
    _value(tokens, path, lines)


def _value(tokens: _Tokens, path: Path, lines: dict[Path, int]) -> None:
    kind, mark, _ = tokens.take()
    if kind == "mark" and mark in "[{":
        end, i = ("]", 0) if mark == "[" else ("}", -1)
        while True:
            tokens.skip_lines()
            kind, mark, line = tokens.peek()
            if kind == "end" or (kind == "mark" and mark == end):
                tokens.take()
                return
            if kind == "mark" and mark == ",":
                tokens.take()
            elif end == "}":
                _pair(tokens, path, lines)
            else:
                lines[(*path, i)] = line
                _value(tokens, (*path, i), lines)
                i += 1
    while kind == "bare" and tokens.peek()[0] in ("bare", "mark") and tokens.peek()[1] not in ",]}":
        tokens.take()  # 1.5, 12:30:00 and the like are several tokens


def _note(lines: dict[Path, int], path: Path, line: int) -> None:
    """The first line wins: [a.b] also is where `a` is first met."""
    for end in range(1, len(path) + 1):
        lines.setdefault(path[:end], line)


def _name(quoted: str) -> str:
    if quoted.startswith("'"):
        return quoted.strip("'")
    try:
        return str(json.loads(quoted))
    except ValueError:  # TOML has escapes that JSON has not
        return quoted.strip('"')


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line, at = 1, 0
    while at < len(text) and (match := _TOKEN.match(text, at)):
        kind = match.lastgroup or ""
        if kind != "space":
            yield kind, match[0], line
        line += match[0].count("\n")
        at = match.end()
    yield "end", "", line
