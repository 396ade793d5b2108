"""How a server counts: its context, the tokens of a word and of a chat template, the sizes of a file's prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from redline import lengths
from redline.loadgen.learning import Learning, Reply
from redline.loadgen.payload import Payloads, Shape, longest, pieces, room
from redline.loadgen.written import text_of
from redline.model import Dataset, UsageError, Workload
from redline.talks import mean_turns

FIRST_WORDS = 8  # of the first request
_LEAST_WORDS, _MOST_WORDS = 128, 2_048  # of the one that learns tokens per word
_SAMPLE = 2_000  # requests over which the share that must be cut is estimated


def context_limit(learning: Learning) -> int | None:
    """`max_model_len` as vLLM and SGLang tell it with the model; None where nothing is told."""
    reply = learning.ask("GET", "/v1/models", None)
    if reply.code in (401, 403) or 300 <= reply.code < 400:
        raise learning.refused(reply)
    models = [entry for entry in reply.json.get("data") or () if isinstance(entry, dict)]
    learning.served = [str(entry.get("id")) for entry in models]
    limits = [entry.get("max_model_len") for entry in models if entry.get("id") == learning.model]
    return next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)


def check_context(learning: Learning, limit: int | None) -> None:
    """UsageError where made-up requests do not fit, a warning where some are cut."""
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
    if workload.turns is not None and (whole := mean_turns(workload.turns) * typical) > limit:
        learning.warnings.append(
            f"conversations come to {whole:,.0f} tokens on average, and the context takes {limit:,}: "
            "their oldest turns are left out"
        )
    cut = float(np.mean(room_of(prompts) + outputs > limit))
    if cut:
        learning.warnings.append(
            f"about {max(100 * cut, 0.1):.1f}% of the requests are cut to fit the context of {limit} tokens"
        )


def room_of(prompts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`room` of many."""
    return np.array([room(int(tokens)) for tokens in prompts])


def calibrated(learning: Learning, shape: Shape, first: Reply) -> Shape:
    """With the tokens of a word and of the chat template, from two prompts of different length."""
    if shape.ids is not None:
        return replace(shape, tokens_per_word=1.0, extra_tokens=0.0)
    words = min(max(pieces(shape, round(learning.workload.prompt.mean)), _LEAST_WORDS), _MOST_WORDS)
    if shape.context_limit is not None:
        a_word = max(first.tokens_in, FIRST_WORDS) / FIRST_WORDS  # with its share of the template, so rather too much
        words = max(min(words, int(shape.context_limit / 2 / a_word)), 2 * FIRST_WORDS)
    short, long = _prompt_tokens(learning, shape, FIRST_WORDS, first), _prompt_tokens(learning, shape, words, None)
    per_word = (long - short) / (words - FIRST_WORDS)
    if (vocabulary := learning.workload.tokenizer) is not None:
        if short < 0 or long < 0:
            learning.warnings.append("the server does not tell how long prompts are: those of a template do not count")
            return replace(shape, tokens_per_word=1.0, extra_tokens=0.0)
        if per_word != 1:
            learning.warnings.append(
                f"{vocabulary.file} is not how {learning.model} counts: {words - FIRST_WORDS:,} tokens by the one are "
                f"{long - short:,} by the other; lengths go by what the server counts"
            )
    if short < 0 or long < 0 or not 0.2 < per_word < 50:
        learning.warnings.append(
            f"the server does not tell how long prompts are: {shape.tokens_per_word:g} tokens per word are assumed"
        )
        return shape
    return replace(shape, tokens_per_word=per_word, extra_tokens=max(short - per_word * FIRST_WORDS, 0.0))


def _prompt_tokens(learning: Learning, shape: Shape, words: int, reply: Reply | None) -> int:
    """Of a prompt of so many words, from the reply to one where there is one; -1 where it is not told."""
    if reply is not None and reply.tokens_in >= 0:
        return reply.tokens_in
    learning.seed += reply is None
    payloads = Payloads(learning.target, learning.model, learning.workload, shape, learning.seed)
    return _counted(learning, payloads.body(0, words, 1), told=reply is None)


def _counted(learning: Learning, body: bytes, *, told: bool = True) -> int:
    """Prompt tokens by usage, of a stream where it is `told` there, else of an answer in one piece; -1 in neither."""
    if told:
        reply = learning.ask("POST", learning.path, body)
        if reply.code >= 300 or reply.code == 0:
            raise learning.refused(reply)
        if reply.tokens_in >= 0:
            return reply.tokens_in
    whole = orjson.loads(body)
    whole.pop("stream_options", None)
    usage = learning.ask("POST", learning.path, orjson.dumps({**whole, "stream": False})).json.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else -1


def with_sizes(learning: Learning, shape: Shape, workload: Workload) -> Workload:
    """The workload with the sizes of its own prompts in tokens, by what the server counts of some of them."""
    dataset = workload.dataset
    if dataset is None:
        return workload
    most = longest(shape)
    if not len(dataset.prompt_tokens):
        dataset = _estimated(learning, shape, dataset, most)
    fits = lengths.prompt_tokens(dataset) <= (most or np.inf)
    if most is not None and not fits.all():
        if not fits.any():
            raise UsageError(
                f"no prompt of {dataset.file} fits the {shape.context_limit} tokens that {learning.model} at "
                f"{learning.target.origin} takes; shorten the prompts or raise the server's limit"
            )
        learning.warnings.append(
            f"{int(np.sum(~fits)):,} of the {len(fits):,} prompts of {dataset.file} do not fit the context of "
            f"{shape.context_limit} tokens, and are left out"
        )
        dataset = replace(dataset, most_tokens=most)
    return replace(workload, dataset=dataset)


def _estimated(learning: Learning, shape: Shape, dataset: Dataset, most: int | None) -> Dataset:
    """With the tokens of a byte, from what the server counts of some prompts."""
    sample = _some_text(dataset, 4 * min(_MOST_WORDS, (most or _MOST_WORDS) // 8))
    learning.seed += 1
    payloads = Payloads(learning.target, learning.model, learning.workload, shape, learning.seed)
    count = _counted(learning, payloads.opened(orjson.dumps(sample), 1))
    known = count - shape.extra_tokens - FIRST_WORDS * shape.tokens_per_word
    if count < 0 or known <= 0:
        learning.warnings.append("the server does not tell how long prompts are: four bytes per token are assumed")
        return dataset
    return replace(dataset, tokens_per_byte=known / len(sample.encode()))


def _some_text(dataset: Dataset, size: int) -> str:
    """The beginnings of prompts from all over the file, about `size` characters together."""
    count = min(len(dataset.sizes), 32)
    places = np.linspace(0, len(dataset.sizes) - 1, count).astype(int).tolist()
    return "\n".join(text_of(dataset.prompt(place))[: max(size // count, 16)] for place in places)
