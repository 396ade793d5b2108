"""What a server takes and how it counts, learnt from a few short requests before anything is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import orjson

from redline import lengths
from redline.loadgen.payload import PATHS, Payloads, Shape, Target, pieces, room
from redline.model import JsonValue, RedlineError, UsageError, Workload

_WORDS, _ASKED = 8, 8  # of the first request
_LEAST_WORDS, _MOST_WORDS = 128, 2_048  # of the one that learns tokens per word
_ID_RANGES = ((1_000, 30_000), (300, 1_900), (100, 250))  # above the special tokens of most vocabularies
_BAD_REQUEST = (400, 422)
_SAMPLE = 2_000  # requests over which the share that must be cut is estimated
_OFF = 0.05  # outputs further off the asked length are worth a warning
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What one request brought."""

    ok: bool
    words: str
    code: int
    broken: str
    headers: dict[str, str]
    streamed: bool
    events: int
    tokens_in: int
    tokens_out: int
    finish: str | None
    first_s: float | None
    body: bytes = b""

    @property
    def json(self) -> dict[str, Any]:
        """The body, where it is a JSON object."""
        try:
            answer = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return answer if isinstance(answer, dict) else {}


Ask: TypeAlias = Callable[[str, str, bytes | None], Reply]
"""Method, path, body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """How to ask, what is known, and what the user should hear."""

    shape: Shape
    facts: dict[str, JsonValue]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Learning:
    """One preflight under way."""

    ask: Ask
    target: Target
    model: str
    workload: Workload
    served: Sequence[str] = ()
    warnings: list[str] = field(default_factory=list)
    seed: int = field(default_factory=lambda: time.time_ns() % (1 << 40))  # no prompt twice, even over sessions

    @property
    def path(self) -> str:
        return PATHS[self.workload.api]

    def send(self, shape: Shape, words: int, asked: int) -> Reply:
        self.seed += 1
        payloads = Payloads(self.target, self.model, self.workload, shape, self.seed)
        return self.ask("POST", self.path, payloads.body(0, words, asked))

    def refused(self, reply: Reply) -> RedlineError:
        """What the server said, and what to do."""
        url = self.target.origin + self.path
        if reply.code == 0:
            return RedlineError(f"POST {url} got no usable answer: {reply.broken}; check the URL and the server's log")
        if 300 <= reply.code < 400:
            there = reply.headers.get("location", "an unnamed place")
            return RedlineError(f"POST {url} redirects to {there}; give the address that it redirects to")
        if reply.code in (401, 403):
            cure = "name the variable that holds the key with --api-key-env, or send it with --header"
        elif reply.code == 404:
            serves = f"; it serves {', '.join(self.served)}" if self.served else ""
            cure = f"check the URL and --model ({self.model!r} was asked for{serves})"
        elif reply.code in (429, 503):
            cure = "it rejects a single request: wait until it is ready, or raise its limits"
        elif reply.code >= 400:
            cure = "change the workload (--workload, --api, --model) so that the server takes it; its log may say more"
        elif not reply.streamed:
            cure = 'Redline measures streamed tokens: the server must answer "stream": true with server-sent events'
        else:
            cure = "check the server's log"
        return RedlineError(f"POST {url} failed in preflight: {reply.words}; {cure}")


def preflight(ask: Ask, target: Target, model: str, workload: Workload) -> Preflight:
    """Learn what this server takes. RedlineError where it cannot be measured, UsageError where the workload is why."""
    if workload.prompt_kind == "tokens" and workload.api != "completions":
        raise UsageError(f'workload {workload.name!r} sends token ids, which only api = "completions" takes; set that')
    learning = _Learning(ask=ask, target=target, model=model, workload=workload)
    learning.warnings += _proxies()
    limit = _context_limit(learning)
    shape, first = _accepted(learning)
    shape = replace(shape, context_limit=limit)
    _check_context(learning, limit)
    if shape.include_usage and first.tokens_out < 0:
        learning.warnings.append("the server sends no usage: output tokens are counted as one per content event")
    shape = _calibrated(learning, shape, first)
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
    return Preflight(shape=shape, facts=facts, warnings=tuple(learning.warnings))


# ---- which options ----


def _accepted(learning: _Learning) -> tuple[Shape, Reply]:
    """The fullest request that the server takes, and its answer."""
    eos = learning.workload.ignore_eos
    full = Shape(
        ignore_eos=eos, min_tokens=eos, ids=_ids(learning) if learning.workload.prompt_kind == "tokens" else None
    )
    shape, reply = full, learning.send(full, _WORDS, _ASKED)
    first = reply
    while reply.code in _BAD_REQUEST and (named := _without_named(shape, reply.words)) is not None:
        shape, reply = named, learning.send(named, _WORDS, _ASKED)
    for less in _simpler(full):
        if reply.code not in _BAD_REQUEST:
            break
        shape, reply = less, learning.send(less, _WORDS, _ASKED)
    if reply.code in _BAD_REQUEST:
        raise learning.refused(first)  # without its options it is refused too: the first words are about the cause
    if not reply.ok:
        raise learning.refused(reply)
    if _came(reply) > _ASKED and shape.length_field == "max_tokens":
        other = replace(shape, length_field="max_completion_tokens")
        again = learning.send(other, _WORDS, _ASKED)
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


def _ids(learning: _Learning) -> tuple[int, int]:
    """The widest range of token ids of which the server takes the highest."""
    first: Reply | None = None
    for low, high in _ID_RANGES:
        plain = Shape(ids=(high - 32, high), min_tokens=False, ignore_eos=False, include_usage=False)
        reply = learning.send(plain, _WORDS, 1)
        if reply.code == 200 and reply.streamed and not reply.broken:
            return low, high
        first = first or reply
    assert first is not None  # there are ranges
    if first.code in (*_BAD_REQUEST, 200, 500):  # 200: vLLM opens the stream, and then says that an id is unknown
        url = learning.target.origin + learning.path
        raise RedlineError(f'POST {url} takes no token ids as a prompt: {first.words}; use prompt_kind = "text"')
    raise learning.refused(first)


def _warn_of_options(learning: _Learning, full: Shape, shape: Shape, reply: Reply) -> None:
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


# ---- how long ----


def _context_limit(learning: _Learning) -> int | None:
    """`max_model_len` as vLLM and SGLang tell it with the model; None where nothing is told."""
    reply = learning.ask("GET", "/v1/models", None)
    if reply.code in (401, 403) or 300 <= reply.code < 400:
        raise learning.refused(reply)
    models = [entry for entry in reply.json.get("data") or () if isinstance(entry, dict)]
    learning.served = [str(entry.get("id")) for entry in models]
    limits = [entry.get("max_model_len") for entry in models if entry.get("id") == learning.model]
    return next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)


def _check_context(learning: _Learning, limit: int | None) -> None:
    if limit is None:
        return
    workload = learning.workload
    prompts, outputs = lengths.tokens(workload, 0, 0, _SAMPLE)
    typical = float(np.mean(prompts) + np.mean(outputs))
    if typical > limit:
        raise UsageError(
            f"workload {workload.name!r} asks for {typical:.0f} tokens of prompt and output on average, and "
            f"{learning.model} at {learning.target.origin} takes {limit}; "
            "shorten the workload or raise the server's limit"
        )
    cut = float(np.mean(room_of(prompts) + outputs > limit))
    if cut:
        learning.warnings.append(
            f"about {max(100 * cut, 0.1):.1f}% of the requests are cut to fit the context of {limit} tokens"
        )


def room_of(prompts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`room` of many."""
    return np.array([room(int(tokens)) for tokens in prompts])


def _calibrated(learning: _Learning, shape: Shape, first: Reply) -> Shape:
    """With the tokens of a word and of the chat template, from two prompts of different length."""
    if shape.ids is not None:
        return replace(shape, tokens_per_word=1.0, extra_tokens=0.0)
    words = min(max(pieces(shape, round(learning.workload.prompt.mean)), _LEAST_WORDS), _MOST_WORDS)
    if shape.context_limit is not None:
        a_word = max(first.tokens_in, _WORDS) / _WORDS  # with its share of the template, so rather too much
        words = max(min(words, int(shape.context_limit / 2 / a_word)), 2 * _WORDS)
    short, long = _prompt_tokens(learning, shape, _WORDS, first), _prompt_tokens(learning, shape, words, None)
    per_word = (long - short) / (words - _WORDS)
    if short < 0 or long < 0 or not 0.2 < per_word < 50:
        learning.warnings.append(
            f"the server does not tell how long prompts are: {shape.tokens_per_word:g} tokens per word are assumed"
        )
        return shape
    return replace(shape, tokens_per_word=per_word, extra_tokens=max(short - per_word * _WORDS, 0.0))


def _prompt_tokens(learning: _Learning, shape: Shape, words: int, reply: Reply | None) -> int:
    """From usage, of a stream where it is told there, else of an answer in one piece; -1 where neither tells."""
    if reply is not None and reply.tokens_in >= 0:
        return reply.tokens_in
    if reply is None:
        reply = learning.send(shape, words, 1)
        if reply.code >= 300 or reply.code == 0:
            raise learning.refused(reply)
        if reply.tokens_in >= 0:
            return reply.tokens_in
    payloads = Payloads(learning.target, learning.model, learning.workload, shape, learning.seed)
    body = orjson.loads(payloads.body(0, words, 1))
    body.pop("stream_options", None)
    usage = learning.ask("POST", learning.path, orjson.dumps({**body, "stream": False})).json.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else -1


def _proxies() -> list[str]:
    named = [name for name in os.environ if name.lower() in _PROXIES and os.environ[name]]
    if not named:
        return []
    return [f"{', '.join(sorted(named))} is set: requests go to the server directly, not through that proxy"]
