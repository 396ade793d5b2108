"""Several load workers on one server: the same requests as from one, heard, judged and ended as one."""

import os
import signal
import time

import numpy as np
import pytest

from redline import arrivals
from redline.loadgen import open_session
from redline.model import Endpoint, Interrupted, Invalid, Lengths, Measured, Probe, Stop, Workload
from scripted import obedient, scripted
from waiting import gone, until

CHAT = Workload(name="chat", prompt=Lengths(mean=40, cv=0.3), output=Lengths(mean=4, cv=0.5))


def rate(load: float, **more) -> Probe:
    return Probe(by="rate", load=load, kind="main", **more)


def users(load: float, **more) -> Probe:
    return Probe(by="concurrency", load=load, kind="main", **{"spread_s": 0.1, **more})


def team(server, count: int | None):
    return open_session(Endpoint(url=server.url, model="m"), CHAT, load_workers=count)


def measured(outcome) -> Measured:
    assert isinstance(outcome, Measured), outcome
    return outcome


def sent(count: int) -> tuple[Measured, list[str]]:
    """One trial from so many workers, and the prompts that came."""
    with scripted() as server, team(server, count) as session:
        server.requests.clear()
        outcome = measured(session.measure(rate(90, max_s=0.9), lambda _: None, seed=5))
        return outcome, [request.text for request in server.posts]


def test_several_workers_send_what_one_would():
    (one, texts), (three, other_texts) = sent(1), sent(3)

    due = arrivals.between(CHAT, 90, 5, 2.0)
    for outcome in (one, three):
        records = outcome.records
        assert records.scheduled_s == pytest.approx(due[: len(records)], abs=2e-6)
    common = min(len(one.records), len(three.records))
    assert common > 50
    assert (one.records.tokens_asked[:common] == three.records.tokens_asked[:common]).all()
    assert (one.records.tokens_in[:common] == three.records.tokens_in[:common]).mean() > 0.9  # those that ended know
    assert len(set(texts) & set(other_texts)) >= common - 6  # the last ones may not have come any more
    assert (1, 3) == (len(one.client.cpu_shares), len(three.client.cpu_shares))
    assert three.client.cpu_share == max(three.client.cpu_shares)
    assert three.client.due == three.client.sent == len(three.records)


def test_requests_of_several_workers_come_in_order_and_nothing_comes_in_between_later():
    seen = []

    def watch(records):
        seen.append(records)
        return Stop(reason="full", at_s=records.observed_s) if len(seen) == 3 else None

    with (
        scripted(lambda request: [0.05, *obedient(request)]) as server,
        team(server, 3) as session,
    ):
        records = measured(session.measure(rate(80), watch, seed=2)).records

    assert (np.diff(records.scheduled_s) >= 0).all()
    for earlier in seen:
        assert len(earlier) > 0
        assert records.scheduled_s[: len(earlier)] == pytest.approx(earlier.scheduled_s)
    assert [r.observed_s for r in seen] == sorted({r.observed_s for r in seen})
    many = records.ok & (records.tokens_out > 1)
    assert (np.diff(records.gap_offsets)[many] == records.tokens_out[many] - 1).all()


def test_users_are_divided_among_workers():
    with (
        scripted(lambda request: [0.03, *obedient(request)]) as server,
        team(server, 3) as session,
    ):
        server.requests.clear()
        records = measured(session.measure(users(7, max_s=1.0), lambda _: None, seed=1)).records
        texts = [request.text[:40] for request in server.posts]

    changes = sorted([(s, 1) for s in records.scheduled_s] + [(e, -1) for e in records.end_s if e == e])
    assert max(np.cumsum([change for _, change in changes])) == 7
    assert len(records) > 14
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("probe", [rate(200, max_requests=17), users(4, max_requests=17), rate(50, max_requests=2)])
def test_a_budget_of_requests_is_shared(probe):
    with scripted() as server, team(server, 3) as session:
        outcome = measured(session.measure(probe, lambda _: None, seed=4))

    assert outcome.stop.reason == "budget"
    assert len(outcome.records) == outcome.client.sent <= probe.max_requests
    if probe.by == "rate":
        assert outcome.client.sent == probe.max_requests


def test_one_worker_that_dies_makes_the_trial_invalid_and_ends_the_others():
    with scripted() as server, team(server, 3) as session:
        pids = session.worker_pids

        def watch(records):
            os.kill(session.worker_pids[1], signal.SIGKILL)

        session.measure(rate(20, max_s=0.2), lambda _: None, seed=1)
        pids = session.worker_pids
        outcome = session.measure(rate(20), watch, seed=1)

        assert len(pids) == 3
        assert isinstance(outcome, Invalid)
        assert "signal 9" in outcome.reason
        until(lambda: all(gone(pid) for pid in pids))
        assert measured(session.measure(rate(20, max_s=0.5), lambda _: None, seed=2)).records.ok.any()


def test_an_interruption_ends_all_workers_within_a_second():
    with scripted(lambda request: [0.05, *obedient(request)]) as server, team(server, 3) as session:
        at, pids = [], []

        def watch(records):
            pids.extend(session.worker_pids)
            at.append(time.monotonic())
            raise Interrupted

        with pytest.raises(Interrupted):
            session.measure(users(20), watch, seed=1)
        took_s = time.monotonic() - at[0]

        assert took_s < 1
        assert len(pids) == 3
        until(lambda: all(gone(pid) for pid in pids))
        until(lambda: server.open == 0)


def test_the_trial_says_how_many_workers_there_were():
    with scripted() as server, team(server, None) as session:
        session.measure(rate(20, max_s=0.3), lambda _: None, seed=1)

        assert session.facts["load_workers"] == 1
        assert len(session.worker_pids) == 1


def test_a_trial_that_drains_lasts_until_the_last_of_all_workers_is_done():
    with scripted() as server, team(server, 3) as session:
        for probe in (rate(60, drain=True, max_requests=20), users(3, drain=True, max_requests=20)):
            outcome = measured(session.measure(probe, lambda _: None, seed=5))

            assert "ended" == outcome.stop.reason
            assert outcome.records.ok.all()
            assert 20 == len(outcome.records)
            assert outcome.duration_s >= outcome.records.end_s.max()
