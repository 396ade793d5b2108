"""What the load generator benchmark makes of its samples and of the server's log. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PACE = 50.0  # tokens/s of a stream
STREAMS = ("100 streams", "500 streams", "1000 streams")
_SETTLED = 0.9  # share of the most streams that were held: a window of streaming, without its start and its end


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """`count` requests at a constant rate, each for `tokens` tokens at the mock's pace."""

    name: str
    rate: float
    count: int
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The client's process tree and the server's counts at one moment."""

    at_s: float
    cpu_s: float
    memory_mb: float
    requests: int
    ended: int
    chunks: int
    held: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One request as the server saw it, by the wall clock."""

    number: int
    read_ns: int
    sent_ns: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One client under one load, once."""

    client: str
    load: str
    round: int
    awake: bool = True  # the cores
    figures: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""


def parse_log(log: bytes) -> list[Served]:
    """The server's log, in order of its reading."""
    served, at, head = [], 0, struct.Struct("=qqq")
    while at < len(log):
        number, read_ns, count = head.unpack_from(log, at)
        at += head.size
        served.append(Served(number=number, read_ns=read_ns, sent_ns=np.frombuffer(log, np.int64, count, at)))
        at += 8 * count
    return sorted(served, key=lambda one: one.read_ns)


def since_reset(samples: Sequence[Sample]) -> list[Sample]:
    """The samples after the counts last began anew."""
    starts = [i for i in range(1, len(samples)) if samples[i].requests < samples[i - 1].requests]
    return list(samples[starts[-1] :] if starts else samples)


def costs(load: Load, samples: Sequence[Sample]) -> dict[str, float]:
    """CPU and memory of the client while it did nothing but this load; what could not be seen is left out."""
    samples = since_reset(samples)
    found: dict[str, float] = {}
    if load.tokens == 1:
        window = [s for s in samples if 0.1 * load.count <= s.requests <= 0.95 * load.count]
        if len(window) > 1 and window[-1].ended > window[0].ended:
            found["cpu_s_per_1000"] = 1e3 * (window[-1].cpu_s - window[0].cpu_s) / (window[-1].ended - window[0].ended)
        return found
    most = max((s.held for s in samples), default=0)
    held = [s for s in samples if s.held >= _SETTLED * most > 0]
    window = [s for s in held if not s.ended] or held
    if len(window) > 1 and window[-1].chunks > window[0].chunks:
        tokens, wall_s = window[-1].chunks - window[0].chunks, window[-1].at_s - window[0].at_s
        found["cpu_s_per_million"] = 1e6 * (window[-1].cpu_s - window[0].cpu_s) / tokens
        found["tokens_per_s"] = tokens / wall_s
        found["cpu_share"] = (window[-1].cpu_s - window[0].cpu_s) / wall_s
    begun = [s for s in samples if s.requests]
    if window and begun[0] is not window[0]:
        opened, streamed = (1e3 * (s.memory_mb - begun[0].memory_mb) / most for s in (window[0], window[-1]))
        found |= {"opened_mb_per_1000": opened, "streamed_mb_per_1000": streamed}
    return found


def schedule(load: Load, served: Sequence[Served]) -> dict[str, float]:
    """How far from the constant rate requests reached the server; the one that was earliest counts as on time."""
    if len(served) < 2 or load.tokens > 1:
        return {}
    read_s = np.sort([one.read_ns for one in served]) / 1e9
    off_s = (read_s - read_s[0]) - np.arange(len(served)) / load.rate
    late_p50, late_p99 = np.quantile(1e6 * (off_s - off_s.min()), [0.5, 0.99])
    got = (len(served) - 1) / (read_s[-1] - read_s[0])
    return {"off_p50_us": float(late_p50), "off_p99_us": float(late_p99), "achieved": float(got / load.rate)}


def ttft_errors_us(ttfts_ms: Floats, served: Sequence[Served]) -> Floats:
    """Times to first token in order of sending, minus what passed between the server's reading and its writing."""
    true_ms = np.array([(one.sent_ns[0] - one.read_ns) / 1e6 for one in served if len(one.sent_ns)])
    count = min(len(ttfts_ms), len(true_ms))
    return np.asarray(1e3 * (ttfts_ms[:count] - true_ms[:count]), np.float64)


def chunk_lags_us(arrivals_ns: Mapping[int, NDArray[np.int64]], served: Sequence[Served]) -> Floats:
    """When the client says that each chunk came, by the wall clock and the request's number, minus when it was sent."""
    parts = [
        (arrivals_ns[one.number] - one.sent_ns) / 1e3
        for one in served
        if len(arrivals_ns.get(one.number, ())) == len(one.sent_ns)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def spread(name: str, samples_us: Floats) -> dict[str, float]:
    """Median and 99th percentile by name; nothing without samples."""
    if not len(samples_us):
        return {}
    p50, p99 = np.quantile(samples_us, [0.5, 0.99])
    return {f"{name}_p50_us": float(p50), f"{name}_p99_us": float(p99)}
