"""Named settings, from a file or a command line, read against a table of what is allowed: every problem at once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redline.model import UsageError
from redline.units import nearest

Path: TypeAlias = tuple[str | int, ...]
Read: TypeAlias = Callable[[Any], Any]  # what the user gave -> what the code uses; UsageError where it cannot

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What is wrong with the setting at a path such as ("search", "max_time")."""

    path: Path
    text: str


def read(section: object, table: Mapping[str, Read], path: Path, problems: list[Problem]) -> dict[str, Any]:
    """The settings of a section that are good; what is wrong with the others is added to `problems`."""
    if not isinstance(section, Mapping):
        problems.append(Problem(path=path, text=f"must be a table of settings, not {_kind(section)}"))
        return {}
    good: dict[str, Any] = {}
    for key, value in section.items():
        at = (*path, key)
        if key not in table:
            problems.append(Problem(path=at, text=f"unknown key {key}; {nearest(key, table)}"))
            continue
        try:
            good[key] = table[key](value)
        except UsageError as error:
            problems.append(Problem(path=at, text=f"{key}: {error}"))
    return good


def read_table(
    value: object, table: Mapping[str, Read], needed: Sequence[str] = (), example: str = ""
) -> dict[str, Any]:
    """One setting that is a table itself; UsageError has all that is wrong with it, or what is missing."""
    problems: list[Problem] = []
    settings = read(value, table, (), problems)
    if problems:
        raise UsageError("; ".join(problem.text for problem in problems))
    if missing := [key for key in needed if key not in settings]:
        raise UsageError(f"{' and '.join(missing)} missing; write {example}")
    return settings


def told(problems: Sequence[Problem], what: str) -> UsageError:
    """All problems as one error, for settings that have no lines."""
    texts = [problem.text for problem in problems]
    return UsageError(f"{what}: {texts[0]}" if len(texts) == 1 else "\n  ".join([f"{what}:", *texts]))


# ---- readers ---------------------------------------------------------------------------------------------------------


def text(value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str):
        raise UsageError(f"must be text, not {_kind(value)}")
    if not value.strip():
        raise UsageError("is empty")
    if "\0" in value:
        raise UsageError("holds a NUL character")
    return value


def words(value: object) -> tuple[str, ...]:
    """A command: one text, split as a shell would but run by none, or a list of words."""
    if isinstance(value, (list, tuple)):
        if not all(isinstance(word, str) for word in value):
            raise UsageError("a command as a list must hold texts only; put numbers in quotes")
        parts = tuple(value)
    else:
        try:
            parts = tuple(shlex.split(text(value)))
        except ValueError as error:
            raise UsageError(f"cannot be split into words: {str(error).lower()}; check the quotes") from error
    if not parts or not parts[0]:
        raise UsageError("is empty; write the command to run")
    if any("\0" in part for part in parts):
        raise UsageError("holds a NUL character")
    return parts


def flag(value: object) -> bool:
    """true or false."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise UsageError(f"must be true or false, not {value!r}")
    return value


def choice(*names: str) -> Read:
    """One of these names."""

    def read_choice(value: object) -> str:
        if value not in names:
            raise UsageError(f"{value!r} is unknown; {nearest(str(value), names)}")
        return str(value)

    return read_choice


def environment(value: object) -> dict[str, str]:
    """Environment variables; whole numbers become text."""
    if not isinstance(value, Mapping):
        raise UsageError('must be a table such as { NAME = "value" }')
    for name, entry in value.items():
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of an environment variable")
        if isinstance(entry, bool) or not isinstance(entry, (str, int)):
            raise UsageError(f'{name} must be text; write {name} = "{_as_text(entry)}"')
        if "\0" in str(entry):
            raise UsageError(f"{name} holds a NUL character")
    return {name: str(entry) for name, entry in value.items()}


def headers(value: object) -> dict[str, str]:
    """HTTP headers."""
    if not isinstance(value, Mapping):
        raise UsageError('must be a table such as { Authorization = "Bearer ${API_KEY}" }')
    for name, entry in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of an HTTP header")
        if not isinstance(entry, str):
            raise UsageError(f'{name} must be text; write {name} = "{_as_text(entry)}"')
        if _CONTROL.search(entry):
            raise UsageError(f"{name} holds a line break or another control character")
    return dict(value)


def environment_name(value: object) -> str:
    """The name of an environment variable, not what is in it."""
    if not _ENVIRONMENT_NAME.fullmatch(text(value)):
        # The value may be the key itself: it must not be repeated here.
        raise UsageError("must be the name of an environment variable that holds the key, such as OPENAI_API_KEY")
    return str(value)


def not_yet(instead: str) -> Read:
    """For settings that a later version will read."""

    def refuse(value: object) -> object:  # noqa: ARG001 - every reader takes the value
        raise UsageError(f"not supported yet; {instead}")

    return refuse


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, (list, tuple)) else "a table" if isinstance(value, Mapping) else "that"
