"""What `redline bench` writes has vLLM's keys, types and formulae, and is read back as it was measured."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import made
from redline.bench.vllm import read_vllm
from redline.bench.vllmresult import Told, goodput_of, percentiles_of, vllm_result
from redline.experiment.workloads import PRESETS
from redline.model import UsageError
from redline.records import Records, Status

SAMPLES = Path(__file__).parent / "data" / "vllm"
TOLD = Told(
    by="rate", load=4.0, workload=PRESETS["chat"], model="m", began=datetime(2026, 1, 2, 3, 4, 5), detailed=True
)
CLOSED = Told(
    by="concurrency", load=8.0, workload=PRESETS["chat"], model="m", began=datetime(2026, 1, 2), detailed=True
)


def some() -> Records:
    """Three requests, sent 1 ms after they were due: two finished, one refused."""
    nan = np.nan
    return Records(
        observed_s=4.0,
        scheduled_s=np.array([0.0, 0.5, 1.2]),
        sent_s=np.array([0.001, 0.501, 1.201]),
        first_s=np.array([0.101, nan, 1.501]),
        end_s=np.array([0.501, 0.502, 3.501]),
        tokens_in=np.array([10, 20, 30], np.int32),
        tokens_out=np.array([5, 0, 3], np.int32),
        tokens_asked=np.array([5, 5, 3], np.int32),
        status=np.array([Status.OK, Status.REJECTED, Status.OK], np.uint8),
        gaps_us=np.array([100_000, 100_000, 100_000, 100_000, 1_000_000, 1_000_000], np.int32),
        gap_offsets=np.array([0, 4, 4, 6]),
    )


@pytest.mark.parametrize(
    ("told", "sample"), [(TOLD, "bench_detailed"), (CLOSED, "bench_inf_concurrency8"), (TOLD, "bench_rate4")]
)
def test_keys_types_and_their_order_are_those_of_a_real_result(told, sample):
    real = json.loads((SAMPLES / f"{sample}.json").read_text())
    real.pop("config", None)  # of --metadata
    ours = vllm_result(some(), replace(told, detailed="ttfts" in real))

    assert list(real) == list(ours)
    different = {
        key: (real[key], ours[key])
        for key in real
        if type(real[key]) is not type(ours[key]) and key not in ("label", "request_goodput")
    }
    assert {} == different
    assert real["request_rate"] == ours["request_rate"] or told.by == "rate"


def test_numbers_are_vllms_by_hand():
    result = vllm_result(some(), TOLD)

    assert (2, 1, 3) == (result["completed"], result["failed"], result["num_prompts"])
    assert (40, 8) == (result["total_input_tokens"], result["total_output_tokens"])  # the refused one asked for nothing
    assert (0.5, 2.0, 12.0) == tuple(result[f"{name}_throughput"] for name in ("request", "output", "total_token"))
    assert pytest.approx([100, 300]) == sorted(np.multiply(result["ttfts"], 1e3))[1:]
    assert pytest.approx((200, 200, 100)) == tuple(result[f"{w}_ttft_ms"] for w in ("mean", "median", "std"))
    assert pytest.approx(100 + 0.99 * 200) == result["p99_ttft_ms"]
    assert pytest.approx(np.percentile([100, 1000], 90)) == result["p90_tpot_ms"]  # (latency - ttft) / (tokens - 1)
    assert pytest.approx(np.mean([100] * 4 + [1000] * 2)) == result["mean_itl_ms"]
    assert pytest.approx((500 + 2300) / 2) == result["median_e2el_ms"]
    assert pytest.approx([0.001] * 3) == result["queue_times"]
    assert ["", "rejected (429 or 503)", ""] == result["errors"]
    assert (5.0, 1) == (result["max_output_tokens_per_s"], result["max_concurrent_requests"])


def test_requests_in_flight_at_the_end_are_not_in_it():
    records = made.records(20, 10.0, after_s=0.5)
    assert records.running.any()

    result = vllm_result(records, TOLD)

    assert int(records.ok.sum()) == result["completed"] == len(result["ttfts"])
    assert (0, 20) == (result["failed"], result["num_prompts"])


def test_nothing_finished_is_zeros_as_vllm_writes_them():
    result = vllm_result(made.records(3, 10.0, failed=[0, 1, 2]), TOLD)

    assert (0, 3, 0.0, 0.0) == tuple(result[key] for key in ("completed", "failed", "p99_ttft_ms", "mean_itl_ms"))
    assert (0.0, 0) == (result["max_output_tokens_per_s"], result["max_concurrent_requests"])


@pytest.mark.parametrize("told", [TOLD, CLOSED], ids=["rate", "concurrency"])
def test_our_reader_of_vllm_reads_back_what_was_measured(told, tmp_path):
    records, path = some(), tmp_path / "result.json"
    result = vllm_result(records, told) | {"redline": {}}
    path.write_text(json.dumps(result))

    (reading,) = read_vllm(path)

    assert (2, 1, 4.0, "m") == (reading.completed, reading.failed, reading.duration_s, reading.model)
    assert not reading.exact_rate  # our gaps are not scaled to their sum
    back = reading.records
    for field in ("ttft_ms", "tpot_ms", "e2el_ms"):
        ours, theirs = getattr(records, field)(), getattr(back, field)()
        late = {"tpot_ms": 0.0}.get(field, 1.0) * (told.by == "concurrency")  # there, vLLM's wait for a user is no wait
        assert pytest.approx(ours - late, nan_ok=True) == theirs
    assert records.gaps_us.tolist() == back.gaps_us.tolist()
    assert [True, False, True] == back.ok.tolist()


def test_the_plain_form_has_the_metrics_of_the_detailed_one(tmp_path):
    path = tmp_path / "result.json"
    result = vllm_result(some(), replace(TOLD, detailed=False))
    path.write_text(json.dumps(result))

    (reading,) = read_vllm(path)
    aggregates = reading.aggregates

    assert result["p99_ttft_ms"] == aggregates["p99_ttft_ms"]
    assert pytest.approx(1 / 3) == aggregates["error_rate"]


def test_goodput_counts_the_requests_that_keep_all_bounds():
    def goodput(**bounds_ms: float) -> float:
        told = replace(TOLD, goodput_ms=bounds_ms)
        return vllm_result(some(), told)["request_goodput"]

    assert vllm_result(some(), TOLD)["request_goodput"] is None
    assert (0.5, 0.25, 0.0) == (goodput(ttft=300.1), goodput(ttft=300.1, tpot=500), goodput(e2el=100))


def test_a_request_of_one_token_keeps_every_bound_on_its_time_per_token():
    told = replace(TOLD, goodput_ms={"tpot": 1.0})
    single = Records(**{**some().columns(), "observed_s": 4.0, "tokens_out": np.array([1, 0, 1], np.int32)})

    assert 0.5 == vllm_result(single, told)["request_goodput"]


@pytest.mark.parametrize(
    "words", [["ttft:200", "tpot:50"], ["ttft:200 tpot:50"], ["ttft_ms:200", "tpot_ms:50ms"]], ids=str
)
def test_goodput_is_written_as_vllm_takes_it(words):
    assert {"ttft": 200.0, "tpot": 50.0} == goodput_of(words)


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("tftt:200", "did you mean ttft"),
        ("ttft", "no number"),
        ("ttft:x", "no number"),
        ("ttft:-1", "no number"),
        ("ttft:1 ttft:2", "two bounds"),
    ],
)
def test_a_bad_bound_is_told(word, complaint):
    with pytest.raises(UsageError, match=complaint):
        goodput_of([word])


def test_a_cap_on_an_open_loop_is_vllms_max_concurrency_beside_a_rate():
    capped = replace(TOLD, workload=replace(PRESETS["chat"], max_in_flight=5))

    assert (4.0, 5) == tuple(vllm_result(some(), capped)[key] for key in ("request_rate", "max_concurrency"))


def test_percentiles_are_named_as_vllm_names_them():
    told = replace(TOLD, percentiles=percentiles_of("99.9,25.0,99.99999"))
    result = vllm_result(some(), told)

    assert {"p25_ttft_ms", "p99.9_e2el_ms", "p99.99999_e2el_ms"} <= set(result)
    assert "p99_ttft_ms" not in result
    with pytest.raises(UsageError, match="between 0 and 100"):
        percentiles_of("101")
