"""Token counts of requests: sampled so that request i's depends only on the distribution, the seed and i."""

from __future__ import annotations

import math
import zlib
from statistics import NormalDist  # scipy.special would double the load worker's start and memory
from typing import Literal

import numpy as np

from redline import arrivals
from redline.model import Lengths, Workload
from redline.records import Ints

_INVERSE = NormalDist().inv_cdf
_WORDS = 4  # Philox gives four 64-bit words per step of its counter


def tokens(workload: Workload, seed: int, start: int, count: int) -> tuple[Ints, Ints]:
    """Prompt and output tokens of requests start..start+count-1: from the trace where it has them, else sampled."""
    trace = workload.trace
    if trace is not None and trace.has_lengths:
        first = arrivals.first_entry(trace, seed)
        entries = np.arange(first + start, first + start + count) % len(trace.times_s)
        return np.asarray(trace.prompt_tokens)[entries], np.asarray(trace.output_tokens)[entries]
    return (
        sample(workload.prompt, seed, start, count, "prompt"),
        sample(workload.output, seed, start, count, "output"),
    )


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
