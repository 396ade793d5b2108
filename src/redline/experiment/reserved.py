"""What further fields of a request's body cannot be or hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Literal

_DEEPEST = 200
_TOO_DEEP = f"more than {_DEEPEST} lists or tables in each other"
_NOT_OURS = {
    "model": "the model is asked from the server, or named by model (--model)",
    "stream": "requests always stream",
    "stream_options": "usage is always asked for where the server takes that",
    "n": "each request gets one answer",
}
_OF_WORKLOADS = {
    **_NOT_OURS,
    "messages": "prompts of your own come from a file: dataset",
    "prompt": "prompts of your own come from a file: dataset",
    "max_tokens": "write max_tokens, or output, beside extra",
    "max_completion_tokens": "write max_tokens, or output, beside extra",
    "min_tokens": "write min_tokens beside extra",
    "ignore_eos": "write ignore_eos beside extra",
}
_OF_LINES = {
    **_NOT_OURS,
    **dict.fromkeys(("messages", "prompt", "min_tokens", "ignore_eos"), "write it beside extra"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "write output_tokens beside extra"),
}


def misplaced(names: Iterable[str], where: Literal["workload", "line"]) -> list[str]:
    """For each of these names that extra cannot hold, where to say it instead."""
    table = _OF_WORKLOADS if where == "workload" else _OF_LINES
    return [f"{name} does not belong here: {table[name]}" for name in names if name in table]


def unsendable(value: object) -> str:
    """What it holds that no request can say; empty where one can."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "half a character (a lone surrogate), which no server takes"
    except (TypeError, ValueError) as error:
        return f"what JSON cannot say: {str(error).lower()}"
    except RecursionError:
        return _TOO_DEEP
    return _beyond(value, 0)


def _beyond(value: object, depth: int) -> str:
    """What of a JSON value is more than common readers take."""
    if isinstance(value, int):
        return "" if -(1 << 63) <= value < 1 << 64 else "a number of more than 64 bits"
    if not isinstance(value, (Mapping, list)):
        return ""
    if depth == _DEEPEST:
        return _TOO_DEEP
    parts = value.values() if isinstance(value, Mapping) else value
    return next(filter(None, (_beyond(part, depth + 1) for part in parts)), "")
