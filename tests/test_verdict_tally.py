import math
from dataclasses import replace

import numpy as np
import pytest

from made import TOKENS, records, shares
from redline.model import Measured, Stop
from redline.sla import parse_criterion
from redline.verdict.tally import delivered, first_look, lag_s, steady_window, tally, window_of

P99 = parse_criterion("p99_ttft_ms<=200")
P90_TPOT = parse_criterion("p90_tpot_ms<=50")
MEAN = parse_criterion("mean_ttft_ms<=200")


def test_only_requests_old_enough_to_have_kept_or_broken_the_bound_are_judged():
    found = records(1000, 10.0, after_s=0.0)
    window = window_of(found, 10.0)

    assert (0.2, 1.3, 1.3) == pytest.approx(tuple(lag_s(c, window) for c in (P99, P90_TPOT, MEAN)))
    assert (900 - 2, 900 - 13) == (tally(P99, found, window).n, tally(P90_TPOT, found, window).n)


def test_an_attainment_waits_for_its_slowest_bound():
    window = window_of(records(1000, 10.0), 10.0)
    criterion = parse_criterion("attainment(ttft_ms<=200, tpot_ms<=50, e2el_ms<=5s)>=90%")

    assert 5 == lag_s(criterion, window)


def test_a_measurement_that_let_all_finish_needs_no_lag():
    found = records(1000, 10.0)
    stop = Stop(reason="ended", at_s=found.observed_s)
    window = steady_window(Measured(stop=stop, duration_s=found.observed_s, records=found))

    assert window is not None
    assert (2.0, 99.9) == pytest.approx((window.start_s, window.end_s))
    assert 0 == lag_s(MEAN, window)


def test_a_trial_that_never_left_its_warm_up_has_no_window():
    found = records(100, 10.0, e2e_s=60.0)
    outcome = Measured(stop=Stop(reason="budget", at_s=15), duration_s=15.0, records=found)

    assert steady_window(outcome) is None
    assert steady_window(replace(outcome, records=None)) is None


def test_shares_are_judged_by_their_count():
    found = records(2000, 50.0, shares(2000, 0.02))
    said = tally(P99, found, window_of(found, 0.0))

    assert (2000, 40, 500.0, False) == (said.n, said.k, said.stat, said.met)
    assert 2.5 == said.ratio


def test_exactly_the_allowed_share_is_met():
    found = records(1000, 50.0, shares(1000, 0.01))

    assert tally(P99, found, window_of(found, 0.0)).met


def test_failed_requests_are_over_in_percentiles_and_left_out_of_means():
    found = records(1000, 50.0, failed=range(30))

    assert math.inf == tally(P99, found, window_of(found, 0.0)).stat
    assert 50 == pytest.approx(tally(MEAN, found, window_of(found, 0.0)).stat)


def test_unfinished_requests_enter_a_mean_with_their_age():
    late = np.full(1000, 50.0)
    late[100:110] = 1e6
    found = records(1000, 10.0, late)
    said = tally(MEAN, found, window_of(found, 0.0))

    assert 50 + 10 * (found.observed_s - 10.45) > said.stat > 500


def test_dependent_requests_show():
    slow = np.concatenate([np.full(1200, 50.0), np.full(1200, 500.0)])
    found = records(2400, 50.0, slow)

    assert 50 < tally(parse_criterion("p50_ttft_ms<=200"), found, window_of(found, 0.0)).phi


def test_without_a_failure_failures_are_not_thought_to_cluster():
    criterion = parse_criterion("error_rate<=1%")
    good, bad = records(1000, 50.0), records(1000, 50.0, failed=range(100, 110))

    assert 1 == tally(criterion, good, window_of(good, 0.0)).phi
    assert 4 < tally(criterion, bad, window_of(bad, 0.0)).phi


def test_gaps_count_for_little_when_those_of_a_request_go_together():
    gaps = np.repeat(shares(500, 0.2, low_ms=10, high_ms=30), TOKENS - 1)
    found = replace(
        records(500, 10.0),
        gaps_us=(gaps * 1e3).astype(np.int32),
        gap_offsets=np.arange(501, dtype=np.int64) * (TOKENS - 1),
    )
    said = tally(parse_criterion("p90_itl_ms<=20"), found, window_of(found, 0.0))

    assert (10_000, 2_000, 500, 30) == (said.n, said.k, said.requests, said.stat)
    assert 20 * 4 * 0.8 < said.prior_phi


def test_throughput_is_judged_on_slices_of_time():
    found = records(1000, 10.0)
    said = tally(parse_criterion("request_throughput>=9"), found, window_of(found, 5.0))

    assert 10 == pytest.approx(said.stat, rel=0.06)
    assert said.met
    assert 0.9 == pytest.approx(said.ratio, rel=0.06)


def test_tokens_are_delivered_evenly_between_the_first_and_the_last():
    found = records(1, 1.0, 0.0, e2e_s=2.0)

    assert [0, TOKENS / 2, TOKENS] == pytest.approx(delivered("output", found, np.array([0.0, 1.0, 3.0])).tolist())
    assert [100, 100 + TOKENS / 2] == pytest.approx(delivered("total", found, np.array([0.0, 1.0])).tolist())
    assert [0, 1] == delivered("request", found, np.array([1.0, 2.0])).tolist()


def test_a_first_look_takes_a_percentile_that_a_dozen_requests_can_show():
    found = records(12, 1.0, np.linspace(100, 210, 12))

    assert 210 / 200 == pytest.approx(first_look(P99, found, 0).look)
    assert 8 == first_look(P99, found, 4).n


def test_nothing_known_is_no_pass():
    found = records(10, 10.0, 1e6, e2e_s=1e4, after_s=0.0)
    said = tally(P90_TPOT, found, window_of(found, 0.0))

    assert (0, False, math.inf) == (said.n, said.met, said.ratio)
