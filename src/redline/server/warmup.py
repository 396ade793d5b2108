"""Unmeasured requests to a cold server, until its time to first token settles."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from redline.model import Probe, Session, Stop
from redline.records import Records

_LIMIT_S = 60.0
_USERS = 4  # enough for the first batches (kernels, graphs), few enough for the smallest server
_CHANGE = 1.25  # medians of two groups of _USERS first tokens within this factor: settled


def warm_up(session: Session, lone_ttft_s: Callable[[], float | None]) -> None:
    """Send requests as the session sends them, or lone ones where it cannot be watched; 60 s at most."""
    if session.live:
        probe = Probe(by="concurrency", load=_USERS, kind="scout", spread_s=0.0, max_s=_LIMIT_S)
        session.measure(probe, _until_settled, secrets.randbits(31))
        return
    deadline, times = time.monotonic() + _LIMIT_S, list[float]()
    while not settled(times) and time.monotonic() < deadline:
        took_s = lone_ttft_s()
        if took_s is None:  # it does not answer such requests
            return
        times.append(took_s)


def settled(times: Sequence[float]) -> bool:
    """Are the last times to first token about as long as those before them?"""
    if len(times) < 2 * _USERS:
        return False
    before, last = median(times[-2 * _USERS : -_USERS]), median(times[-_USERS:])
    return math.isfinite(last) and before <= _CHANGE * last and last <= _CHANGE * before


def _until_settled(records: Records) -> Stop | None:
    came = np.argsort(records.first_s)[: np.count_nonzero(~np.isnan(records.first_s))]
    if settled(records.ttft_ms()[came].tolist()):
        return Stop(reason="ended", at_s=records.observed_s)
    return None
