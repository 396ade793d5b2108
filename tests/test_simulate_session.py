"""The virtual session: each second, exact records of what the engine did."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from made import TRACE
from redline import arrivals, lengths
from redline.model import Failed, Lengths, Measured, Probe, Stop, ThinkTime, Workload
from redline.records import Records, Status
from redline.simulate.profiles import PROFILES, Faults, Profile
from redline.simulate.session import Run, VirtualSession
from redline.talks import turns_like

DEMO = PROFILES["demo"]
CHAT = Workload(name="chat", prompt=Lengths(mean=128, cv=0.5), output=Lengths(mean=24, cv=0.5))
RATE = Probe(by="rate", load=40.0, kind="main", max_s=20.0)
USERS = Probe(by="concurrency", load=20, kind="main", spread_s=2.0, max_s=20.0)


def never(records: Records) -> Stop | None:
    return None


def measured(profile: Profile = DEMO, probe: Probe = RATE, watch=never, seed: int = 1, workload=CHAT) -> Measured:
    outcome = VirtualSession(profile, workload).measure(probe, watch, seed)
    assert isinstance(outcome, Measured)
    return outcome


@pytest.mark.parametrize("profile", [DEMO, PROFILES["demo-kv"]], ids=lambda profile: profile.name)
@pytest.mark.parametrize("probe", [RATE, USERS, replace(RATE, load=150.0)], ids=["rate", "users", "overload"])
def test_each_second_shows_a_prefix_of_what_the_end_shows(profile, probe):
    seen: list[Records] = []
    final = measured(profile, probe, seen.append).records

    assert [float(second) for second in range(1, 21)] == [records.observed_s for records in seen]
    for records in seen:
        n, now_s = len(records), records.observed_s
        assert n == np.sum(final.scheduled_s <= now_s)
        ended = final.end_s[:n] <= now_s
        assert np.array_equal(records.ok, ended)
        assert np.array_equal(records.end_s, np.where(ended, final.end_s[:n], np.nan), equal_nan=True)
        first = np.where(final.first_s[:n] <= now_s, final.first_s[:n], np.nan)
        assert np.array_equal(records.first_s, first, equal_nan=True)
        assert (records.tokens_out <= final.tokens_out[:n]).all()
        assert np.array_equal(np.diff(records.gap_offsets), np.maximum(records.tokens_out - 1, 0))
        for mine, full in zip(gaps(records), gaps(final), strict=False):
            assert np.array_equal(mine, full[: len(mine)])


def gaps(records: Records) -> list[np.ndarray]:
    return np.split(records.gaps_us, records.gap_offsets[1:-1])


@pytest.mark.parametrize("probe", [RATE, USERS], ids=["rate", "users"])
def test_the_same_seed_gives_the_same_trial_and_another_one_another(probe):
    one, same, other = (measured(probe=probe, seed=seed).records for seed in (1, 1, 2))

    assert np.array_equal(one.end_s, same.end_s, equal_nan=True)
    assert not np.array_equal(one.scheduled_s[:100], other.scheduled_s[:100])


def test_lengths_are_those_of_the_workload_by_seed_and_number():
    records = measured(seed=5).records

    assert np.array_equal(records.tokens_in, lengths.sample(CHAT.prompt, 5, 0, len(records), "prompt"))
    assert np.array_equal(records.tokens_asked, lengths.sample(CHAT.output, 5, 0, len(records), "output"))


def test_a_trace_is_replayed_with_its_lengths():
    workload = replace(CHAT, arrivals="trace", trace=TRACE)
    records = measured(seed=5, workload=workload).records

    assert records.scheduled_s == pytest.approx(arrivals.between(workload, 40.0, 5, 20.0))
    assert (records.tokens_in == lengths.tokens(workload, 5, 0, len(records))[0]).all()
    assert (records.tokens_asked == records.tokens_in // 10 - 1).all()


def test_a_lone_request_takes_its_steps_and_nothing_else():
    alone = Workload(name="alone", prompt=Lengths(mean=100), output=Lengths(mean=11), arrivals="constant")
    records = measured(
        replace(DEMO, kv_ns=0.0), Probe(by="rate", load=0.5, kind="main", max_s=9.0), workload=alone
    ).records
    decode_ms = DEMO.step_ms + DEMO.decode_us / 1e3

    assert records.ttft_ms() == pytest.approx(DEMO.step_ms + 100 * DEMO.prefill_us / 1e3)
    assert records.tpot_ms() == pytest.approx(decode_ms)
    assert records.gaps_us == pytest.approx(decode_ms * 1e3, abs=1)


def test_a_stop_ends_the_trial_and_leaves_what_is_in_flight_running():
    stop = Stop(reason="over", at_s=3.0)
    outcome = measured(watch=lambda records: stop if records.observed_s == 3.0 else None)

    assert (stop, 3.0) == (outcome.stop, outcome.duration_s)
    assert outcome.records.running.any()
    assert np.isnan(outcome.records.end_s[outcome.records.running]).all()


@pytest.mark.parametrize(("by", "load"), [("rate", 40.0), ("rate", 400.0), ("concurrency", 64.0)])
def test_the_budget_of_requests_ends_the_trial_as_the_last_is_sent(by, load):
    outcome = measured(probe=Probe(by=by, load=load, kind="main", max_requests=300))
    records = outcome.records

    assert outcome.stop == Stop(reason="budget", at_s=records.observed_s)
    assert len(records) == outcome.client.sent == 300
    assert records.scheduled_s[-1] == records.observed_s == outcome.duration_s


def test_time_ends_where_the_probe_says_even_within_a_second():
    assert measured(probe=replace(RATE, max_s=2.4)).stop == Stop(reason="budget", at_s=2.4)


def test_users_start_spread_out_and_are_back_just_after_their_last_token():
    records = measured(probe=USERS).records
    firsts, later = records.scheduled_s[records.scheduled_s < 2.0], records.scheduled_s[20:]
    starts = np.arange(20) * 0.1

    assert (np.sum(firsts[:, None] >= starts, axis=0) >= 20 - np.arange(20)).all()
    waits_s = later - np.array([np.max(records.end_s[records.end_s < due_s]) for due_s in later])
    assert ((waits_s > 0) & (waits_s < 0.0011)).mean() > 0.85  # the others still belong to the first wave


@pytest.mark.parametrize("cv", [0.0, 1.0])
def test_users_who_think_send_as_many_requests_as_pauses_and_answers_leave_time_for(cv):
    workload = replace(CHAT, think_time_s=ThinkTime(mean=5.0, cv=cv))
    records = measured(probe=replace(USERS, load=100.0, spread_s=0.5, max_s=200.0), workload=workload).records
    per_s = np.histogram(records.scheduled_s, bins=20, range=(0.0, 200.0))[0] / 10
    cycle_s = 5.0 + float(np.mean(records.e2el_ms()[records.ok])) / 1e3

    assert per_s.mean() == pytest.approx(100 / cycle_s, rel=0.03)
    assert per_s == pytest.approx(per_s.mean(), rel=0.25)  # from the first seconds on


def test_a_prefix_cache_holds_what_was_said_before():
    talking = replace(CHAT, turns=turns_like(6, 0.0), think_time_s=ThinkTime(mean=1.0, cv=1.0))
    caching = replace(DEMO, prefix_cache_tokens=100_000, max_model_len=8_192)
    told = [
        measured(profile, replace(USERS, spread_s=0.1, max_s=40.0), workload=talking).records
        for profile in (replace(caching, prefix_cache_tokens=0), caching)
    ]
    plain_ms, cached_ms = (np.median(records.ttft_ms()[records.tokens_in > 500]) for records in told)

    assert cached_ms < 0.7 * plain_ms


def test_a_long_trial_keeps_no_prompt_of_requests_that_are_over():
    its = replace(CHAT, prompt=Lengths(mean=4_096))
    run = Run(replace(DEMO, prefix_cache_tokens=8_192), its, replace(RATE, load=2.0), 1)

    tracemalloc.start()
    try:
        run.advance(200.0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held / len(run.records(200.0, gaps=False)) < 3_000  # 256 blocks would be 10 KB


def test_an_idle_hour_costs_nothing_and_shows_as_nothing():
    quiet = Probe(by="rate", load=0.01, kind="main", max_s=30.0)
    seen: list[int] = []
    outcome = measured(probe=quiet, seed=3, watch=lambda records: seen.append(len(records)))

    assert [0] * 30 == seen
    assert len(outcome.records) == 0


def test_requests_that_take_too_long_time_out_with_their_age():
    impatient = replace(CHAT, request_timeout_s=0.5)
    records = measured(replace(DEMO, max_num_seqs=8), replace(RATE, load=100.0), workload=impatient).records
    late = records.status == Status.TIMED_OUT

    assert late.mean() > 0.3
    assert records.age_s()[late] == pytest.approx(0.5)
    assert (records.age_s() < 0.5 + 0.1).all()


def test_a_request_that_no_server_can_hold_fails_at_once():
    records = measured(replace(DEMO, max_model_len=160)).records
    over = records.tokens_in + records.tokens_asked > 160

    assert 0 < over.sum() < len(records)
    assert np.array_equal(over, records.status == Status.FAILED)


def test_rejections_and_errors_are_counted_as_what_they_are():
    outcome = measured(replace(DEMO, faults=Faults(reject_every=5, error_every=7)))
    records, number = outcome.records, np.arange(1, len(outcome.records) + 1)
    settled = ~records.running

    assert np.array_equal(records.status == Status.REJECTED, number % 5 == 0)
    assert np.array_equal(records.status[settled] == Status.FAILED, ((number % 7 == 0) & (number % 5 != 0))[settled])
    assert sum(outcome.client.errors.values()) == records.broken.sum()


def test_users_that_are_turned_away_come_back_without_end():
    outcome = measured(replace(DEMO, faults=Faults(reject_every=1)), replace(USERS, max_s=1.0, spread_s=0.1))

    assert (outcome.records.status == Status.REJECTED).all()
    assert len(outcome.records) > 1000


@pytest.mark.parametrize("faults", [Faults(crash_after=100), Faults(crash_above=25)])
def test_a_crash_is_a_failure_and_no_measurement(faults):
    outcome = VirtualSession(replace(DEMO, faults=faults), CHAT).measure(replace(RATE, load=100.0), never, 1)

    assert isinstance(outcome, Failed)
    assert outcome.server_died
    assert "requests in flight" in outcome.log_tail


def test_drift_goes_on_from_trial_to_trial():
    session = VirtualSession(replace(DEMO, drift_per_s=0.01), CHAT)
    first, second = (session.measure(RATE, never, seed=1) for _ in range(2))

    assert session.clock_s == pytest.approx(40.0)
    assert np.nanmedian(second.records.tpot_ms()) > 1.1 * np.nanmedian(first.records.tpot_ms())


def test_more_slots_carry_more():
    few, many = (measured(replace(DEMO, max_num_seqs=slots), replace(RATE, load=100.0)).records for slots in (8, 32))

    assert 1.5 * few.ok.sum() < many.ok.sum()
