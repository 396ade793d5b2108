"""What a server takes and how it counts, learnt from a few short requests before anything is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from redline.loadgen.counting import FIRST_WORDS, calibrated, check_context, context_limit, with_sizes
from redline.loadgen.learning import Ask, Learning, Reply
from redline.loadgen.payload import Shape, Target
from redline.model import JsonValue, RedlineError, UsageError, Workload

_ASKED = 8  # tokens of the first request
_ID_RANGES = ((1_000, 30_000), (300, 1_900), (100, 250))  # above the special tokens of most vocabularies
_BAD_REQUEST = (400, 422)
_OFF = 0.05  # outputs further off the asked length are worth a warning
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """How to ask, what is known, and what the user should hear."""

    shape: Shape
    workload: Workload  # with what was learnt of the prompts of its file
    facts: dict[str, JsonValue]
    warnings: tuple[str, ...]


def preflight(ask: Ask, target: Target, model: str, workload: Workload) -> Preflight:
    """Learn what this server takes. RedlineError where it cannot be measured, UsageError where the workload is why."""
    if workload.prompt_kind == "tokens" and workload.api != "completions":
        raise UsageError(f'workload {workload.name!r} sends token ids, which only api = "completions" takes; set that')
    if workload.dataset is not None and workload.api != "chat" and workload.dataset.first_chat() is not None:
        raise UsageError(f'{workload.dataset.file} holds messages, which only api = "chat" takes; set that')
    learning = Learning(ask=ask, target=target, model=model, workload=_fullest(workload))
    learning.warnings += _proxies()
    limit = context_limit(learning)
    shape, first = _accepted(learning)
    shape = replace(shape, context_limit=limit)
    if workload.dataset is None:
        check_context(learning, limit)
    if shape.include_usage and first.tokens_out < 0:
        learning.warnings.append("the server sends no usage: output tokens are counted as one per content event")
    shape = calibrated(learning, shape, first)
    workload = with_sizes(learning, shape, workload)
    facts: dict[str, JsonValue] = {
        "path": learning.path,
        "length_field": shape.length_field,
        "stream_options": shape.include_usage,
        "usage": first.tokens_out >= 0,
        "ignore_eos": shape.ignore_eos,
        "min_tokens": shape.min_tokens,
        "max_model_len": limit,
        "tokens_per_word": round(shape.tokens_per_word, 4),
        "template_tokens": round(shape.extra_tokens, 1),
        "token_ids": list(shape.ids) if shape.ids else None,
        "server_header": first.headers.get("server"),
        "first_token_s": first.first_s,
    }
    if workload.dataset is not None:
        facts["tokens_per_byte"] = round(workload.dataset.tokens_per_byte, 4)
    return Preflight(shape=shape, workload=workload, facts=facts, warnings=tuple(learning.warnings))


# ---- which options ----


def _fullest(workload: Workload) -> Workload:
    """With every option that one of its requests asks for."""
    names = workload.dataset.names if workload.dataset is not None else ()
    return replace(workload, ignore_eos=workload.ignore_eos or "ignore_eos" in names)


def _accepted(learning: Learning) -> tuple[Shape, Reply]:
    """The fullest request that the server takes, and its answer."""
    workload = learning.workload
    eos = workload.ignore_eos
    names = workload.dataset.names if workload.dataset is not None else ()
    least = eos or workload.min_tokens is not None or "min_tokens" in names
    full = Shape(
        ignore_eos=eos, min_tokens=least, ids=_ids(learning) if learning.workload.prompt_kind == "tokens" else None
    )
    shape, reply = full, learning.send(full, FIRST_WORDS, _ASKED)
    first = reply
    while reply.code in _BAD_REQUEST and (named := _without_named(shape, reply.words)) is not None:
        shape, reply = named, learning.send(named, FIRST_WORDS, _ASKED)
    for less in _simpler(full):
        if reply.code not in _BAD_REQUEST:
            break
        shape, reply = less, learning.send(less, FIRST_WORDS, _ASKED)
    if reply.code in _BAD_REQUEST:
        raise learning.refused(first)  # without its options it is refused too: the first words are about the cause
    if not reply.ok:
        raise learning.refused(reply)
    if _came(reply) > _ASKED and shape.length_field == "max_tokens":
        other = replace(shape, length_field="max_completion_tokens")
        again = learning.send(other, FIRST_WORDS, _ASKED)
        if again.ok and _came(again) <= _ASKED:
            shape, reply = other, again
    _warn_of_options(learning, full, shape, reply)
    return shape, reply


def _simpler(full: Shape) -> Iterator[Shape]:
    """Ways to ask for less, when the server does not name what it refuses."""
    bare = replace(full, min_tokens=False, ignore_eos=False, include_usage=False)
    without_eos, without_usage = replace(bare, include_usage=True), replace(full, include_usage=False)
    yield from (replace(full, min_tokens=False), without_usage, without_eos, bare)
    for less in (full, without_usage, without_eos, bare):
        yield replace(less, length_field="max_completion_tokens")


def _without_named(shape: Shape, words: str) -> Shape | None:
    if shape.min_tokens and "min_tokens" in words:
        return replace(shape, min_tokens=False)
    if shape.ignore_eos and "ignore_eos" in words:
        return replace(shape, ignore_eos=False, min_tokens=False)
    if shape.include_usage and ("stream_options" in words or "include_usage" in words):
        return replace(shape, include_usage=False)
    if shape.length_field == "max_tokens" and "max_completion_tokens" in words:
        return replace(shape, length_field="max_completion_tokens")
    return None


def _ids(learning: Learning) -> tuple[int, int]:
    """The widest range of token ids of which the server takes the highest."""
    first: Reply | None = None
    for low, high in _ID_RANGES:
        plain = Shape(ids=(high - 32, high), min_tokens=False, ignore_eos=False, include_usage=False)
        reply = learning.send(plain, FIRST_WORDS, 1)
        if reply.code == 200 and reply.streamed and not reply.broken:
            return low, high
        first = first or reply
    assert first is not None  # there are ranges
    if first.code in (*_BAD_REQUEST, 200, 500):  # 200: vLLM opens the stream, and then says that an id is unknown
        url = learning.target.origin + learning.path
        raise RedlineError(f'POST {url} takes no token ids as a prompt: {first.words}; use prompt_kind = "text"')
    raise learning.refused(first)


def _warn_of_options(learning: Learning, full: Shape, shape: Shape, reply: Reply) -> None:
    if full.ignore_eos and not shape.ignore_eos:
        learning.warnings.append("the server refused ignore_eos: outputs may end before the length that was asked for")
    if full.include_usage and not shape.include_usage:
        learning.warnings.append(
            "the server refused stream_options: output tokens are counted as one per content event"
        )
    came = _came(reply)
    if came > _ASKED:
        learning.warnings.append(
            f"the server ignored {shape.length_field}: it sent {came} tokens where {_ASKED} were asked for"
        )
    elif shape.ignore_eos and came < (1 - _OFF) * _ASKED and reply.tokens_out >= 0:
        learning.warnings.append(f"the server ignored ignore_eos: it sent {came} tokens where {_ASKED} were asked for")


def _came(reply: Reply) -> int:
    return reply.tokens_out if reply.tokens_out >= 0 else reply.events


def _proxies() -> list[str]:
    named = [name for name in os.environ if name.lower() in _PROXIES and os.environ[name]]
    if not named:
        return []
    return [f"{', '.join(sorted(named))} is set: requests go to the server directly, not through that proxy"]
