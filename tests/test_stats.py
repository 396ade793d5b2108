import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made import records
from redline import stats


@pytest.mark.parametrize(
    ("over", "allowed", "fewest"),
    [(0, 0.01, 459), (1, 0.01, 662), (2, 0.01, 838), (3, 0.01, 1001), (0, 0.05, 90), (1, 0.05, 130), (0, 0.1, 44)],
)
def test_the_exact_bound_gives_the_known_sample_floors(over, allowed, fewest):
    assert stats.share_bounds(over, fewest, 0.99)[1] <= allowed
    assert stats.share_bounds(over, fewest - 1, 0.99)[1] > allowed


def test_no_requests_bound_nothing():
    assert (0.0, 1.0) == stats.share_bounds(0, 0, 0.9)


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.6, 0.999))
def test_the_bounds_hold_the_share_that_was_seen(n, share, confidence):
    k = round(share * n)
    low, high = stats.share_bounds(k, n, confidence)

    assert 0 <= low <= k / n <= high <= 1


def test_the_upper_bound_is_missed_as_often_as_it_says():
    rng = np.random.default_rng(7)
    highs = [stats.share_bounds(k, 300, 0.9)[1] for k in rng.binomial(300, 0.05, 2000)]

    assert np.mean(np.array(highs) < 0.05) <= 0.1


def test_the_floor_to_pass_grows_with_dependence():
    assert 230 == stats.floor_to_pass(0.01, 0.9)
    assert 917 == stats.floor_to_pass(0.01, 0.9, phi=4)


def test_student_bounds_need_two_batches():
    assert (-math.inf, math.inf) == stats.mean_bounds(1.0, 0.1, 0, 0.9)
    low, high = stats.mean_bounds(1.0, 0.1, 5, 0.9)
    assert (1 - 0.1476, 1 + 0.1476) == pytest.approx((low, high), abs=1e-4)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_quantile_is_met_exactly_when_few_enough_are_over(values, q):
    found = np.array(values)
    bound = float(np.median(found))

    assert (stats.quantile(found, q) <= bound) == ((found > bound).sum() <= (1 - q) * len(found) + 1e-9)


def test_the_quantile_of_nothing_is_nothing():
    assert math.isnan(stats.quantile(np.array([]), 0.9))


def test_independent_requests_show_no_overdispersion():
    rng = np.random.default_rng(1)
    found = [stats.dispersion((rng.random(2400) < 0.1) * 1.0, np.ones(2400), 0.09, 12).phi for _ in range(200)]

    assert 1 == pytest.approx(np.mean(found), abs=0.15)


def test_requests_that_go_together_count_as_few():
    rng = np.random.default_rng(1)
    blocks = [np.repeat((rng.random(120) < 0.1) * 1.0, 20) for _ in range(200)]
    found = [stats.dispersion(b, np.ones(2400), 0.09, 12).phi for b in blocks]

    assert 20 == pytest.approx(np.mean(found), rel=0.15)


def test_too_few_requests_say_nothing_on_dependence():
    assert 0 == stats.dispersion(np.array([1.0]), np.array([1.0]), 0.1, 12).df
    assert 0 == stats.dispersion(np.zeros(10), np.zeros(10), 0.1, 12).df
    assert 0 == stats.dispersion(np.ones(10), np.ones(10), 0.0, 12).df


def test_dependence_is_pooled_with_a_prior_and_never_below_independence():
    calm = stats.Dispersion(phi=0.2, df=1000)
    wild = stats.Dispersion(phi=20.0, df=11)

    assert 4 == stats.pooled_phi([])
    assert 1 == stats.pooled_phi([calm])
    assert (24 + 220) / 17 == pytest.approx(stats.pooled_phi([wild]))


def test_batches_are_as_many_as_independent_pieces_fit():
    assert [4, 4, 7, 12, 4] == [stats.batch_count(w, e) for w, e in [(1, 1), (4, 1), (7.5, 1), (100, 1), (10, 0)]]


def test_the_number_in_flight_is_what_began_and_did_not_end():
    found = records(100, 10.0, e2e_s=2.0)

    assert [0, 11, 20, 0] == stats.in_flight(found, np.array([-1.0, 1.0, 5.0, 14.0])).tolist()


def test_the_queue_is_what_has_no_token_yet():
    found = records(100, 10.0, ttft_ms=1000.0, e2e_s=2.0)

    assert [0, 10] == [stats.waiting(found, -1.0), stats.waiting(found, 5.05)]


def test_the_warm_up_is_unknown_while_early_requests_run():
    assert math.isinf(stats.warm_up_s(records(100, 10.0, e2e_s=60.0)))
    assert 2 == pytest.approx(stats.warm_up_s(records(100, 10.0, e2e_s=1.0)))
    assert math.isinf(stats.warm_up_s(records(0, 10.0)))


def test_a_steady_load_does_not_grow_and_a_growing_one_does():
    steady = stats.growth(records(2000, 50.0), 2.0, 40.0)
    rising = stats.growth(records(2000, 50.0, e2e_s=1 + np.arange(2000) / 50.0 * 0.2), 2.0, 40.0)

    assert 1.3 > steady.z
    assert 6 < rising.z
    assert 0.05 < rising.share
    assert stats.growth(records(10, 1.0), 5.0, 5.0).z == 0


def test_a_queue_piles_up_only_when_all_signs_say_so():
    waits = np.arange(2000) / 50.0 * 500  # each second of load adds half a second of waiting

    assert stats.piles_up(records(2000, 50.0, waits, e2e_s=waits / 1e3 + 0.2, after_s=0.0))
    assert not stats.piles_up(records(2000, 50.0, after_s=0.0))
    assert not stats.piles_up(records(20, 50.0, waits[:20] + 5000, after_s=0.0))


def test_a_slow_queue_remembers_itself_longer_than_a_quick_one():
    rng = np.random.default_rng(3)
    due = np.cumsum(rng.exponential(0.1, 4000))
    quick, slow = (records(4000, 10.0, e2e_s=e2e_s) for e2e_s in (0.2, 8.0))
    quick, slow = (replace(seen, scheduled_s=due, end_s=due + lasts) for seen, lasts in ((quick, 0.2), (slow, 8.0)))

    # Requests that last for a fixed time: the number in flight forgets within that time, linearly.
    assert 4.0 == pytest.approx(stats.relaxation_s(slow, 20.0, 380.0), rel=0.6)
    assert stats.relaxation_s(quick, 20.0, 380.0) < 1.5
    assert 0 == stats.relaxation_s(slow, 5.0, 5.0)


def test_requests_over_the_bound_are_of_one_clump_while_they_come_soon_after_each_other():
    due_s, over = np.arange(100.0), np.zeros(100)
    over[[3, 4, 5, 50, 80, 81]] = 1
    alone = (np.random.default_rng(0).random(100_000) < 0.05).astype(float)

    assert 3**2 + 1 + 2**2 == stats.clumped(due_s, over, 2.0)
    assert 6 == stats.clumped(due_s, over, 0.5)
    assert 0 == stats.clumped(due_s, np.zeros(100), 2.0)
    assert 1 < stats.clumped(np.arange(1e5), alone, 1e4) / alone.sum() < 3
