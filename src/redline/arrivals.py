"""When requests are due: absolute times from a seed, the same for every session."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from redline.model import Trace, Workload
from redline.records import Floats

_CHUNK = 1024
_ARRIVALS, _STARTS, _TURN = 0xA1, 0xA2, 0xA3  # separate the streams of one seed


def times(workload: Workload, rate: float, seed: int) -> Iterator[Floats]:
    """Due times in seconds since the trial began, in ascending chunks without end, at `rate` requests per second.

    Request i's time depends on the workload's arrival process, the rate, the seed and i alone.
    Gaps at another rate with the same seed are the same gaps, scaled. What a ramp sends is due before 0.
    """
    for chunk in _steady(workload, rate, seed):
        yield _ramped(chunk, workload.ramp_s) if workload.ramp_s > 0 else chunk


def _ramped(due: Floats, ramp_s: float) -> Floats:
    """The same requests at a rate that rises evenly to its height, which it reaches at 0."""
    early = due < ramp_s / 2
    return np.where(early, np.sqrt(2 * ramp_s * np.where(early, due, 0.0)) - ramp_s, due - ramp_s / 2)


def _steady(workload: Workload, rate: float, seed: int) -> Iterator[Floats]:
    if workload.arrivals == "trace" and workload.trace is not None:
        yield from _replayed(workload.trace, rate, seed)
        return
    rng = np.random.default_rng([_ARRIVALS, abs(seed)])
    done, last_s = 0, 0.0
    while True:
        if workload.arrivals == "constant":
            chunk = np.arange(done, done + _CHUNK) / rate
        else:
            shape = 1.0 if workload.arrivals == "poisson" else workload.burstiness
            gaps = rng.standard_exponential(_CHUNK) if shape == 1.0 else rng.standard_gamma(shape, _CHUNK) / shape
            chunk = last_s + np.cumsum(gaps) / rate
        done, last_s = done + _CHUNK, float(chunk[-1])
        yield chunk


def first_entry(trace: Trace, seed: int) -> int:
    """The entry of a trace that is request 0 of this seed; the ones after it follow, from the last on to the first."""
    return _turned(trace, seed)[0]


def _replayed(trace: Trace, rate: float, seed: int) -> Iterator[Floats]:
    """The trace's own gaps, scaled so that one round of it has `rate`; each seed begins elsewhere in it."""
    first, start = _turned(trace, seed)
    unit = _unit_times(trace)
    entries, done = len(unit), 0
    while True:
        laps, entry = np.divmod(np.arange(first + done, first + done + _CHUNK), entries)
        done += _CHUNK
        yield (unit[entry] + laps * float(entries) - start) / rate


@lru_cache(maxsize=64)
def _turned(trace: Trace, seed: int) -> tuple[int, float]:
    """(first entry, where before it the excerpt begins): a moment of the trace's time, so that lulls are met too."""
    unit = _unit_times(trace)
    start = np.random.default_rng([_TURN, abs(seed)]).random() * len(unit)
    return int(np.searchsorted(unit, start)), float(start)


@lru_cache(maxsize=4)  # asked for again with each block of requests
def _unit_times(trace: Trace) -> Floats:
    """The trace's times at one request a second on average, the mean gap after the last included."""
    times: Floats = np.asarray(trace.times_s)
    span = float(times[-1] - times[0])
    unit: Floats = (times - times[0]) * ((len(times) - 1) / span)
    return unit


def user_starts(users: int, spread_s: float, seed: int) -> Floats:
    """When each user of a closed loop sends the first request: one in each of `users` equal parts of `spread_s`."""
    jitter = np.random.default_rng([_STARTS, abs(seed)]).random(users)
    return (np.arange(users) + jitter) * (spread_s / max(users, 1))


def between(workload: Workload, rate: float, seed: int, until_s: float) -> Floats:
    """All due times before `until_s`."""
    chunks: list[Floats] = []
    for chunk in times(workload, rate, seed):
        chunks.append(chunk)
        if chunk[-1] >= until_s:
            break
    due = np.concatenate(chunks)
    return due[: int(np.searchsorted(due, until_s))]
