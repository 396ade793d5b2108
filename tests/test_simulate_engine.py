"""The engine: nobody is lost, no limit is broken, time only goes forward."""

from array import array
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.simulate.engine import Engine, Request
from redline.simulate.profiles import PROFILES, Profile

SMALL = replace(
    PROFILES["demo"], max_num_seqs=4, max_num_batched_tokens=32, kv_tokens=120, max_model_len=100, kv_ns=1_000.0
)
CROWD = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 40), st.floats(0.0, 2.0)), min_size=1, max_size=40
)  # prompt, output, gap to the one before


def served(profile: Profile, crowd: list[tuple[int, int, float]]) -> tuple[Engine, list[list[float]], list[int]]:
    """Step by step: when each request got its tokens, and who finished in which order."""
    engine, times, order = Engine(profile), [[] for _ in crowd], []
    due, at_s = [], 0.0
    for number, (prompt, output, gap_s) in enumerate(crowd):
        at_s += gap_s
        due.append((at_s, Request(number, prompt, output)))
    while due or engine.busy:
        while due and (due[0][0] <= engine.now_s or not engine.busy):
            at_s, request = due.pop(0)
            engine.submit(request, at_s)
        before_s = engine.now_s
        step = engine.step()
        assert step is not None
        assert step.duration_s > 0
        assert engine.now_s == pytest.approx(before_s + step.duration_s)
        assert len(engine.running) + len(step.finished) <= profile.max_num_seqs
        assert 0 <= engine.kv_used <= profile.kv_tokens
        for request in step.tokens:
            times[request.number].append(engine.now_s)
        order += [request.number for request in step.finished]
    return engine, times, order


@given(CROWD)
def test_every_request_gets_its_tokens_one_a_step_and_nobody_is_lost(crowd):
    engine, times, order = served(SMALL, crowd)

    assert [output for _, output, _ in crowd] == [len(own) for own in times]
    assert sorted(order) == list(range(len(crowd)))
    assert all(a < b for own in times for a, b in pairwise(own))
    assert (engine.kv_used, engine.running, len(engine.waiting)) == (0, {}, 0)


@given(CROWD)
def test_first_tokens_come_in_the_order_of_arrival(crowd):
    _, times, _ = served(SMALL, crowd)
    firsts = [own[0] for own in times]

    assert firsts == sorted(firsts)


@given(CROWD)
@settings(max_examples=50)
def test_skipping_ahead_changes_no_time(crowd):
    _, times, _ = served(SMALL, crowd)
    engine, ends, due_s = Engine(SMALL), array("d"), 0.0
    requests = []
    for number, (prompt, output, gap_s) in enumerate(crowd):
        due_s += gap_s
        while engine.busy and engine.now_s < due_s:
            engine.advance(due_s, ends)
        requests.append(Request(number, prompt, output))
        engine.submit(requests[-1], due_s)
    while engine.busy:
        engine.advance(float("inf"), ends)
    for request in requests:
        request.stays.append((request.first_step, request.last_step))
        seen = [ends[step] for first, last in request.stays for step in range(first, last + 1)]

        assert seen == pytest.approx(times[request.number])


def test_a_step_lasts_what_the_profile_says():
    engine = Engine(replace(SMALL, step_ms=10.0, prefill_us=100.0, decode_us=1_000.0, kv_ns=50_000.0))
    engine.submit(Request(0, prompt=20, output=3), at_s=5.0)
    durations = []
    while step := engine.step():
        durations.append(step.duration_s)

    assert durations == pytest.approx([0.010 + 0.002, 0.010 + 0.001 + 20 * 50e-6, 0.010 + 0.001 + 21 * 50e-6])
    assert engine.now_s == pytest.approx(5.0 + sum(durations))


def test_a_long_prompt_is_spread_over_steps_while_others_decode():
    engine = Engine(SMALL)
    engine.submit(Request(0, prompt=1, output=30), at_s=0.0)
    engine.step()
    engine.submit(Request(1, prompt=90, output=1), at_s=0.0)
    got = []
    while step := engine.step():
        got.append([request.number for request in step.tokens])

    assert got[:3] == [[0], [0], [0, 1]]  # 31 + 31 + 28 prompt tokens, each beside one decoded


def test_without_room_the_youngest_is_preempted_and_still_gets_every_token():
    crowd = [(50, 40, 0.0), (50, 40, 0.0)]  # 180 tokens, and the cache holds 120
    engine, times, order = served(SMALL, crowd)

    assert engine.preemptions >= 1
    assert order == [0, 1]
    assert [40, 40] == [len(own) for own in times]
    gaps = [b - a for a, b in pairwise(times[1])]
    assert max(gaps) > 5 * min(gaps)  # it waited for room


def test_an_aborted_request_leaves_its_slot_and_its_memory_wherever_it_is():
    engine = Engine(SMALL)
    requests = [Request(number, prompt=20, output=20) for number in range(8)]
    for request in requests:
        engine.submit(request, at_s=0.0)
    for _ in range(3):
        engine.step()
    assert engine.waiting
    for request in requests:
        engine.abort(request)
        engine.abort(request)  # twice does no harm

    assert (engine.busy, engine.kv_used) == (False, 0)
    assert engine.step() is None
    engine.submit(Request(8, prompt=20, output=2), at_s=9.0)
    assert [[8], [8]] == [[request.number for request in step.tokens] for step in iter(engine.step, None)]


def test_speed_differs_from_run_to_run_only_where_the_profile_says():
    def first_step_s(noise: float, seed: int) -> float:
        engine = Engine(replace(SMALL, run_noise=noise), seed)
        engine.submit(Request(0, 10, 1), 0.0)
        step = engine.step()
        assert step is not None
        return step.duration_s

    assert first_step_s(0.0, 1) == first_step_s(0.0, 2)
    assert first_step_s(0.1, 1) == first_step_s(0.1, 1) != first_step_s(0.1, 2)


def test_stalls_drift_and_a_cold_start_lengthen_steps():
    def busy_s(profile: Profile, age_s: float = 0.0) -> float:
        engine = Engine(profile, age_s=age_s)
        engine.submit(Request(0, 10, 80), 0.0)
        engine.advance(float("inf"), array("d"))
        return engine.now_s

    plain_s = busy_s(SMALL)
    assert busy_s(replace(SMALL, stall_every_s=1e9, stall_s=3.0)) == pytest.approx(plain_s)
    assert busy_s(replace(SMALL, stall_every_s=0.5, stall_s=3.0)) > plain_s + 3.0
    assert busy_s(replace(SMALL, drift_per_s=0.001), age_s=100.0) == pytest.approx(1.1 * plain_s, rel=0.01)
    assert busy_s(replace(SMALL, cold_factor=0.5, cold_s=1e6)) == pytest.approx(1.5 * plain_s, rel=0.01)
    assert busy_s(replace(SMALL, cold_factor=0.5, cold_s=1.0), age_s=100.0) == pytest.approx(plain_s, rel=0.01)


def test_a_stall_while_nothing_ran_harms_nobody_but_for_what_is_left_of_it():
    profile = replace(SMALL, stall_every_s=10.0, stall_s=2.0)
    lone_s = Engine(SMALL)
    lone_s.submit(Request(0, 10, 1), 0.0)
    step = lone_s.step()
    assert step is not None

    def latency_s(at_s: float) -> float:
        engine = Engine(profile)
        engine.submit(Request(0, 10, 1), at_s)
        while engine.busy:
            engine.step()
        return engine.now_s - at_s

    late_s = [latency_s(95.0 + i / 4) - step.duration_s for i in range(40)]  # one whole period, long after the start

    assert 0.7 * 40 < sum(late == pytest.approx(0.0, abs=1e-9) for late in late_s)
    assert sum(late > 1e-9 for late in late_s) in range(7, 11)  # 2 s of 10
    assert 2.0 >= max(late_s)
