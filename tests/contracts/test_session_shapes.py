"""How every Session shapes its load: users who think."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import numpy as np
import pytest

from redline.loadgen import open_session
from redline.model import Endpoint, Lengths, Measured, Probe, Session, ThinkTime, Workload
from redline.records import Records
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession
from redline.users import pause_s

WORKLOAD = Workload(name="w", prompt=Lengths(mean=20), output=Lengths(mean=3))
USERS = Probe(by="concurrency", load=4.0, kind="main", spread_s=0.1, max_s=1.5)
Opened = Callable[[Workload], AbstractContextManager[Session]]


@contextmanager
def virtual() -> Iterator[Opened]:
    @contextmanager
    def opened(workload: Workload) -> Iterator[Session]:
        yield VirtualSession(PROFILES["demo"], workload)

    yield opened


@contextmanager
def loadgen() -> Iterator[Opened]:
    serve = "from redline.simulate import profiles, server; server.serve(profiles.PROFILES['demo'], port=0)"
    with subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True) as server:
        try:
            url = re.search(r"http://\S+", server.stdout.readline()).group()
            yield lambda workload: open_session(Endpoint(url=url, model="simulated"), workload)
        finally:
            server.kill()


@pytest.fixture(scope="module", params=[virtual, loadgen], ids=["virtual", "loadgen"])
def opened(request) -> Iterator[Opened]:
    with request.param() as opened:
        yield opened


def records(opened: Opened, workload: Workload, probe: Probe, seed: int = 1) -> Records:
    with opened(workload) as session:
        outcome = session.measure(probe, lambda _: None, seed)
    assert isinstance(outcome, Measured), outcome
    return outcome.records


# ---- users who think -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("think", [ThinkTime(mean=0.1), ThinkTime(mean=0.1, cv=1.0)], ids=["alike", "gamma"])
def test_a_user_comes_back_when_the_pause_after_the_answer_is_over(opened, think):
    found = records(opened, replace(WORKLOAD, think_time_s=think), replace(USERS, load=1.0, spread_s=0.0), seed=3)
    ended = int(found.ok.sum())
    pauses = [pause_s(think, 3, 0, turn) for turn in range(len(found) - 1)]

    assert 4 < ended <= len(found) <= ended + 1
    waited = found.scheduled_s[1:] - found.end_s[: len(found) - 1]
    assert (waited >= np.array(pauses) - 1e-6).all()
    assert np.median(waited - pauses) < 0.05


def test_users_who_think_are_more_than_the_requests_in_flight(opened):
    found = records(opened, replace(WORKLOAD, think_time_s=ThinkTime(mean=0.2, cv=1.0)), replace(USERS, load=20.0))
    ends = np.where(np.isnan(found.end_s), np.inf, found.end_s)
    flying = [int(np.sum((found.scheduled_s <= at) & (ends > at))) for at in found.scheduled_s]

    assert len(found) > 50
    assert (np.diff(found.scheduled_s) >= 0).all()
    assert max(flying) < 16
