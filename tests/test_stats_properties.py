"""The statistics against brute force, the sample floors that the verdict promises, and the course of a trial."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from made import records
from redline import stats

LEVELS = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


def tail(n: int, p: float, counts: range) -> float:
    """The probability that a binomial count is one of these, summed term by term."""
    exact = Fraction(p)
    return float(sum(math.comb(n, i) * exact**i * (1 - exact) ** (n - i) for i in counts))


# ---- bounds on a share -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 60), confidence=LEVELS)
def test_share_bounds_are_exactly_clopper_and_pearson_s(data, n, confidence):
    k = data.draw(st.integers(0, n))
    low, high = stats.share_bounds(k, n, confidence)

    # At the upper bound so few over, at the lower one so many, are seen with just 1 - confidence.
    assert 1 - confidence == pytest.approx(tail(n, high, range(k + 1)), abs=1e-9) if k < n else high == 1
    assert 1 - confidence == pytest.approx(tail(n, low, range(k, n + 1)), abs=1e-9) if k else low == 0


@given(n=st.integers(1, 5000), k=st.floats(0, 1), more=st.floats(0, 1), confidence=LEVELS)
def test_more_over_never_lower_a_bound(n, k, more, confidence):
    fewer, many = sorted((k * n, more * n))
    below, above = stats.share_bounds(fewer, n, confidence), stats.share_bounds(many, n, confidence)

    assert below[0] <= above[0] + 1e-9  # the inverse beta function, at counts of next to nothing
    assert below[1] <= above[1] + 1e-9  # the inverse beta function, at counts of next to nothing


@given(n=st.integers(1, 5000), share=st.floats(0, 1), one=LEVELS, other=LEVELS)
def test_more_confidence_never_narrows_the_bounds(n, share, one, other):
    k, less, more = share * n, min(one, other), max(one, other)
    narrow, wide = stats.share_bounds(k, n, less), stats.share_bounds(k, n, more)

    assert wide[0] <= narrow[0] + 1e-9  # the inverse beta function, at counts of next to nothing
    assert narrow[1] <= wide[1] + 1e-9  # the inverse beta function, at counts of next to nothing
    if one != other and 0 < k < n:
        assert wide[1] - wide[0] > narrow[1] - narrow[0]


@given(n=st.integers(1, 2000), share=st.floats(0, 1), times=st.floats(1.1, 20), confidence=LEVELS)
def test_the_same_share_of_more_requests_is_bounded_more_tightly(n, share, times, confidence):
    few = stats.share_bounds(share * n, n, confidence)
    many = stats.share_bounds(share * n * times, n * times, confidence)

    assert few[0] <= many[0] + 1e-9
    assert many[1] <= few[1] + 1e-9  # the inverse beta function, at counts of next to nothing


@given(confidence=LEVELS)
def test_nothing_seen_bounds_nothing(confidence):
    assert (0, 1) == stats.share_bounds(0, 0, confidence)


# ---- the floors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "over", "requests"),
    [
        *[(0.01, over, n) for over, n in enumerate((459, 662, 838, 1001))],
        *[(0.05, over, n) for over, n in enumerate((90, 130, 165))],
        *[(0.10, over, n) for over, n in enumerate((44, 64, 81))],
    ],
)
def test_the_fewest_requests_that_pass_at_99_percent(allowed, over, requests):
    assert stats.share_bounds(over, requests, 0.99)[1] <= allowed < stats.share_bounds(over, requests - 1, 0.99)[1]
    assert over or requests == stats.floor_to_pass(allowed, 0.99)


@given(allowed=st.floats(0.001, 0.6), confidence=LEVELS, phi=st.floats(1, 30))
def test_the_floor_is_where_a_trial_without_any_over_begins_to_pass(allowed, confidence, phi):
    floor = stats.floor_to_pass(allowed, confidence, phi)

    assert stats.share_bounds(0, (floor + 1e-6) / phi, confidence)[1] <= allowed + 1e-9
    assert floor <= 1 or stats.share_bounds(0, (floor - 1) / phi, confidence)[1] > allowed - 1e-9


def test_a_p99_needs_230_requests_for_each_unit_of_dispersion_at_90_percent():
    assert [230, 459, 917] == [stats.floor_to_pass(0.01, 0.9, phi) for phi in (1, 2, 4)]


# ---- quantiles -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    values=st.lists(st.integers(0, 40) | st.just(math.inf), min_size=1, max_size=300),
    percent=st.sampled_from([1, 10, 50, 75, 90, 95, 99]),
    bound=st.integers(0, 40),
)
def test_a_quantile_keeps_a_bound_when_few_enough_values_exceed_it(values, percent, bound):
    over = sum(1 for value in values if value > bound)

    few_enough = 100 * over <= (100 - percent) * len(values)  # in whole numbers: nothing is rounded
    assert few_enough == (stats.quantile(np.array(values, float), percent / 100) <= bound)


def test_a_quantile_of_nothing_is_unknown():
    assert math.isnan(stats.quantile(np.array([]), 0.9))


# ---- dependence ------------------------------------------------------------------------------------------------------


def dispersions(over: np.ndarray) -> np.ndarray:
    """The phi of each row."""
    found = [stats.dispersion(row, np.ones_like(row), p * (1 - p), 12) for row in over if 0 < (p := row.mean()) < 1]
    assert {11} == {each.df for each in found}
    return np.array([each.phi for each in found])


def test_independent_values_have_a_dispersion_of_one():
    phi = dispersions((np.random.default_rng(1).random((400, 1200)) < 0.1).astype(float))

    # Of 400 with 11 degrees of freedom each, the mean has a standard deviation of .021.
    assert 1 == pytest.approx(phi.mean(), abs=0.1)
    assert 2.5 > np.quantile(phi, 0.98)


@pytest.mark.parametrize("together", [4, 10])
def test_values_that_come_in_groups_are_dispersed_as_the_groups_are_large(together):
    groups = np.random.default_rng(2).random((400, 1200 // together)) < 0.1
    phi = dispersions(np.repeat(groups, together, axis=1).astype(float))

    assert together == pytest.approx(phi.mean(), rel=0.15)


@given(weight=st.integers(1, 50), n=st.integers(24, 400), seed=st.integers(0, 10_000))
def test_units_that_go_together_by_request_count_as_the_request(weight, n, seed):
    over = (np.random.default_rng(seed).random(n) < 0.3).astype(float)
    share = over.mean()
    one = stats.dispersion(over, np.ones(n), share * (1 - share), 6)
    many = stats.dispersion(weight * over, np.full(n, float(weight)), share * (1 - share), 6)

    assert weight * one.phi == pytest.approx(many.phi)


@given(phis=st.lists(st.floats(0, 60), max_size=8), df=st.integers(0, 11), prior=st.floats(0.5, 8))
def test_pooling_lies_between_prior_and_what_was_seen_and_never_below_one(phis, df, prior):
    pooled = stats.pooled_phi([stats.Dispersion(phi=phi, df=df) for phi in phis], prior)
    told = [prior, *(phis if df else [])]

    assert max(1, min(told)) - 1e-9 <= pooled <= max(1, *told) + 1e-9


@pytest.mark.parametrize("values", [[], [0.0]])
def test_too_little_to_batch_says_nothing_on_dependence(values):
    seen = stats.dispersion(np.array(values), np.ones(len(values)), 0.1, 12)

    assert (1, 0) == (seen.phi, seen.df)


@settings(max_examples=30, deadline=None)
@given(confidence=st.sampled_from([0.8, 0.9, 0.99]), seed=st.integers(0, 1000))
def test_a_mean_lies_outside_its_bound_as_often_as_it_says(confidence, seed):
    batches = np.random.default_rng(seed).normal(0, 1, (4000, 8))
    errors = batches.std(axis=1, ddof=1) / math.sqrt(8)
    outside = sum(
        stats.mean_bounds(m, e, 7, confidence)[1] < 0 for m, e in zip(batches.mean(axis=1), errors, strict=True)
    )

    expected, spread = 4000 * (1 - confidence), math.sqrt(4000 * confidence * (1 - confidence))
    assert abs(outside - expected) < 5.5 * spread


# ---- the course of a trial -------------------------------------------------------------------------------------------


def queue(n: int, load: float, carried: float, seed: int, service_s: float = 0.5):
    """Requests in order through one station that passes on `carried` per second, then take `service_s`."""
    rng = np.random.default_rng(seed)
    due = np.arange(n) / load
    passed = np.zeros(n)
    at_s = 0.0
    for number, took_s in enumerate(rng.uniform(0.5, 1.5, n) / carried):
        at_s = passed[number] = max(at_s, due[number]) + took_s
    wait_s = passed - due
    return records(n, load, 1e3 * wait_s, e2e_s=wait_s + service_s, after_s=0.0)


@pytest.mark.parametrize("seed", range(10))
def test_a_growing_queue_is_seen_and_a_steady_one_is_not(seed):
    growing, steady = queue(3000, 50, 35, seed), queue(3000, 50, 65, seed)
    rise, level = (stats.growth(seen, 5.0, seen.observed_s) for seen in (growing, steady))

    assert rise.z > 6
    assert 0.3 == pytest.approx(rise.share, abs=0.06)  # 15 of each 50 stay
    assert level.z < 1.3
    assert abs(level.share) < 0.05
    assert stats.piles_up(growing)
    assert not stats.piles_up(steady)


@settings(max_examples=30, deadline=None)
@given(load=st.floats(0.5, 300), e2e_s=st.floats(0.01, 5), n=st.integers(100, 2000))
def test_the_same_latency_throughout_is_never_growth(load, e2e_s, n):
    seen = records(n, load, 1e3 * e2e_s / 2, e2e_s=e2e_s, after_s=0.0)
    assume(seen.observed_s > 2 * e2e_s)  # before the first have ended, no queue can be told from a slow answer
    start_s = stats.warm_up_s(seen)

    assert stats.growth(seen, start_s, seen.observed_s).z < 1.3
    assert not stats.piles_up(seen)


@given(seconds=st.floats(0.01, 2), n=st.integers(40, 500), after_s=st.floats(0, 60))
def test_the_warm_up_is_twice_the_p90_of_what_was_sent_first(seconds, n, after_s):
    e2e_s = np.where(np.arange(n) % 20 == 7, 10 * seconds, seconds)  # a slow one in twenty is above the p90
    seen = records(n, n / 30, e2e_s=e2e_s, ttft_ms=1.0, after_s=after_s + 30)

    assert 2 * seconds == pytest.approx(stats.warm_up_s(seen))


def test_the_warm_up_is_unknown_while_the_first_requests_run():
    assert math.isinf(stats.warm_up_s(records(100, 10.0, e2e_s=30.0, after_s=0.0)))
    assert math.isinf(stats.warm_up_s(records(0, 10.0)))
    assert 60 == pytest.approx(stats.warm_up_s(records(100, 10.0, e2e_s=30.0, after_s=40.0)))
