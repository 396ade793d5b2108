"""Arrival times: the asked rate, the asked burstiness, and the same from the same seed."""

from itertools import islice

import numpy as np
import pytest

from redline import arrivals
from redline.model import Lengths, Workload


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
