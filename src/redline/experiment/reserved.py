"""Fields of a request's body that have a setting of their own, and so are no extra fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

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
