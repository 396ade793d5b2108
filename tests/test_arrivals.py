"""Arrival times: the asked rate, the asked burstiness, and the same from the same seed."""

from array import array
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline import arrivals, lengths
from redline.model import Lengths, Trace, Workload


def workload(**changes: object) -> Workload:
    return Workload(name="w", prompt=Lengths(mean=10), output=Lengths(mean=10), **changes)


@pytest.mark.parametrize(
    ("kind", "burstiness", "cv"), [("poisson", 1.0, 1.0), ("constant", 1.0, 0.0), ("gamma", 0.25, 2.0)]
)
def test_gaps_have_the_mean_and_the_variation_that_was_asked_for(kind, burstiness, cv):
    due = np.concatenate(list(islice(arrivals.times(workload(arrivals=kind, burstiness=burstiness), 8.0, seed=3), 60)))
    gaps = np.diff(due)

    assert gaps.mean() == pytest.approx(1 / 8, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.08, abs=1e-9)


def test_another_rate_scales_the_same_arrivals():
    slow = next(arrivals.times(workload(), 2.0, seed=5))
    fast = next(arrivals.times(workload(), 4.0, seed=5))

    np.testing.assert_allclose(slow, 2 * fast)


def test_between_ends_before_its_time_and_misses_none():
    due = arrivals.between(workload(), 100.0, seed=1, until_s=30.0)
    more = arrivals.between(workload(), 100.0, seed=1, until_s=60.0)

    assert due[-1] < 30.0 <= more[len(due)]
    np.testing.assert_array_equal(due, more[: len(due)])


def test_users_start_one_in_each_part_of_the_spread():
    starts = arrivals.user_starts(40, 8.0, seed=9)

    np.testing.assert_array_equal(np.arange(40), np.floor(starts / 0.2))


def test_a_user_start_differs_by_seed():
    assert arrivals.user_starts(1, 1.0, seed=1)[0] != arrivals.user_starts(1, 1.0, seed=2)[0]


# ---- ramps -----------------------------------------------------------------------------------------------------------

PROCESSES = st.sampled_from([{}, {"arrivals": "constant"}, {"arrivals": "gamma", "burstiness": 0.3}])


@given(PROCESSES, st.floats(0.1, 500), st.floats(0.1, 60), st.integers(0, 99))
def test_a_ramp_ends_at_0_and_what_follows_is_the_schedule_without_one(process, rate, ramp_s, seed):
    due = next(arrivals.times(workload(ramp_s=ramp_s, **process), rate, seed))
    plain = next(arrivals.times(workload(**process), rate, seed))

    assert due[0] >= -ramp_s
    assert (np.diff(due) >= 0).all()
    np.testing.assert_allclose(due[due >= 0], plain[due >= 0] - ramp_s / 2, atol=1e-9)


def test_the_rate_of_a_ramp_grows_evenly():
    due = arrivals.between(workload(ramp_s=40.0), 500.0, 3, 20.0)
    per_s = np.histogram(due, bins=12, range=(-40, 20))[0] / 5

    assert per_s[:8] == pytest.approx(500 * (np.arange(8) + 0.5) / 8, rel=0.12)
    assert per_s[8:] == pytest.approx(500, rel=0.06)


# ---- traces ----------------------------------------------------------------------------------------------------------

GAPS = st.lists(st.floats(0, 1e4, allow_nan=False), min_size=1, max_size=40).filter(lambda gaps: sum(gaps) > 1e-3)


def traced(gaps, **changes):
    times_s = array("d", np.concatenate([[0.0], np.cumsum(gaps)]))
    trace = Trace(file="t", sha256=repr(list(gaps)), times_s=times_s, has_lengths=False)
    return workload(arrivals="trace", trace=trace, **changes)


@given(GAPS, st.floats(0.01, 1e4), st.integers(0, 50))
def test_each_round_of_a_trace_has_the_rate_that_was_asked_for(gaps, rate, seed):
    due = next(arrivals.times(traced(gaps), rate, seed))
    entries = len(gaps) + 1

    assert (np.diff(due) >= -1e-9 / rate).all()
    assert due[0] >= 0
    np.testing.assert_allclose(due[entries:] - due[:-entries], entries / rate, rtol=1e-6)


@given(GAPS, st.integers(0, 50))
def test_a_trace_keeps_the_ratios_of_its_gaps_wherever_it_begins(gaps, seed):
    load = traced(gaps)
    due = next(arrivals.times(load, 1.0, seed))
    entries = len(gaps) + 1
    first = arrivals.first_entry(load.trace, seed)
    scale = (entries - 1) / sum(gaps)

    whole = np.append(gaps, sum(gaps) / (entries - 1)) * scale
    np.testing.assert_allclose(
        np.diff(due[: entries + 1]), np.take(whole, np.arange(first, first + entries), mode="wrap"), atol=1e-6
    )


def test_a_trace_goes_on_over_its_end_in_any_chunks():
    load = traced([1.0, 5.0, 0.5])
    due = np.concatenate(list(islice(arrivals.times(load, 3.0, seed=4), 3)))

    assert len(due) == 3 * 1024
    assert (np.diff(due) > 0).all()
    assert arrivals.between(load, 3.0, 4, 50.0) == pytest.approx(due[due < 50.0])


def test_different_seeds_begin_in_different_places_of_a_trace_lulls_included():
    load = traced([1.0] * 50 + [50.0] + [1.0] * 49)
    starts = [next(arrivals.times(load, 1.0, seed))[0] for seed in range(200)]
    firsts = {arrivals.first_entry(load.trace, seed) for seed in range(200)}

    assert len(firsts) > 40
    assert 0.2 < np.mean(np.array(starts) > 1.0) < 0.5  # a third of its time is one lull


def test_the_lengths_of_a_trace_come_with_its_times():
    trace = Trace(
        file="t",
        sha256="lengths",
        times_s=array("d", [0, 1, 2, 4]),
        prompt_tokens=array("i", [10, 20, 30, 40]),
        output_tokens=array("i", [1, 2, 3, 4]),
    )
    load = workload(arrivals="trace", trace=trace)
    prompts, outputs = lengths.tokens(load, 3, 0, 9)
    later, _ = lengths.tokens(load, 3, 5, 4)
    due = next(arrivals.times(load, 1.0, seed=3))[:9]

    assert (prompts == 10 * outputs).all()
    assert (later == prompts[5:]).all()
    after = dict(zip(prompts[:-1].tolist(), np.diff(due), strict=True))
    assert after[30] == pytest.approx(2 * after[10]) == pytest.approx(2 * after[20])


def test_lengths_of_its_own_take_the_place_of_those_of_a_trace():
    load = traced([1.0, 2.0])

    assert (lengths.tokens(load, 1, 0, 5)[0] == 10).all()
