"""A measurement of ours as the result that `vllm bench serve --save-result --save-detailed` writes.

Keys, types and formulae are those of vLLM 0.32, over the whole run: sums over its duration, numpy's linear percentiles
and population deviations, latencies from the moment of sending, finished requests only. docs/reference/bench.md says
where what goes into them is counted otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from redline.model import UsageError, Variable, Workload
from redline.records import Floats, Records, Status
from redline.sla import percentile_word
from redline.units import nearest

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
GOODPUT = ("ttft", "tpot", "e2el")  # what a bound can be on
_ENDPOINTS = {"chat": "openai-chat", "completions": "openai"}
_WORDS = {Status.FAILED: "failed", Status.REJECTED: "rejected (429 or 503)", Status.TIMED_OUT: "timed out"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the client was told, which the result repeats."""

    by: Variable
    load: float
    workload: Workload
    model: str
    began: datetime  # local time, as vLLM has it
    label: str | None = None
    goodput_ms: Mapping[str, float] = field(default_factory=dict)  # ttft, tpot, e2el -> bound on one request
    percentiles: Sequence[float] = PERCENTILES
    detailed: bool = False  # with a list for each thing that is known of each request


def is_bound(word: str) -> bool:
    """Is it a bound as --goodput takes it, such as ttft:200?"""
    return word.partition(":")[0].removesuffix("_ms") in GOODPUT


def goodput_of(words: Iterable[str]) -> dict[str, float]:
    """Bounds in ms from `ttft:200`, `tpot_ms:50`, or several of them in one text."""
    bounds: dict[str, float] = {}
    for word in " ".join(words).split():
        name, _, text = word.partition(":")
        if not is_bound(word):
            raise UsageError(f"--goodput {word}: {nearest(name, GOODPUT)}; write ttft:200, in ms")
        try:
            bound = float(text.removesuffix("ms"))
        except ValueError:
            bound = math.nan
        if not bound >= 0:
            raise UsageError(f"--goodput {word}: {text!r} is no number of ms; write {name}:200")
        if bounds.setdefault(name.removesuffix("_ms"), bound) != bound:
            raise UsageError(f"--goodput: {name} has two bounds; keep one")
    return bounds


def percentiles_of(text: str) -> tuple[float, ...]:
    """Percentiles from `50,99.9`, in ascending order."""
    try:
        found = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        found = []
    if not found or not all(0 <= p <= 100 for p in found):
        raise UsageError(f"--metric-percentiles {text!r}: write numbers between 0 and 100, such as 50,99,99.9")
    return tuple(found)


def vllm_result(records: Records, told: Told) -> dict[str, Any]:
    """The result; a request that had not ended is not in it. Without details as vLLM without --save-detailed."""
    seen = _Seen(records)
    duration_s = max(records.observed_s, 1e-9)
    tokens_in, tokens_out = int(seen.tokens_in[seen.ok].sum()), int(seen.tokens_out.sum())
    closed = told.by == "concurrency"
    return {
        "date": told.began.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": _ENDPOINTS[told.workload.api],
        "backend": _ENDPOINTS[told.workload.api],
        "label": told.label,
        "model_id": told.model,
        "tokenizer_id": told.workload.tokenizer.file if told.workload.tokenizer else told.model,
        "num_prompts": len(records),
        "request_rate": "inf" if closed else float(told.load),
        "burstiness": _burstiness(told.workload),
        "max_concurrency": int(told.load) if closed else told.workload.max_in_flight,
        "duration": duration_s,
        "completed": int(seen.ok.sum()),
        "failed": int((~seen.ok).sum()),
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "request_throughput": int(seen.ok.sum()) / duration_s,
        "request_goodput": _good(seen, told.goodput_ms) / duration_s if told.goodput_ms else None,
        "output_throughput": tokens_out / duration_s,
        "total_token_throughput": (tokens_in + tokens_out) / duration_s,
        **_lists(seen, detailed=told.detailed),
        **_peaks(seen),
        "rtfx": 0.0,
        **_latencies(seen, told.percentiles),
    }


def _lists(seen: _Seen, *, detailed: bool) -> dict[str, list[Any]]:
    always = {"latencies": seen.latency_s.tolist(), "queue_times": seen.queued_s.tolist()}
    if not detailed:
        return always
    return {
        "input_lens": seen.tokens_in.tolist(),
        "output_lens": seen.tokens_out.tolist(),
        "ttfts": seen.ttft_s.tolist(),
        "itls": [gaps.tolist() for gaps in seen.gaps_s],
        "latencies": always["latencies"],
        "start_times": seen.sent_s.tolist(),
        "queue_times": always["queue_times"],
        "generated_texts": [],  # not kept
        "errors": [_WORDS.get(Status(int(code)), "") for code in seen.status],
    }


class _Seen:
    """The requests that ended, by vLLM's clock: from the send."""

    def __init__(self, records: Records) -> None:
        ended = ~records.running
        self.ok = records.ok[ended]
        self.status = records.status[ended]
        scheduled_s, sent_s = records.scheduled_s[ended], records.sent_s[ended]
        self.sent_s: Floats = np.where(np.isnan(sent_s), scheduled_s, sent_s)
        self.queued_s: Floats = np.maximum(self.sent_s - scheduled_s, 0.0)
        self.end_s = records.end_s[ended]
        self.latency_s: Floats = np.where(self.ok, self.end_s - self.sent_s, 0.0)
        self.ttft_s: Floats = np.where(self.ok, np.nan_to_num(records.first_s[ended] - self.sent_s), 0.0)
        self.tokens_in = records.tokens_in[ended].astype(np.int64)
        self.tokens_out = np.where(self.ok, records.tokens_out[ended], 0).astype(np.int64)
        flat_s = records.gaps_us / 1e6
        starts = records.gap_offsets[:-1][ended] if len(records.gap_offsets) else np.zeros(len(self.ok), np.int64)
        ends = records.gap_offsets[1:][ended] if len(records.gap_offsets) else starts
        self.gaps_s = [flat_s[a:b] if good else flat_s[:0] for a, b, good in zip(starts, ends, self.ok, strict=True)]

    def tpot_s(self) -> Floats:
        """Of each finished request; NaN where it has one token or none."""
        several = self.tokens_out[self.ok] > 1
        after_first = (self.latency_s - self.ttft_s)[self.ok]
        return np.where(several, after_first / np.maximum(self.tokens_out[self.ok] - 1, 1), np.nan)

    def values_s(self) -> dict[str, Floats]:
        tpot_s = self.tpot_s()
        return {
            "ttft": self.ttft_s[self.ok],
            "tpot": tpot_s[~np.isnan(tpot_s)],
            "itl": np.concatenate([np.zeros(0), *self.gaps_s]),
            "e2el": self.latency_s[self.ok],
        }


def _burstiness(workload: Workload) -> float | None:
    """vLLM's: the shape of the gamma distribution of gaps. None where gaps are not drawn from one."""
    return {"poisson": 1.0, "gamma": float(workload.burstiness)}.get(workload.arrivals)


def _good(seen: _Seen, bounds_ms: Mapping[str, float]) -> int:
    """How many finished requests keep all bounds; a time per token that there is not counts as 0."""
    values_s = {"ttft": seen.ttft_s[seen.ok], "tpot": np.nan_to_num(seen.tpot_s()), "e2el": seen.latency_s[seen.ok]}
    good = np.ones(int(seen.ok.sum()), bool)
    for name, bound_ms in bounds_ms.items():
        good &= values_s[name] <= bound_ms / 1e3
    return int(good.sum())


def _latencies(seen: _Seen, percentiles: Sequence[float]) -> dict[str, float]:
    """Zeros where nothing was measured, as vLLM has it."""
    found: dict[str, float] = {}
    for name, values_s in seen.values_s().items():
        values_ms = (values_s if len(values_s) else np.zeros(1)) * 1e3
        found[f"mean_{name}_ms"] = float(values_ms.mean())
        found[f"median_{name}_ms"] = float(np.median(values_ms))
        found[f"std_{name}_ms"] = float(values_ms.std())
        for p in percentiles:
            found[f"p{percentile_word(p)}_{name}_ms"] = float(np.percentile(values_ms, p))
    return found


def _peaks(seen: _Seen) -> dict[str, float | int]:
    """The most events, and the most requests, that any second since the first send met."""
    if not seen.ok.any():
        return {"max_output_tokens_per_s": 0.0, "max_concurrent_requests": 0}
    began_s = seen.sent_s[seen.ok].min()
    sent_s, end_s = seen.sent_s[seen.ok] - began_s, seen.end_s[seen.ok] - began_s
    seconds = math.ceil(float(end_s.max())) + 1
    first_s = sent_s + seen.ttft_s[seen.ok]
    gaps_s = [gaps for gaps, good in zip(seen.gaps_s, seen.ok, strict=True) if good]
    events_s = [np.concatenate([[at], at + np.cumsum(gaps)]) for at, gaps in zip(first_s, gaps_s, strict=True)]
    times_s = np.concatenate(events_s)
    tokens = np.bincount(np.clip(times_s.astype(np.int64), 0, None), minlength=seconds)[:seconds]
    change = np.zeros(seconds + 1, np.int64)
    np.add.at(change, sent_s.astype(np.int64), 1)
    np.add.at(change, np.minimum(end_s.astype(np.int64) + 1, seconds), -1)
    return {
        "max_output_tokens_per_s": float(tokens.max()),
        "max_concurrent_requests": int(np.cumsum(change).max()),
    }
