"""How every Session shapes its load: users who think, a cap on requests in flight, ramps and conversations."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import numpy as np
import pytest

from driving import SimServer
from redline import arrivals
from redline.loadgen import open_session
from redline.model import Endpoint, Lengths, Measured, Probe, Session, ThinkTime, Workload
from redline.records import Status
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession
from redline.talks import sizes, turns_like, turns_of
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
    with SimServer() as server:
        yield lambda workload: open_session(Endpoint(url=server.url, model="simulated"), workload)


@pytest.fixture(scope="module", params=[virtual, loadgen], ids=["virtual", "loadgen"])
def opened(request) -> Iterator[Opened]:
    with request.param() as opened:
        yield opened


def measured(opened: Opened, workload: Workload, probe: Probe, seed: int = 1) -> Measured:
    with opened(workload) as session:
        outcome = session.measure(probe, lambda _: None, seed)
    assert isinstance(outcome, Measured), outcome
    return outcome


def all_due(outcome: Measured) -> bool:
    """Is every request that was due sent or held back, but for the few that a busy machine was about to send?"""
    client, count = outcome.client, len(outcome.records)
    return count == client.sent + client.held_back and 0 <= client.due - count <= 10


def most_flying(since_s: np.ndarray, end_s: np.ndarray) -> int:
    ends = np.where(np.isnan(end_s), np.inf, end_s)
    return max(int(np.sum((since_s <= at) & (ends > at))) for at in since_s[~np.isnan(since_s)])


# ---- users who think -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("think", [ThinkTime(mean=0.1), ThinkTime(mean=0.1, cv=1.0)], ids=["alike", "gamma"])
def test_a_user_comes_back_when_the_pause_after_the_answer_is_over(opened, think):
    alone = replace(USERS, load=1.0, spread_s=0.0)
    found = measured(opened, replace(WORKLOAD, think_time_s=think), alone, seed=3).records
    ended = int(found.ok.sum())
    pauses = [pause_s(think, 3, 0, turn) for turn in range(len(found) - 1)]

    assert 4 < ended <= len(found) <= ended + 1
    waited = found.scheduled_s[1:] - found.end_s[: len(found) - 1]
    assert (waited >= np.array(pauses) - 1e-6).all()
    assert np.median(waited - pauses) < 0.05


def test_users_who_think_are_more_than_the_requests_in_flight(opened):
    thoughtful = replace(WORKLOAD, think_time_s=ThinkTime(mean=0.2, cv=1.0))
    found = measured(opened, thoughtful, replace(USERS, load=20.0)).records

    assert len(found) > 50
    assert (np.diff(found.scheduled_s) >= 0).all()
    assert most_flying(found.scheduled_s, found.end_s) < 16


# ---- a cap on requests in flight -------------------------------------------------------------------------------------

CAPPED = replace(WORKLOAD, max_in_flight=2)
RATE = Probe(by="rate", load=100.0, kind="main", max_s=1.2)


def test_no_more_are_in_flight_than_the_cap_allows_and_the_wait_is_no_lateness(opened):
    outcome = measured(opened, CAPPED, RATE, seed=5)
    found, client = outcome.records, outcome.client
    sent, waited = ~np.isnan(found.sent_s), found.held_s > 0

    assert most_flying(found.sent_s, found.end_s) == 2
    assert sent.sum() > 20
    assert waited.sum() > 20
    assert found.scheduled_s == pytest.approx(arrivals.between(CAPPED, 100.0, 5, 9.0)[: len(found)], abs=2e-6)
    assert (found.sent_s >= found.scheduled_s + found.held_s - 1e-6)[sent].all()
    assert np.median(found.late_s()[sent]) < 0.01
    assert np.max(found.held_s[sent]) > 0.1
    assert np.max(found.ttft_ms()[found.ok]) > 100  # latency counts from the schedule
    assert (client.held, client.sent) == (waited.sum(), sent.sum())


def test_those_held_back_at_the_end_are_due_and_as_old_as_their_wait(opened):
    outcome = measured(opened, CAPPED, RATE, seed=5)
    found, client = outcome.records, outcome.client
    back = np.isnan(found.sent_s)

    assert back.sum() > 10
    assert (found.status[back] == Status.RUNNING).all()
    assert found.age_s()[back] == pytest.approx(found.held_s[back])
    assert back.sum() == client.held_back
    assert all_due(outcome)
    assert len(found) == pytest.approx(100 * outcome.duration_s, rel=0.35)


def test_a_cap_that_is_not_reached_changes_nothing(opened):
    slow = replace(RATE, load=20.0)
    capped, free = (measured(opened, replace(WORKLOAD, max_in_flight=cap), slow) for cap in (500, None))
    common = min(len(capped.records), len(free.records))

    assert (0, 0) == (capped.client.held, len(capped.records.held_s))
    assert capped.records.scheduled_s[:common] == pytest.approx(free.records.scheduled_s[:common], abs=2e-6)


def test_a_budget_of_requests_counts_those_that_waited(opened):
    outcome = measured(opened, CAPPED, replace(RATE, load=400.0, max_s=60.0, max_requests=15))

    assert (len(outcome.records), outcome.client.due, outcome.client.sent) == (15, 15, 15)
    assert outcome.client.held > 3


def test_a_request_can_time_out_while_it_waits(opened):
    outcome = measured(opened, replace(CAPPED, request_timeout_s=0.25), replace(RATE, load=200.0))
    found = outcome.records
    late, unsent = found.status == Status.TIMED_OUT, np.isnan(found.sent_s)

    assert (late & unsent).sum() > 20
    assert found.age_s()[late] == pytest.approx(0.25, abs=0.3)
    assert unsent.sum() == outcome.client.held_back
    assert all_due(outcome)


# ---- a ramp ----------------------------------------------------------------------------------------------------------

RAMPED = replace(WORKLOAD, ramp_s=0.6)


def test_a_trial_begins_when_its_ramp_is_over(opened):
    outcome = measured(opened, RAMPED, RATE, seed=5)
    found = outcome.records
    due = arrivals.between(RAMPED, 100.0, 5, 9.0)
    steady = due[due >= 0]

    assert len(due) - len(steady) > 15
    assert found.scheduled_s == pytest.approx(steady[: len(found)], abs=2e-6)
    assert outcome.duration_s == found.observed_s == pytest.approx(1.2, abs=0.3)
    assert outcome.client.held == 0
    assert all_due(outcome)
    assert found.ok.sum() > 50
    assert len(found.gap_offsets) == len(found) + 1
    assert (np.diff(found.gap_offsets)[found.ok] == found.tokens_out[found.ok] - 1).all()


def test_all_users_have_come_when_the_ramp_is_over(opened):
    outcome = measured(opened, RAMPED, replace(USERS, spread_s=30.0))
    found = outcome.records

    assert (found.scheduled_s >= 0).all()
    assert most_flying(found.scheduled_s, found.end_s) == 4
    assert np.sum(found.scheduled_s < 0.6) >= 8
    assert all_due(outcome)


def test_a_budget_of_requests_leaves_out_those_of_the_ramp(opened):
    outcome = measured(opened, RAMPED, replace(RATE, max_s=60.0, max_requests=15))

    assert (len(outcome.records), outcome.client.due, outcome.client.sent) == (15, 15, 15)


def test_a_cap_can_be_reached_in_a_ramp(opened):
    outcome = measured(opened, replace(CAPPED, ramp_s=0.6), RATE)
    found = outcome.records

    assert (found.scheduled_s >= 0).all()
    assert (found.held_s > 0).mean() > 0.5
    assert all_due(outcome)


def test_each_second_of_a_trial_after_a_ramp_shows_what_the_end_shows(opened):
    seen = []
    with opened(replace(RAMPED, ramp_s=1.3)) as session:
        final = session.measure(replace(RATE, load=40.0, max_s=2.4), seen.append, 1).records

    assert [1, 2] == pytest.approx([records.observed_s for records in seen][:2], abs=0.4)
    for records in seen:
        assert records.scheduled_s == pytest.approx(final.scheduled_s[: len(records)])
        assert (records.tokens_asked == final.tokens_asked[: len(records)]).all()


# ---- conversations ---------------------------------------------------------------------------------------------------

TALKING = replace(WORKLOAD, prompt=Lengths(mean=30, cv=0.3), output=Lengths(mean=4, cv=0.3), turns=turns_like(3, 0.0))


def test_each_turn_repeats_what_was_said_before_it(opened):
    found = measured(opened, TALKING, replace(USERS, load=1.0, spread_s=0.0), seed=3).records
    seen = found.tokens_in[found.ok]
    begins = np.flatnonzero(np.diff(seen) < 0) + 1
    whole = [(user, begin) for user, begin in enumerate(begins, 1) if begin + 3 <= len(seen)]

    assert len(whole) > 2
    for user, begin in whole:
        each = sizes(TALKING, 3, user)
        before = [sum(sum(size) for size in each[:turn]) for turn in range(3)]
        asked = [size.prompt + said for size, said in zip(each, before, strict=True)]
        assert seen[begin : begin + 3] == pytest.approx(asked, rel=0.05, abs=8)
        assert (found.tokens_asked[begin : begin + 3] == [size.output for size in each]).all()


@pytest.mark.parametrize("cap", [None, 3], ids=["free", "capped"])
def test_conversations_of_an_open_loop_come_at_the_rate_of_their_requests(opened, cap):
    load = replace(TALKING, think_time_s=ThinkTime(mean=0.2, cv=1.0), max_in_flight=cap)
    outcome = measured(opened, load, replace(RATE, load=60.0, max_s=2.5), seed=5)
    found = outcome.records

    assert len(found) == pytest.approx(60 * outcome.duration_s, rel=0.4)
    assert (np.diff(found.scheduled_s) >= 0).all()
    assert all_due(outcome)
    assert found.tokens_in.max() > 80


def test_conversations_last_through_a_ramp(opened):
    load = replace(TALKING, think_time_s=ThinkTime(mean=0.2), ramp_s=0.5)
    found = measured(opened, load, replace(RATE, load=60.0), seed=5).records

    assert (found.scheduled_s >= 0).all()
    assert found.ok.sum() > 30


def test_the_oldest_turns_are_left_out_where_all_do_not_fit(opened):
    long = replace(TALKING, prompt=Lengths(mean=900), output=Lengths(mean=4), turns=turns_like(8, 0.0))
    found = measured(opened, long, replace(USERS, max_s=2.5)).records

    assert turns_of(long.turns, 1, 0) == 8
    assert set(found.status) <= {Status.OK, Status.RUNNING}
    assert 2_000 < found.tokens_in[found.ok].max() < 4_096  # the context of the simulated server
