"""Prompts that somebody wrote, one after the other: none is sent twice alike unless asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from redline import lengths
from redline.loadgen.prompts import Prompts
from redline.model import Dataset, Workload

_BLOCK = 256  # places in the order are drawn this many at a time


class Written:
    """The prompts of a file in the order of a seed."""

    def __init__(self, workload: Workload, dataset: Dataset, seed: int, prompts: Prompts) -> None:
        self._dataset, self._seed, self._prompts = dataset, seed, prompts
        self._again = workload.repeat
        self._start = 0
        self._block: list[int] = []

    def prompt(self, i: int) -> tuple[bytes, dict[str, Any]]:
        """JSON of the text or messages that request `i` sends, and what else its body holds."""
        if not 0 <= i - self._start < len(self._block):
            self._start = i
            self._block = lengths.entries(self._dataset, self._seed, i, _BLOCK).tolist()
        entry = self._block[i - self._start]
        prompt, own = self._dataset.prompt(entry), self._dataset.own(entry)
        if not self._again and lengths.round_of(self._dataset, i):
            prompt = opened(prompt, self._prompts.opening(i))
        return prompt, orjson.loads(own) if own else {}


def in_api(prompt: bytes, api: str) -> bytes:
    """A prompt as a member of a body."""
    if api != "chat":
        return b'"prompt":' + prompt
    if prompt[:1] == b"[":
        return b'"messages":' + prompt
    return b'"messages":[{"role":"user","content":%s}]' % prompt


def text_of(prompt: bytes) -> str:
    """All of a prompt that is text."""
    said = orjson.loads(prompt)
    contents = [said] if isinstance(said, str) else [message.get("content") for message in said]
    parts = [part for content in contents for part in (content if isinstance(content, list) else [content])]
    return "\n".join(part.get("text", "") if isinstance(part, dict) else part or "" for part in parts)


def opened(prompt: bytes, opening: str) -> bytes:
    """With these words before it: of messages, before the first that is no system message, since what all requests
    share stays in the cache of a server in production too.
    """
    if prompt[:1] == b'"':
        return b'"%s ' % opening.encode() + prompt[1:]
    messages = orjson.loads(prompt)
    message = next((entry for entry in messages if entry["role"] not in ("system", "developer")), messages[0])
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [{"type": "text", "text": opening}, *content]
    else:
        message["content"] = f"{opening} {content or ''}"
    return orjson.dumps(messages)


class Place:
    """How far the trials of one session have come in the prompts of a file."""

    def __init__(self, dataset: Dataset | None) -> None:
        self._order: int | None = None
        self._used = dataset.first if dataset else 0

    def of(self, workload: Workload, seed: int) -> Workload:
        """As the next trial sends it: it begins where the one before ended.

        Until `sent` says how far it came, all of this round counts as sent.
        """
        dataset = workload.dataset
        if dataset is None or workload.repeat:
            return workload
        if self._order is None:
            self._order = seed
        placed = replace(workload, dataset=replace(dataset, order=self._order, first=self._used))
        whole = lengths.usable_prompts(dataset)
        self._used += whole - self._used % whole
        return placed

    def sent(self, placed: Workload, requests: int) -> str | None:
        """The trial has sent so many; what the user should hear of it."""
        dataset = placed.dataset
        if dataset is None or placed.repeat:
            return None
        self._used = dataset.first + requests
        whole = lengths.usable_prompts(dataset)
        if self._used <= whole:
            return None
        return (
            f"{dataset.file} has {whole:,} prompts, and this server had them before, or may have: each repeat begins "
            "with a few words of its own, so that no prefix cache holds it (repeat = true sends them as they are)"
        )
