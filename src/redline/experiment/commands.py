"""Command lines as lists of words: parameters applied by vLLM's rule, placeholders filled."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from redline.model import JsonValue, UsageError
from redline.units import nearest

NAME_KEY = "_benchmark_name"  # of a record: what vLLM's sweep calls it; never an option

_PLACEHOLDER = re.compile(r"(?<!\{)\{([A-Za-z_][A-Za-z0-9_.-]*)\}(?!\})|\{\{([A-Za-z_][A-Za-z0-9_.-]*)\}\}")
_NEGATIVE = re.compile(r"-\.?\d")
_LITERAL = re.compile(r"true|false|yes|no|on|off|none|[-+.\d]\S*|[\[{].*", re.IGNORECASE | re.DOTALL)


def grid(vary: Mapping[str, Sequence[JsonValue]]) -> tuple[dict[str, JsonValue], ...]:
    """Every combination, the last parameter fastest; one empty record where nothing varies."""
    return tuple(dict(zip(vary, combination, strict=True)) for combination in itertools.product(*vary.values()))


def record_text(parameters: Mapping[str, JsonValue]) -> str:
    """The parameters as `k=v, k=v`, as spelled in the file."""
    return ", ".join(f"{key}={_value(value)}" for key, value in parameters.items() if key != NAME_KEY)


# ---- placeholders ----------------------------------------------------------------------------------------------------


def placeholders(command: Sequence[str]) -> tuple[str, ...]:
    """The names in braces, in order; braces of JSON are none, and {{name}} stands for itself."""
    found = (match[1] for word in command for match in _PLACEHOLDER.finditer(word))
    return tuple(dict.fromkeys(name for name in found if name))


def fill(command: Sequence[str], values: Mapping[str, object]) -> tuple[str, ...]:
    """The command with every {name} filled, word by word: a value never becomes two words.

    UsageError names every placeholder that has no value.
    """
    if unknown := [name for name in placeholders(command) if name not in values]:
        hints = ", ".join(f"{{{name}}} ({nearest(name, values)})" for name in unknown)
        raise UsageError(f"unknown placeholder {hints}")
    return tuple(_PLACEHOLDER.sub(lambda m: str(values[m[1]]) if m[1] else f"{{{m[2]}}}", word) for word in command)


def option_value(command: Sequence[str], names: Sequence[str]) -> str | None:
    """The value of an option, `--name value` or `--name=value`; the last one counts."""
    found = None
    for word, following in zip(command, [*command[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else following
    return found


def port_of(command: Sequence[str]) -> int | None:
    """The port that a command names in an option of its own; None where it names none, or {port}."""
    port = option_value(command, ("--port", "-p"))
    return int(port) if port and port.isdecimal() else None


def _fill_known(command: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """The same, but what has no value stays for later."""
    return tuple(_PLACEHOLDER.sub(lambda m: values.get(m[1] or "", m[0]), word) for word in command)


# ---- parameters ------------------------------------------------------------------------------------------------------


def apply_parameters(command: Sequence[str], parameters: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The command with these parameters: each fills {name} where the command has it, else becomes an option.

    An option that is there already, in any spelling (--a-b, --a_b, --a-b=1, --no-a-b, -ab), is replaced where it
    first stands and removed elsewhere. What is not known here: that `-tp` and `--tensor-parallel-size` are one
    option; the long form is appended then, and argparse lets the last one win.
    """
    named = {key: _value(value) for key, value in parameters.items() if key != NAME_KEY}
    present = set(placeholders(command))
    words = _fill_known(command, {key: text for key, text in named.items() if key in present})
    for key, value in parameters.items():
        if key != NAME_KEY and key not in present:
            words = _with_option(words, key, value)
    return words


def _with_option(words: Sequence[str], key: str, value: JsonValue) -> tuple[str, ...]:
    result: list[str] = []
    placed = False
    for option, group in _groups(words, value, key):
        if option is None:
            result += group
        elif not placed:
            result += _option(
                option if option.startswith("-") and option[1:2] != "-" else f"--{_spelled(key)}", key, value
            )
            placed = True
    return tuple(result) if placed else (*_before_separator(words, _option(f"--{_spelled(key)}", key, value)),)


def _groups(words: Sequence[str], value: JsonValue, key: str) -> Iterator[tuple[str | None, list[str]]]:
    """The words in groups: (the option as written, its words) where they set `key`, else (None, [word])."""
    i = 0
    while i < len(words):
        word = words[i]
        if word == "--":
            yield None, list(words[i:])
            return
        option, equals, _ = word.partition("=")
        kind = _match(option, key)
        if kind is None:
            yield None, [word]
            i += 1
            continue
        takes = not equals and kind != "no" and i + 1 < len(words) and _is_value(words, i + 1, isinstance(value, bool))
        yield option, list(words[i : i + 1 + takes])
        i += 1 + takes


def _match(option: str, key: str) -> str | None:
    """Does this word set the parameter? "yes", "no" (as --no-key), or None."""
    if option.startswith("--"):
        written = _spelled(option[2:])
        return "yes" if written == _spelled(key) else "no" if written == f"no-{_spelled(key)}" else None
    if option.startswith("-") and len(option) > 1 and not _NEGATIVE.match(option):
        return "yes" if _spelled(option[1:]) == _spelled(key) else None
    return None


def _is_value(words: Sequence[str], i: int, flag: bool) -> bool:
    """Does words[i] belong to the option before it?

    A flag may be followed by the command's positional word (`vllm serve --enforce-eager MODEL`), which must not be
    lost: vLLM would start another model without a word. So where no positional word came before, only what looks
    like a flag's value (true, 0, {...}) is taken for one.
    """
    word = words[i]
    if word.startswith("-") and not _NEGATIVE.match(word) and word != "-":
        return False
    if not flag or _LITERAL.fullmatch(word):
        return True
    options = [at for at, other in enumerate(words) if other.startswith("-")]
    return "serve" not in words[: options[0]] or words[options[0] - 1] != "serve"


def _option(spelling: str, key: str, value: JsonValue) -> list[str]:
    if isinstance(value, bool):
        if "." in key:
            return [f"{spelling}={_value(value)}"]
        return [spelling] if value else [f"--no-{_spelled(key)}"]
    return [spelling, _value(value)]


def _before_separator(words: Sequence[str], option: Sequence[str]) -> list[str]:
    at = words.index("--") if "--" in words else len(words)
    return [*words[:at], *option, *words[at:]]


def _spelled(key: str) -> str:
    """`_` and `-` are one, up to the first dot."""
    head, dot, rest = key.partition(".")
    return head.replace("_", "-") + dot + rest


def _value(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, Mapping) else str(value)
