"""When requests are due: absolute times from a seed, the same for every session."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from redline.model import Workload
from redline.records import Floats

_CHUNK = 1024
_ARRIVALS, _STARTS = 0xA1, 0xA2  # separate the streams of one seed


def times(workload: Workload, rate: float, seed: int) -> Iterator[Floats]:
    """Due times in seconds since the trial began, in ascending chunks without end, at `rate` requests per second.

    Request i's time depends on the workload's arrival process, the rate, the seed and i alone.
    Gaps at another rate with the same seed are the same gaps, scaled.
    """
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
