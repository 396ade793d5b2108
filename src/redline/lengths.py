"""Token counts of requests: sampled so that request i's depends only on the distribution, the seed and i."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from statistics import NormalDist  # scipy.special would double the load worker's start and memory
from typing import Literal

import numpy as np

from redline import arrivals
from redline.model import Dataset, Lengths, Workload
from redline.records import Ints

_INVERSE = NormalDist().inv_cdf
_ORDER = 0xD5  # separates this stream of a seed from others
_WORDS = 4  # Philox gives four 64-bit words per step of its counter


def tokens(workload: Workload, seed: int, start: int, count: int) -> tuple[Ints, Ints]:
    """Prompt and output tokens of requests start..start+count-1: from a file where it has them, else sampled."""
    prompts, outputs = _drawn(workload, seed, start, count)
    if workload.max_tokens is not None:
        outputs = np.minimum(outputs, workload.max_tokens)
    return prompts, outputs


def _drawn(workload: Workload, seed: int, start: int, count: int) -> tuple[Ints, Ints]:
    trace, dataset = workload.trace, workload.dataset
    if dataset is not None:
        chosen = entries(dataset, seed, start, count)
        prompts = prompt_tokens(dataset)[chosen]
        if dataset.has_lengths:
            return prompts, np.asarray(dataset.output_tokens)[chosen]
        return prompts, sample(workload.output, seed, start, count, "output")
    if trace is not None and trace.has_lengths:
        first = arrivals.first_entry(trace, seed)
        turns = np.arange(first + start, first + start + count) % len(trace.times_s)
        return np.asarray(trace.prompt_tokens)[turns], np.asarray(trace.output_tokens)[turns]
    return (
        sample(workload.prompt, seed, start, count, "prompt"),
        sample(workload.output, seed, start, count, "output"),
    )


# ---- prompts of a file -----------------------------------------------------------------------------------------------


def prompt_tokens(dataset: Dataset) -> Ints:
    """Of each of its prompts, as counted or from its bytes; never none."""
    if len(dataset.prompt_tokens):
        return np.maximum(np.asarray(dataset.prompt_tokens, np.int32), 1)
    return np.maximum(np.rint(np.asarray(dataset.sizes) * dataset.tokens_per_byte), 1).astype(np.int32)


def entries(dataset: Dataset, seed: int, start: int, count: int) -> Ints:
    """Which prompts requests start..start+count-1 of a trial send: each round has all, in an order of its own."""
    usable = _usable(dataset)
    rounds, places = np.divmod(np.arange(dataset.first + start, dataset.first + start + count), len(usable))
    order = seed if dataset.order is None else dataset.order
    chosen = np.empty(count, np.int64)
    for nth in np.unique(rounds).tolist():
        mask = rounds == nth
        chosen[mask] = usable[_shuffled(len(usable), order, nth)[places[mask]]]
    return chosen.astype(np.int32)


def round_of(dataset: Dataset, i: int) -> int:
    """How often all prompts were sent before request `i` of a trial."""
    return (dataset.first + i) // len(_usable(dataset))


def usable_prompts(dataset: Dataset) -> int:
    """How many prompts there are, without those that are too long."""
    return len(_usable(dataset))


@lru_cache(maxsize=16)  # asked for again with each block of requests
def _usable(dataset: Dataset) -> Ints:
    tokens = prompt_tokens(dataset)
    fits = tokens <= (dataset.most_tokens or tokens.max())
    return np.flatnonzero(fits).astype(np.int32)


@lru_cache(maxsize=4)
def _shuffled(count: int, order: int, nth: int) -> Ints:
    return np.random.default_rng([_ORDER, abs(order), nth]).permutation(count).astype(np.int32)


# ---- made-up lengths -------------------------------------------------------------------------------------------------


def sample(
    lengths: Lengths, seed: int, start: int, count: int, stream: Literal["prompt", "output"] | str = "prompt"
) -> Ints:
    """The token counts of requests start..start+count-1; any split into calls gives the same numbers.

    `stream` separates quantities of one request, so that long prompts do not come with long outputs.
    One counter step serves four requests; a sampler that rejects (as numpy's normal does) could not start anywhere.
    """
    if count <= 0:
        return np.zeros(0, np.int32)
    if lengths.cv <= 0 or lengths.low >= lengths.high:
        fixed = min(max(round(lengths.mean), lengths.low), lengths.high)
        return np.full(count, fixed, np.int32)
    skip = start % _WORDS
    key = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF, zlib.crc32(stream.encode())], np.uint64)
    raw = np.random.Philox(key=key, counter=[start // _WORDS, 0, 0, 0]).random_raw(count + skip)[skip:]
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    variance = math.log1p(lengths.cv**2)
    normal = np.array([_INVERSE(u) for u in uniform.tolist()])
    tokens = np.exp(math.log(lengths.mean) - variance / 2 + math.sqrt(variance) * normal)
    return np.clip(np.rint(tokens), lengths.low, lengths.high).astype(np.int32)
