"""What every live Session promises, whoever provides it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from driving import SimServer
from redline.loadgen import open_session
from redline.model import Endpoint, Lengths, Measured, Probe, Session, Stop, Workload
from redline.records import Records, Status
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession

WORKLOAD = Workload(name="w", prompt=Lengths(mean=50, cv=0.5), output=Lengths(mean=8, cv=0.5))
RATE = Probe(by="rate", load=30.0, kind="main", max_s=1.5)
SHORT = replace(RATE, max_s=0.7)
USERS = Probe(by="concurrency", load=3.0, kind="main", spread_s=0.2, max_s=1.5)


@contextmanager
def virtual() -> Iterator[Session]:
    yield VirtualSession(PROFILES["demo"], WORKLOAD)


@contextmanager
def loadgen() -> Iterator[Session]:
    with SimServer() as server, open_session(Endpoint(url=server.url, model="simulated"), WORKLOAD) as session:
        yield session


@pytest.fixture(scope="module", params=[virtual, loadgen], ids=["virtual", "loadgen"])
def session(request) -> Iterator[Session]:
    with request.param() as session:
        yield session


def measured(session: Session, probe: Probe, watch=lambda records: None, seed: int = 1) -> Measured:
    outcome = session.measure(probe, watch, seed)
    assert isinstance(outcome, Measured), outcome
    return outcome


def test_it_is_live(session):
    assert session.live


@pytest.mark.parametrize("probe", [RATE, USERS], ids=["rate", "concurrency"])
def test_its_records_hold_together(session, probe):
    outcome = measured(session, probe)
    records = outcome.records

    assert outcome.stop.reason == "budget"
    assert outcome.duration_s == records.observed_s == pytest.approx(1.5, abs=0.3)
    assert len(records) > 10
    assert (np.diff(records.scheduled_s) >= 0).all()
    assert set(records.status) <= {Status.OK, Status.RUNNING}
    ok = records.ok
    assert ok.any()
    assert (records.scheduled_s[ok] <= records.sent_s[ok]).all()
    assert (records.sent_s[ok] < records.first_s[ok]).all()
    assert (records.first_s[ok] <= records.end_s[ok]).all()
    assert (records.tokens_out[ok] == records.tokens_asked[ok]).all()
    assert np.isnan(records.end_s[records.running]).all()
    assert len(records.gap_offsets) == len(records) + 1
    assert records.gap_offsets[-1] == len(records.gaps_us)
    spans_us = np.add.reduceat(np.append(records.gaps_us, 0).astype(float), records.gap_offsets[:-1])
    many = ok & (records.tokens_out > 1)
    assert spans_us[many] == pytest.approx((records.end_s - records.first_s)[many] * 1e6, abs=30)


def test_its_records_can_be_stored(session):
    records = measured(session, RATE).records
    again = Records.from_columns(records.columns())

    assert np.array_equal(records.end_s, again.end_s, equal_nan=True)


def test_the_seed_decides_when_and_what(session):
    first, same, other = (measured(session, SHORT, seed=seed).records for seed in (5, 5, 6))
    common = min(len(first), len(same), len(other))

    assert first.scheduled_s[:common] == pytest.approx(same.scheduled_s[:common], abs=1e-5)
    assert (first.tokens_asked[:common] == same.tokens_asked[:common]).all()
    assert not np.allclose(first.scheduled_s[:common], other.scheduled_s[:common], atol=1e-3)


def test_watch_is_called_each_second_and_its_stop_ends_the_trial(session):
    seen: list[Records] = []

    def watch(records: Records) -> Stop | None:
        seen.append(records)
        return Stop(reason="full", at_s=records.observed_s) if len(seen) == 2 else None

    outcome = measured(session, Probe(by="rate", load=30.0, kind="main"), watch)

    assert [1, 2] == pytest.approx([records.observed_s for records in seen], abs=0.5)
    assert outcome.stop == Stop(reason="full", at_s=seen[-1].observed_s)
    assert len(seen[0]) < len(seen[1]) <= len(outcome.records)
    assert seen[0].scheduled_s == pytest.approx(seen[1].scheduled_s[: len(seen[0])])  # what was seen does not change
    assert outcome.duration_s >= seen[-1].observed_s


@pytest.mark.parametrize("by", ["rate", "concurrency"])
def test_no_more_requests_than_allowed(session, by):
    outcome = measured(session, Probe(by=by, load=4.0, kind="main", max_requests=6))

    assert outcome.stop.reason == "budget"
    assert len(outcome.records) == outcome.client.sent == 6


@pytest.mark.parametrize("by", ["rate", "concurrency"])
@pytest.mark.parametrize("limit", [{"max_requests": 6}, {"max_s": 0.4}], ids=["requests", "time"])
def test_one_that_drains_lets_finish_what_it_sent(session, by, limit):
    outcome = measured(session, Probe(by=by, load=15.0, kind="list", spread_s=0.2, drain=True, **limit))
    records = outcome.records

    assert outcome.stop.reason == "ended"
    assert records.ok.all()
    assert limit.get("max_requests", len(records)) == len(records) == outcome.client.sent > 1
    assert records.scheduled_s[-1] <= limit.get("max_s", np.inf)
    assert outcome.duration_s >= records.end_s.max()


def test_no_more_in_flight_than_users(session):
    records = measured(session, USERS).records
    ends = np.where(np.isnan(records.end_s), np.inf, records.end_s)
    flying = [int(np.sum((records.scheduled_s <= at) & (ends > at))) for at in records.scheduled_s]

    assert max(flying) == 3
    assert len(records) > 6


def test_a_watch_that_raises_is_heard(session):
    class OurError(Exception):
        pass

    def watch(records: Records) -> None:
        raise OurError

    with pytest.raises(OurError):
        session.measure(RATE, watch, 1)
    assert measured(session, SHORT).records.ok.any()  # and the session goes on
