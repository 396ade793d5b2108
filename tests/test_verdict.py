import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made import full, records, shares, total, trial
from redline import stats
from redline.model import Invalid, Lengths, Measured, Probe, Stop, Workload
from redline.records import Status
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession
from redline.sla import allowed_share, parse_sla
from redline.verdict import judge, steady, summary, watcher

P99 = parse_sla("p99_ttft_ms<=200")
P90 = parse_sla("p90_ttft_ms<=200, p90_tpot_ms<=60")


def test_plenty_of_good_requests_pass():
    said = judge(full(50.0, 0.0, n=6000, sla=P99), P99, 0.9)

    assert "pass" == said.verdict
    assert ["pass", "pass"] == [c.verdict for c in said.criteria]


def test_plenty_of_bad_requests_fail():
    said = judge(full(50.0, 0.1, n=4000, sla=P99), P99, 0.9)

    assert "fail" == said.verdict
    assert ["fail", "pass"] == [c.verdict for c in said.criteria]


def test_an_undecided_verdict_says_how_many_more_requests_would_decide():
    said = judge(full(50.0, 0.008, n=2000, sla=P99), P99, 0.9).criteria[0]
    later = judge(full(50.0, 0.008, n=2000 + (said.more or 0) + 100, sla=P99), P99, 0.9)

    assert "undecided" == said.verdict
    assert said.low < 0.01 < said.high
    assert "pass" == later.criteria[0].verdict


def test_a_share_on_the_bound_is_never_decided():
    found = records(2000, 50.0, np.where(np.arange(2000) % 100 == 99, 500.0, 50.0))
    outcome = Measured(stop=Stop(reason="full", at_s=45, window_start_s=2.0), duration_s=45, records=found)
    said = judge(trial(outcome, Probe(by="rate", load=50, kind="main")), P99, 0.9).criteria[0]

    assert ("undecided", None, 19, 1900) == (said.verdict, said.more, said.k, said.n)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(10, 2500),
    confidence=st.sampled_from([0.8, 0.9, 0.99]),
    text=st.sampled_from(
        ["p99_ttft_ms<=200", "p90_ttft_ms<=200", "p99.9_ttft_ms<=200", "attainment(ttft_ms<=200)>=95%"]
    ),
)
def test_no_verdict_passes_below_the_sample_floor(n, confidence, text):
    sla = parse_sla(text)
    said = judge(full(50.0, 0.0, n=n, sla=sla), sla, confidence)

    for criterion in said.criteria:
        allowed = allowed_share(criterion.criterion)
        assert criterion.verdict != "pass" or criterion.n >= stats.floor_to_pass(allowed, confidence)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("seconds", [8, 15, 30])
def test_an_overloaded_server_measured_for_a_short_time_never_passes(seconds, seed):
    # It carries 59 requests/s at most; the bound of 20 s takes minutes to be broken.
    sla = parse_sla("p90_ttft_ms<=20s")
    workload = Workload(name="short", prompt=Lengths(mean=128), output=Lengths(mean=24))
    probe = Probe(by="rate", load=72, kind="list", max_s=seconds)
    outcome = VirtualSession(PROFILES["demo"], workload).measure(probe, lambda seen: None, seed)
    measured = trial(outcome, probe)

    assert not steady(measured)
    assert "pass" != judge(measured, sla, 0.9).verdict


def test_a_trial_whose_queue_grew_proves_no_pass():
    good = full(50.0, 0.0, n=6000, sla=P99)
    grown = replace(good, outcome=replace(good.outcome, stop=Stop(reason="over", at_s=100, window_start_s=2)))

    assert "undecided" == judge(grown, P99, 0.9).verdict
    assert "steady" in judge(grown, P99, 0.9).reason


def test_what_was_not_measured_is_undecided_with_its_reason():
    probe = Probe(by="rate", load=1, kind="main")
    invalid = judge(trial(Invalid(reason="the load worker died"), probe), P99, 0.9)
    short = records(100, 10.0, e2e_s=60.0)
    cold = trial(Measured(stop=Stop(reason="budget", at_s=15), duration_s=15, records=short), probe)

    assert ("undecided", "the load worker died") == (invalid.verdict, invalid.reason)
    assert "warm-up" in judge(cold, P99, 0.9).reason


def test_totals_decide_nothing():
    said = judge(total(5.0, P99, [{"p99_ttft_ms": 10.0, "completed": 5000, "failed": 0}]), P99, 0.9)

    assert "undecided" == said.verdict
    assert 10 == said.criteria[0].stat


def test_means_are_judged_from_their_batches():
    sla = parse_sla("mean_ttft_ms<=200")
    slow, close = shares(4000, 0.5, low_ms=100, high_ms=500), shares(4000, 0.5, low_ms=10, high_ms=389)
    verdicts = []
    for ttft in (np.full(4000, 50.0), slow, close):
        found = records(4000, 50.0, ttft)
        outcome = Measured(stop=Stop(reason="full", at_s=80, window_start_s=2.0), duration_s=80, records=found)
        verdicts.append(judge(trial(outcome, Probe(by="rate", load=50, kind="main")), sla, 0.9).criteria[0].verdict)

    assert ["pass", "fail", "undecided"] == verdicts


def test_throughput_passes_from_above():
    sla = parse_sla("request_throughput>=40")
    measured = full(50.0, n=3000, sla=sla)

    assert "pass" == judge(measured, sla, 0.9).criteria[0].verdict
    assert "fail" == judge(measured, parse_sla("request_throughput>=60"), 0.9).criteria[0].verdict


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_verdict_is_wrong_no_more_often_than_it_says(seed):
    # Twice the allowed share over, in 3,000 requests: a pass would need half of what is expected, six deviations away.
    said = [judge(full(50.0, 0.02, n=3000, sla=P99, seed=8 * seed + i), P99, 0.9).verdict for i in range(8)]

    assert said.count("pass") == 0


def test_a_summary_has_every_standard_metric():
    found = summary(full(50.0, 0.02, sla=P99).outcome)
    names = [
        f"{what}_{field}_ms"
        for what in ("mean", "median", "p50", "p90", "p95", "p99")
        for field in ("ttft", "tpot", "e2el")
    ]

    assert [] == [
        name for name in [*names, "request_throughput", "output_throughput", "error_rate"] if name not in found
    ]
    assert 50 == pytest.approx(found["request_throughput"], rel=0.15)  # it ends 5 s after the last arrival
    assert (50, 500) == pytest.approx((found["p95_ttft_ms"], found["p99_ttft_ms"]))


def test_a_summary_counts_failures_as_infinite_in_percentiles_only():
    broken = records(2000, 50.0, failed=range(0, 2000, 20))
    outcome = Measured(stop=Stop(reason="full", at_s=45, window_start_s=2.0), duration_s=45, records=broken)
    found = summary(outcome)

    assert (50, math.inf, 0.05) == pytest.approx(
        (found["mean_ttft_ms"], found["p99_ttft_ms"], found["error_rate"]), rel=0.1
    )


def test_a_summary_of_nothing_is_empty():
    outcome = Measured(stop=Stop(reason="budget", at_s=1), duration_s=1, records=records(0, 1.0))

    assert {} == summary(outcome)


def test_a_hopeless_trial_ends_early_and_names_the_criterion():
    probe = Probe(by="rate", load=50, kind="main", need={c.text: 90 for c in P90.criteria})
    stop = watcher(probe, P90, [])(records(400, 50.0, 500.0, after_s=0.0))

    assert stop is not None
    assert ("fail", "p90_ttft_ms<=200") == (stop.reason, stop.criterion)


def test_a_listed_load_is_measured_to_the_end():
    probe = Probe(by="rate", load=50, kind="list", need={c.text: 90 for c in P90.criteria})
    watch = watcher(probe, P90, [])

    assert watch(records(200, 50.0, 500.0, after_s=0.0)) is None
    stop = watch(records(1500, 50.0, 500.0, after_s=0.0))
    assert stop is not None
    assert "full" == stop.reason


def test_a_trial_is_not_full_before_its_requests_are_there():
    probe = Probe(by="rate", load=50, kind="main", need={P99.criteria[0].text: 800})
    watch = watcher(probe, P99, [])
    rng = np.random.default_rng(1)
    ttft = 20 + 10 * rng.random(2000)

    assert watch(records(500, 50.0, ttft[:500], after_s=0.0)) is None
    stop = watch(records(1200, 50.0, ttft[:1200], after_s=0.0))
    assert stop is not None
    assert ("full", 2.0) == (stop.reason, pytest.approx(stop.window_start_s, abs=0.01))


def test_a_failure_makes_the_default_error_rate_ask_for_its_own_requests():
    probe = Probe(by="rate", load=50, kind="main", need={c.text: 90 for c in P90.criteria})
    rng = np.random.default_rng(1)
    ttft = 20 + 10 * rng.random(2000)
    broken = records(500, 50.0, ttft[:500], after_s=0.0, failed=[300])

    assert watcher(probe, P90, [])(records(500, 50.0, ttft[:500], after_s=0.0)) is not None
    assert watcher(probe, P90, [])(broken) is None


def test_a_growing_queue_ends_a_trial_of_any_kind():
    waits = np.arange(3000) / 50.0 * 500
    seen = records(2000, 50.0, waits[:2000], e2e_s=waits[:2000] / 1e3 + 0.2, after_s=0.0)
    sla = parse_sla("p90_ttft_ms<=100s")

    for kind in ("scout", "main", "confirm", "hold", "list"):
        stop = watcher(Probe(by="rate", load=50, kind=kind, max_s=1e4), sla, [])(seen)
        assert stop is not None
        assert "over" == stop.reason


def test_a_hold_lasts_its_time():
    probe = Probe(by="rate", load=50, kind="hold", max_s=61)
    watch = watcher(probe, P99, [])

    assert watch(records(2900, 50.0, after_s=0.0)) is None
    stop = watch(records(3010, 50.0, after_s=0.0))
    assert stop is not None
    assert "full" == stop.reason


def test_a_scout_has_seen_enough_after_a_dozen_requests():
    watch = watcher(Probe(by="rate", load=5, kind="scout"), P99, [])

    assert watch(records(8, 5.0, after_s=0.0)) is None
    stop = watch(records(25, 5.0, after_s=0.0))
    assert stop is not None
    assert "scouted" == stop.reason


def test_a_closed_loop_that_nobody_answers_is_given_up():
    probe = Probe(by="concurrency", load=8, kind="main", need={P99.criteria[0].text: 800})
    hung = records(8, 100.0, 1e9, e2e_s=1e9, after_s=30.0)
    stop = watcher(probe, P99, [])(hung)

    assert stop is not None
    assert "fail" == stop.reason
    assert np.all(hung.status == Status.RUNNING)
