import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from redline.bench import Reading, read
from redline.bench.command import measured, nearest_below, not_offered, requests_for, unknown_metrics, warm_up_s
from redline.model import Probe, Trial
from redline.records import Records, Status
from redline.search.evidence import readings
from redline.sla import sla_of
from redline.verdict import judge, summary

DATA = Path(__file__).parent / "data" / "vllm"


def probe(by: str, load: float, **changes: object) -> Probe:
    return Probe(**{"by": by, "load": load, "kind": "main", **changes})  # type: ignore[arg-type]  # tests pass literals


def run_of(sent_s: list[float], lasted_s: list[float]) -> Reading:
    """A run with these requests, all finished well."""
    n = len(sent_s)
    sent, end = np.array(sent_s), np.array(sent_s) + np.array(lasted_s)
    ints = np.ones(n, np.int32)
    records = Records(
        observed_s=end.max(),
        scheduled_s=sent,
        sent_s=sent,
        first_s=sent,
        end_s=end,
        tokens_in=ints,
        tokens_out=ints,
        tokens_asked=ints,
        status=np.full(n, Status.OK, np.uint8),
    )
    return Reading(completed=n, failed=0, duration_s=end.max(), records=records, sending_s=sent.max())


@pytest.mark.parametrize(
    ("asked", "warm_up", "requests"),
    [
        (probe("rate", 1), 0.0, math.ceil(1.2 * 150)),
        (probe("rate", 10, need={"p99_ttft_ms<=200": 800, "p90_tpot_ms<=50": 150}), 3.0, math.ceil(1.2 * 830)),
        (probe("rate", 0.1, need={"p99_ttft_ms<=200": 800}), 3.0, 961),
        (probe("concurrency", 8), 99.0, 166),
        (probe("concurrency", 100), 0.0, 1000),
        (probe("concurrency", 100, max_requests=300), 0.0, 300),
    ],
)
def test_requests_cover_what_is_judged_and_the_warm_up_around_it(asked: Probe, warm_up: float, requests: int) -> None:
    assert requests == requests_for(asked, warm_up)


def test_requests_at_a_high_rate_last_long_enough_for_a_queue_to_build() -> None:
    few = {"p90_ttft_ms<=200": 12}

    assert math.ceil(1.2 * 15 * 1000) == requests_for(probe("rate", 1000, need=few), 0.0)
    assert math.ceil(1.2 * (4 * 20 + 20) * 10) == requests_for(probe("rate", 10, need=few), 20.0)
    assert math.ceil(1.2 * 1000) == requests_for(probe("rate", 1000, need=few, kind="scout"), 0.0)


def test_the_warm_up_is_expected_to_be_that_of_the_nearest_load_which_is_not_heavier() -> None:
    seen = {4.0: 1.0, 16.0: 2.0, 64.0: 30.0}

    assert 2.0 == nearest_below(seen, 40.0)
    assert 30.0 == nearest_below(seen, 64.0)
    assert 1.0 == nearest_below(seen, 1.0)
    assert 0.0 == nearest_below({}, 1.0)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("bench_rate4.json", probe("rate", 4)),
        ("bench_rate16.json", probe("rate", 16)),
        ("bench_detailed.json", probe("rate", 8)),
        ("bench_failures.json", probe("rate", 8)),
        ("bench_inf_concurrency8.json", probe("concurrency", 8)),
    ],
)
def test_real_runs_offered_the_load_they_were_asked_for(name: str, asked: Probe) -> None:
    assert not_offered(asked, read("vllm", DATA / name)) is None


@pytest.mark.parametrize(
    ("name", "asked", "why"),
    [
        ("bench_rate4.json", probe("rate", 8), "ran at 4 requests/s, not 8"),
        ("bench_inf_concurrency8.json", probe("rate", 8), "ran at inf requests/s, not 8"),
        ("bench_inf_concurrency8.json", probe("concurrency", 9), "kept 8 requests in flight, not 9"),
        ("bench_rate4.json", probe("concurrency", 8), "never more than 7 of 8 requests were in flight"),
        ("bench_rate4.json", probe("concurrency", 21), "40 requests cannot keep 21 in flight"),
        ("bench_detailed.json", probe("concurrency", 4), "never more than 1 of 4"),
    ],
)
def test_real_runs_did_not_offer_another_load(name: str, asked: Probe, why: str) -> None:
    refusal = not_offered(asked, read("vllm", DATA / name))

    assert refusal is not None
    assert why in refusal[0]
    assert refusal[1]


def test_a_client_that_sends_a_fifth_too_slowly_did_not_offer_the_rate() -> None:
    slow = run_of([i * 0.125 for i in range(801)], [0.05] * 801)

    refusal = not_offered(probe("rate", 10), slow)

    assert refusal is not None
    assert "sent 8 requests/s where 10 were asked" in refusal[0]
    assert not_offered(probe("rate", 8), slow) is None


def test_a_few_random_arrivals_may_take_longer_by_chance() -> None:
    few = run_of([i * 0.125 for i in range(9)], [0.05] * 9)

    assert not_offered(probe("rate", 10), few) is None


def test_chance_excuses_no_command_that_scales_its_gaps_to_the_rate() -> None:
    slow = run_of([i * 0.12 for i in range(101)], [0.05] * 101)

    assert not_offered(probe("rate", 10), slow) is None
    assert not_offered(probe("rate", 10), replace(slow, exact_rate=True)) is not None


def test_a_slow_server_is_no_slow_client() -> None:
    stuck = run_of([i * 0.1 for i in range(201)], [30.0] * 201)

    assert not_offered(probe("rate", 10), stuck) is None


def test_a_client_that_lets_its_users_idle_did_not_offer_the_concurrency() -> None:
    idle = run_of([0.0, 0.0, *[1 + i * 0.5 for i in range(98)]], [1.0, 1.0, *[0.3] * 98])

    refusal = not_offered(probe("concurrency", 2), idle)

    assert refusal is not None
    assert "in flight on average" in refusal[0]


def test_one_long_request_at_the_end_is_no_idle_client() -> None:
    sent = [i * 0.05 for i in range(100)]
    tail = run_of(sent, [*[0.1] * 99, 60.0])

    assert not_offered(probe("concurrency", 2), tail) is None


def test_a_metric_that_the_file_lacks_is_named() -> None:
    asked = probe("rate", 4, need={"p99_ttft_ms<=200": 800, "p99.9_ttft_ms<=300": 800, "error_rate<=0.01": 150})
    bounds = probe("rate", 4, need={"attainment(ttft_ms<=200)>=0.9": 150})
    reading = read("vllm", DATA / "bench_rate4.json")

    assert ["p99.9_ttft_ms"] == unknown_metrics(asked, reading)
    assert ["attainment(ttft_ms<=200)"] == unknown_metrics(bounds, reading)


def test_the_warm_up_is_twice_the_p90_of_e2el_but_leaves_half_the_run() -> None:
    assert pytest.approx(0.6) == warm_up_s(run_of([i * 0.1 for i in range(100)], [0.3] * 100))
    assert pytest.approx(19.95) == warm_up_s(run_of([i * 0.1 for i in range(100)], [30.0] * 100))
    assert 0 == warm_up_s(Reading(completed=1, failed=0, duration_s=1.0))


def test_a_measurement_carries_what_was_due_where_chance_cannot_explain_the_difference() -> None:
    slow = measured(probe("rate", 10), run_of([i * 0.11 for i in range(2001)], [0.05] * 2001), 0.1)
    unlucky = measured(probe("rate", 10), run_of([i * 0.11 for i in range(101)], [0.05] * 101), 0.1)

    assert (2200, 2001) == (slow.client.due, slow.client.sent)
    assert (101, 101) == (unlucky.client.due, unlucky.client.sent)
    assert ("ended", 0.1) == (slow.stop.reason, slow.stop.window_start_s)


def test_a_plain_result_is_measured_as_records_and_aggregates() -> None:
    outcome = measured(probe("rate", 16), read("vllm", DATA / "bench_rate16.json"), 0.1)

    assert outcome.records is not None
    assert 80 == len(outcome.records)
    assert "p99_ttft_ms" in outcome.aggregates[0]


def test_each_criterion_is_judged_on_what_the_plain_result_has_for_it() -> None:
    outcome = measured(probe("rate", 16), read("vllm", DATA / "bench_rate16.json"), 0.1)
    trial = Trial(id="1", case="", probe=probe("rate", 16), seed=1, started="", outcome=outcome)

    found = judge(trial, sla_of("", ["p50_e2el_ms<=1s", "p50_ttft_ms<=1s"]), 0.9)

    e2el, ttft, errors = found.criteria
    assert "undecided" == found.verdict
    assert e2el.n > 70
    assert errors.n > 70
    assert 0 == ttft.n
    assert "undecided" == ttft.verdict
    assert outcome.aggregates[0]["p50_ttft_ms"] == ttft.stat == summary(outcome)["p50_ttft_ms"]


def test_the_search_takes_from_a_plain_result_requests_for_e2el_and_totals_for_the_rest() -> None:
    outcome = measured(probe("rate", 16), read("vllm", DATA / "bench_rate16.json"), 0.1)
    trial = Trial(id="1", case="", probe=probe("rate", 16), seed=1, started="", outcome=outcome)

    (on_both,) = readings([trial], sla_of("", ["p90_e2el_ms<=1s", "p90_ttft_ms<=1s"]))
    (on_requests,) = readings([trial], sla_of("", ["p90_e2el_ms<=1s"]))

    assert ("full", 1) == (on_both.role, on_both.runs)
    assert outcome.aggregates[0]["p90_ttft_ms"] == pytest.approx(on_both.tallies["p90_ttft_ms<=1000"].stat)
    assert not on_both.tallies["p90_e2el_ms<=1000"].from_totals
    assert ("full", 0) == (on_requests.role, on_requests.runs)
