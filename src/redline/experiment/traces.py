"""Requests as they once came, from the text of a trace."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redline.experiment.rows import Complaints, plain, rows_of, tokens_of, value_of
from redline.model import Trace, UsageError

# Under which names the published traces keep what is read here; compared without case, blanks and underscores.
TIMES = ("timestamp", "time", "arrival_time", "arrived_at", "arrival", "created_time", "timestamp_ms", "t")
PROMPTS = (
    *("ContextTokens", "Request tokens", "input_length", "prompt_tokens", "input_tokens", "prompt_length"),
    *("num_prefill_tokens", "prompt_len", "input_len", "in"),
)
OUTPUTS = (
    *("GeneratedTokens", "Response tokens", "output_length", "output_tokens", "completion_tokens", "response_length"),
    *("num_decode_tokens", "output_len", "max_tokens", "out"),
)
BLOCKS = ("hash_ids",)
_TIMES, _PROMPTS, _OUTPUTS, _BLOCKS = (tuple(map(plain, names)) for names in (TIMES, PROMPTS, OUTPUTS, BLOCKS))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One row; None where it does not say how long it is."""

    time_s: float
    prompt: int | None
    output: int | None
    blocks: tuple[int | str, ...] = ()  # of the prompt, as the file names them


def parse_trace(text: str, file: str) -> Trace:
    """The trace that a JSONL or CSV text holds; UsageError names every line that cannot be used.

    Only the ratios of its gaps count, so that seconds and milliseconds are alike. Requests of no tokens failed when
    they were recorded, and are left out. Lengths stand in every line or in none. Lines may name the blocks of text that
    their prompts begin with, as Mooncake's do.
    """
    complaints = Complaints()
    entries: list[_Entry] = []
    with_lengths: bool | None = None
    empty = 0
    for line, fields in rows_of(text, complaints):
        found = _entry(fields, with_lengths)
        if isinstance(found, str):
            complaints.add(line, found)
            continue
        with_lengths = found.prompt is not None
        if found.prompt == 0 or found.output == 0:
            empty += 1
        else:
            entries.append(found)
    complaints.tell()
    if len(entries) < 2:
        left_out = f" besides {empty} of no tokens" if empty else ""
        raise UsageError(f"holds {len(entries)} requests{left_out}; a trace needs two at least")
    entries.sort(key=lambda entry: entry.time_s)
    start_s = entries[0].time_s
    if entries[-1].time_s <= start_s:
        raise UsageError("all its requests came at one time, so that it has no gaps to replay")
    kept = entries if with_lengths else []
    blocks, ends = _numbered(kept)
    return Trace(
        file=file,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        times_s=array("d", [entry.time_s - start_s for entry in entries]),
        prompt_tokens=array("i", [entry.prompt or 0 for entry in kept]),
        output_tokens=array("i", [entry.output or 0 for entry in kept]),
        blocks=blocks,
        block_ends=ends if blocks else array("q"),
        has_lengths=bool(with_lengths),
        has_blocks=bool(blocks),
    )


def _numbered(entries: list[_Entry]) -> tuple[array[int], array[int]]:
    """All blocks, numbered from 0 in the order of the first use of each, and where those of each entry end."""
    numbers: dict[int | str, int] = {}
    blocks, ends = array("i"), array("q")
    for entry in entries:
        blocks.extend(numbers.setdefault(block, len(numbers)) for block in entry.blocks)
        ends.append(len(blocks))
    return blocks, ends


def _entry(fields: Mapping[str, Any], with_lengths: bool | None) -> _Entry | str:
    """What a row says, or what is wrong with it."""
    when = value_of(fields, _TIMES)
    if when is None:
        return f"has no time; it stands under one of {', '.join(TIMES)}"
    time_s = _time_s(when)
    if time_s is None:
        return f"{when!r} is no time; write a number, or a date such as 2023-11-16 18:15:46.68"
    lengths = [value_of(fields, names) for names in (_PROMPTS, _OUTPUTS)]
    if lengths == [None, None] and not with_lengths:
        return _Entry(time_s, None, None)
    if None in lengths or with_lengths is False:
        lacks = " and ".join(name for name, value in zip(("prompt", "output"), lengths, strict=True) if value is None)
        return f"has no {lacks} tokens, and other lines have" if lacks else "has tokens, and other lines have none"
    tokens = [tokens_of(value) for value in lengths]
    for value, count in zip(lengths, tokens, strict=True):
        if count is None:
            return f"{value!r} is no number of tokens"
    blocks = _blocks(value_of(fields, _BLOCKS))
    if blocks is None:
        return f"{BLOCKS[0]}: {value_of(fields, _BLOCKS)!r} is no list of numbers or names"
    return _Entry(time_s, tokens[0], tokens[1], blocks)


def _blocks(value: object) -> tuple[int | str, ...] | None:
    """As a list, or as the text of one in JSON; None for what is neither. Exports write 1 as 1.0 too."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list | None):
        return None
    blocks = tuple(int(v) if isinstance(v, float) and v.is_integer() else v for v in value or ())
    return blocks if all(type(block) in (int, str) for block in blocks) else None


def _time_s(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float, str)):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    try:
        return datetime.fromisoformat(str(value).strip()).timestamp()
    except (ValueError, OverflowError):
        return None
