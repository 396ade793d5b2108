"""Readers of the field's clients, on files that the real clients wrote: tests/data/README.md has the commands."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from redline.bench import Reading, ResultError, knows, read, read_runs, reader_of
from redline.bench.command import measured, not_offered
from redline.experiment.external import READERS
from redline.model import Probe
from redline.records import Records, Status

DATA = Path(__file__).parent / "data"
GUIDELLM, AIPERF, SGLANG, INFERENCE_PERF = (DATA / name for name in ("guidellm", "aiperf", "sglang", "inference-perf"))
STAGE = "stage_0_lifecycle_metrics.json"
REQUESTS = "per_request_lifecycle_metrics.json"
RUNS = [
    ("guidellm", GUIDELLM / "rate8.json", 24, 0, "rate", 8.0),
    ("guidellm", GUIDELLM / "concurrency4.json", 12, 0, "concurrency", 4.0),
    ("guidellm", GUIDELLM / "failures.json", 9, 3, "rate", 8.0),
    ("sglang", SGLANG / "rate8.jsonl", 20, 0, "rate", 8.0),
    ("sglang", SGLANG / "concurrency4.jsonl", 20, 0, "concurrency", 4.0),
    ("sglang", SGLANG / "failures.jsonl", 9, 3, "rate", 8.0),
    ("aiperf", AIPERF / "rate8", 20, 0, "rate", 8.0),
    ("aiperf", AIPERF / "concurrency4", 20, 0, "concurrency", 4.0),
    ("aiperf", AIPERF / "failures", 9, 3, "rate", 8.0),
    ("inference-perf", INFERENCE_PERF / "rate8", 24, 0, "rate", 8.0),
    ("inference-perf", INFERENCE_PERF / "concurrency4", 16, 0, "concurrency", 4.0),
    ("inference-perf", INFERENCE_PERF / "failures", 12, 4, "rate", 8.0),
]
TIMINGS = ("benchmarks", 0, "requests", "successful", 3, "info", "timings")
IDLING = INFERENCE_PERF / "concurrency4"  # its users waited before they sent again
TOTALS = [
    ("sglang", SGLANG / "plain.jsonl", 20),
    ("inference-perf", INFERENCE_PERF / "rate8" / STAGE, 24),
]


def json_of(path: Path) -> dict[str, object]:
    data = json.loads(path.read_text())
    assert isinstance(data, dict)
    return data


def at(data: object, *keys: str | int) -> float:
    for key in keys:
        data = data[key]  # type: ignore[index]  # a JSON file of somebody else
    return float(data)  # type: ignore[arg-type]


def copied(file: Path, folder: Path) -> Path:
    """A copy that stands alone."""
    return Path(shutil.copy(file, folder))


def records_of(reading: Reading) -> Records:
    assert reading.records is not None
    return reading.records


def test_every_reader_that_a_file_may_name_is_there_and_no_other() -> None:
    for name in READERS:
        assert callable(reader_of(name))
    assert {"vllm", *(name for name, *_ in RUNS)} == set(READERS)


@pytest.mark.parametrize(("client", "path", "completed", "failed", "by", "load"), RUNS)
def test_a_real_run_tells_its_requests_and_its_load(
    client: str, path: Path, completed: int, failed: int, by: str, load: float
) -> None:
    reading = read(client, path)
    records = records_of(reading)

    assert (completed, failed) == (reading.completed, reading.failed)
    assert completed + failed == len(records) == reading.requests
    assert failed == records.broken.sum() == sum(reading.errors.values())
    asked = (reading.asked_rate, None) if by == "rate" else (None, reading.asked_concurrency)
    assert ((load, None) if by == "rate" else (None, load)) == asked
    assert {} == reading.aggregates


@pytest.mark.parametrize(("client", "path", "completed", "failed", "by", "load"), RUNS)
def test_records_are_in_the_order_of_their_schedule_and_complete(
    client: str, path: Path, completed: int, failed: int, by: str, load: float
) -> None:
    records = records_of(read(client, path))
    ok = records.ok

    assert 0 == records.scheduled_s[0]
    assert (np.diff(records.scheduled_s) >= 0).all()
    assert (records.sent_s >= records.scheduled_s).all()
    assert (records.first_s[ok] > records.sent_s[ok]).all()
    assert (records.end_s[ok] > records.first_s[ok]).all()
    assert not np.isnan(records.end_s).any()
    assert 16 == records.tokens_out.max()  # what was asked for, as the server counted
    assert (records.tokens_in[ok] > 0).all()
    if client != "sglang":  # its errors carry a text, but no status
        assert failed == (records.status == Status.REJECTED).sum()


@pytest.mark.parametrize(("client", "path", "completed", "failed", "by", "load"), RUNS)
def test_a_real_run_offered_its_load_and_no_other(
    client: str, path: Path, completed: int, failed: int, by: str, load: float
) -> None:
    reading = read(client, path)

    right = Probe(by=by, load=load, kind="main")  # type: ignore[arg-type]  # the table holds literals
    wrong = Probe(by=by, load=2 * load, kind="main")  # type: ignore[arg-type]
    if path != IDLING:
        assert not_offered(right, reading) is None
    assert not_offered(wrong, reading) is not None
    assert measured(right, reading, 0.1).client.sent == completed + failed


@pytest.mark.parametrize(("client", "path", "completed"), TOTALS)
def test_a_file_of_totals_gives_aggregates(client: str, path: Path, completed: int) -> None:
    reading = read(client, path)

    assert reading.records is None
    assert completed == reading.completed == reading.aggregates["completed"]
    for name in ("p50_ttft_ms", "median_ttft_ms", "p90_tpot_ms", "p99_itl_ms", "p95_e2el_ms", "request_throughput"):
        assert knows(reading, name)
    assert reading.aggregates["p50_ttft_ms"] == reading.aggregates["median_ttft_ms"]
    assert not knows(reading, "attainment(ttft_ms<=200)")


# ---- guidellm --------------------------------------------------------------------------------------------------------


def edited(path: Path, tmp_path: Path, change: dict[tuple[str | int, ...], object]) -> Path:
    """A copy with some values changed."""
    data = json_of(path)
    for keys, value in change.items():
        place: object = data
        for key in keys[:-1]:
            place = place[key]  # type: ignore[index]  # a JSON file of somebody else
        place[keys[-1]] = value  # type: ignore[index]
    copy = tmp_path / path.name
    copy.write_text(json.dumps(data))
    return copy


def test_guidellms_time_per_token_is_its_inter_token_latency() -> None:
    path = GUIDELLM / "rate8.json"
    metrics = ("benchmarks", 0, "metrics")
    records = records_of(read("guidellm", path))

    theirs = at(json_of(path), *metrics, "inter_token_latency_ms", "successful", "mean")
    assert theirs == pytest.approx(records.tpot_ms().mean(), rel=1e-4)
    ttft = at(json_of(path), *metrics, "time_to_first_token_ms", "successful", "mean")
    assert ttft == pytest.approx(1e3 * (records.first_s - records.sent_s).mean(), rel=1e-4)
    assert not knows(read("guidellm", path), "p99_itl_ms")


def test_guidellm_in_open_loop_counts_from_the_schedule_and_in_closed_loop_from_the_send() -> None:
    open_loop, closed = (records_of(read("guidellm", GUIDELLM / f"{name}.json")) for name in ("rate8", "concurrency4"))

    assert np.allclose(np.diff(open_loop.scheduled_s), 0.125, atol=1e-5)
    assert (open_loop.sent_s > open_loop.scheduled_s).all()
    assert (closed.sent_s == closed.scheduled_s).all()


def test_a_guidellm_report_that_kept_a_sample_of_its_requests_gives_totals(tmp_path: Path) -> None:
    whole = json_of(GUIDELLM / "rate8.json")
    kept = whole["benchmarks"][0]["requests"]["successful"][:5]  # type: ignore[index]
    path = edited(GUIDELLM / "rate8.json", tmp_path, {("benchmarks", 0, "requests", "successful"): kept})

    reading = read("guidellm", path)

    assert reading.records is None
    assert 24 == reading.aggregates["completed"]
    metrics = ("benchmarks", 0, "metrics")
    assert at(whole, *metrics, "time_to_first_token_ms", "successful", "percentiles", "p99") == pytest.approx(
        reading.aggregates["p99_ttft_ms"]
    )
    assert 1e3 * at(whole, *metrics, "request_latency", "successful", "mean") == pytest.approx(
        reading.aggregates["mean_e2el_ms"]
    )
    assert 24 * 16 / at(whole, "benchmarks", 0, "duration") == pytest.approx(reading.aggregates["output_throughput"])


def test_requests_that_guidellm_cut_off_are_unfinished(tmp_path: Path) -> None:
    benchmark = json_of(GUIDELLM / "rate8.json")["benchmarks"][0]  # type: ignore[index]
    requests = benchmark["requests"]["successful"]
    requests[-1]["info"]["timings"] |= {"last_token_iteration": None, "request_end": None}
    change = {
        ("benchmarks", 0, "requests", "successful"): requests[:-1],
        ("benchmarks", 0, "requests", "incomplete"): requests[-1:],
    }

    reading = read("guidellm", edited(GUIDELLM / "rate8.json", tmp_path, change))

    assert (23, 0, 1) == (reading.completed, reading.failed, reading.unfinished)
    assert Status.RUNNING == records_of(reading).status[-1]
    assert math.isnan(records_of(reading).end_s[-1])


@pytest.mark.parametrize("due", [1.6, -0.99, 0.0])
def test_a_guidellm_run_that_left_its_schedule_is_refused(due: float, tmp_path: Path) -> None:
    path = edited(GUIDELLM / "rate8.json", tmp_path, {(*TIMINGS, "targeted_start"): due})

    with pytest.raises(ResultError, match="planned 1 of 24 requests for a time before its start"):
        read("guidellm", path)


def test_a_report_of_several_benchmarks_holds_several_runs_but_is_no_trial(tmp_path: Path) -> None:
    benchmarks = [json_of(GUIDELLM / f"{name}.json")["benchmarks"][0] for name in ("rate8", "failures")]  # type: ignore[index]
    path = edited(GUIDELLM / "rate8.json", tmp_path, {("benchmarks",): benchmarks})

    assert [24, 9] == [reading.completed for reading in read_runs("guidellm", path)]
    with pytest.raises(ResultError, match="holds 2 runs; have the command make one, at one load"):
        read("guidellm", path)


# ---- aiperf ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["profile_export.jsonl", "profile_export_aiperf.json"])
def test_either_file_of_an_aiperf_run_finds_the_other(name: str) -> None:
    whole, part = read("aiperf", AIPERF / "rate8"), read("aiperf", AIPERF / "rate8" / name)

    assert records_of(whole).end_s.tolist() == records_of(part).end_s.tolist()
    assert 8 == part.asked_rate


def test_the_files_of_an_aiperf_run_with_a_name_of_its_own_find_each_other(tmp_path: Path) -> None:
    shutil.copy(AIPERF / "rate8" / "profile_export.jsonl", tmp_path / "mine.jsonl")
    shutil.copy(AIPERF / "rate8" / "profile_export_aiperf.json", tmp_path / "mine.json")

    for name in ("mine.jsonl", "mine.json"):
        assert (8, True) == ((found := read("aiperf", tmp_path / name)).asked_rate, found.records is not None)


def test_aiperfs_own_statistics_follow_from_its_requests() -> None:
    export = json_of(AIPERF / "rate8" / "profile_export_aiperf.json")
    records = records_of(read("aiperf", AIPERF / "rate8"))

    sent_to_first_ms = 1e3 * (records.first_s - records.sent_s)
    assert at(export, "time_to_first_token", "p99") == pytest.approx(np.quantile(sent_to_first_ms, 0.99), rel=1e-4)
    assert at(export, "inter_token_latency", "avg") == pytest.approx(records.tpot_ms().mean(), rel=1e-4)
    assert at(export, "inter_chunk_latency", "avg") == pytest.approx(records.gaps_us.mean() / 1e3, rel=1e-4)
    sent_to_end_ms = 1e3 * (records.end_s - records.sent_s)
    assert at(export, "request_latency", "avg") == pytest.approx(sent_to_end_ms.mean(), rel=1e-4)


def test_aiperfs_totals_alone_give_aggregates(tmp_path: Path) -> None:
    path = copied(AIPERF / "failures" / "profile_export_aiperf.json", tmp_path)
    export = json_of(path)

    reading = read("aiperf", path)

    assert (9, 3, 8) == (reading.completed, reading.failed, reading.asked_rate)
    assert 0.25 == reading.aggregates["error_rate"]
    assert at(export, "inter_token_latency", "p90") == reading.aggregates["p90_tpot_ms"]
    assert at(export, "inter_chunk_latency", "p90") == reading.aggregates["p90_itl_ms"]
    assert at(export, "request_throughput", "avg") == reading.aggregates["request_throughput"]


def test_aiperfs_requests_alone_do_not_tell_the_load(tmp_path: Path) -> None:
    reading = read("aiperf", copied(AIPERF / "rate8" / "profile_export.jsonl", tmp_path))

    assert 20 == reading.completed
    assert (None, None) == (reading.asked_rate, reading.asked_concurrency)


def test_requests_that_aiperf_counted_but_did_not_write_are_missed(tmp_path: Path) -> None:
    copied(AIPERF / "rate8" / "profile_export_aiperf.json", tmp_path)
    lines = (AIPERF / "rate8" / "profile_export.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "profile_export.jsonl").write_text("".join(lines[:-1]))

    with pytest.raises(ResultError, match=r"holds 19 requests, but .*profile_export_aiperf\.json counts 20"):
        read("aiperf", tmp_path)


# ---- sglang ----------------------------------------------------------------------------------------------------------


def test_sglangs_own_statistics_follow_from_its_requests() -> None:
    result = json_of(SGLANG / "rate8.jsonl")
    records = records_of(read("sglang", SGLANG / "rate8.jsonl"))

    assert at(result, "p99_ttft_ms") == pytest.approx(np.quantile(records.ttft_ms(), 0.99))
    assert at(result, "mean_e2e_latency_ms") == pytest.approx(records.e2el_ms().mean(), rel=1e-3)
    assert at(result, "mean_tpot_ms") == pytest.approx(records.tpot_ms().mean(), rel=1e-3)
    assert at(result, "mean_itl_ms") == pytest.approx(records.gaps_us.mean() / 1e3, rel=1e-3)


def test_a_plain_sglang_result_does_not_say_how_many_failed() -> None:
    reading = read("sglang", SGLANG / "plain.jsonl")

    assert reading.failed is None
    assert not knows(reading, "error_rate")
    assert at(json_of(SGLANG / "plain.jsonl"), "p99_e2e_latency_ms") == reading.aggregates["p99_e2el_ms"]


def test_a_file_that_sglang_appended_to_holds_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    path.write_text((SGLANG / "rate8.jsonl").read_text() + (SGLANG / "failures.jsonl").read_text())

    assert [20, 9] == [reading.completed for reading in read_runs("sglang", path)]


# ---- inference-perf --------------------------------------------------------------------------------------------------


def test_inference_perfs_own_statistics_follow_from_its_requests() -> None:
    stage = json_of(INFERENCE_PERF / "rate8" / STAGE)
    records = records_of(read("inference-perf", INFERENCE_PERF / "rate8"))

    latency = ("successes", "latency")
    assert at(stage, *latency, "time_to_first_token", "p99") == pytest.approx(
        np.quantile(records.ttft_ms(), 0.99) / 1e3
    )
    e2e_s = records.e2el_ms().mean() / 1e3
    assert at(stage, *latency, "request_latency", "mean") == pytest.approx(e2e_s, rel=0.01)  # ends with the connection


def test_inference_perfs_users_who_wait_between_requests_are_noticed() -> None:
    refusal = not_offered(Probe(by="concurrency", load=4, kind="main"), read("inference-perf", IDLING))

    assert refusal is not None
    assert "kept 2.29 of 4 requests in flight on average" in refusal[0]


def test_inference_perfs_stages_beside_each_other_are_known_by_their_totals(tmp_path: Path) -> None:
    shutil.copytree(INFERENCE_PERF / "rate8", tmp_path, dirs_exist_ok=True)
    shutil.copy(INFERENCE_PERF / "failures" / STAGE, tmp_path / "stage_1_lifecycle_metrics.json")

    runs = read_runs("inference-perf", tmp_path)

    assert [(24, 0), (12, 4)] == [(run.completed, run.failed) for run in runs]
    assert not any(run.records for run in runs)


def test_inference_perfs_requests_alone_do_not_tell_the_load() -> None:
    reading = read("inference-perf", INFERENCE_PERF / "rate8" / REQUESTS)

    assert (24, None) == (reading.completed, reading.asked_rate)


# ---- bad files -------------------------------------------------------------------------------------------------------

FILES = [
    ("guidellm", GUIDELLM / "rate8.json"),
    ("sglang", SGLANG / "rate8.jsonl"),
    ("sglang", SGLANG / "plain.jsonl"),
    ("aiperf", AIPERF / "rate8" / "profile_export.jsonl"),
    ("aiperf", AIPERF / "rate8" / "profile_export_aiperf.json"),
    ("inference-perf", INFERENCE_PERF / "rate8" / STAGE),
    ("inference-perf", INFERENCE_PERF / "rate8" / REQUESTS),
]


@pytest.mark.parametrize(("client", "file"), FILES)
@pytest.mark.parametrize("share", [0.02, 0.51, 0.99])
def test_a_truncated_file_is_refused(client: str, file: Path, share: float, tmp_path: Path) -> None:
    data = file.read_bytes()
    (path := tmp_path / file.name).write_bytes(data[: int(share * len(data))])

    with pytest.raises(ResultError, match="no complete JSON") as caught:
        read(client, path)
    assert str(path) in str(caught.value)
    assert "?" in str(caught.value)


@pytest.mark.parametrize(("client", "file"), FILES)
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xff\xfe", b"[1, 2]", b"7", b"{}", b'{"a": 1}', b"[" * 100_000, b"[]"]
)
def test_a_file_that_is_no_result_is_refused(client: str, file: Path, content: bytes, tmp_path: Path) -> None:
    (path := tmp_path / file.name).write_bytes(content)

    with pytest.raises(ResultError) as caught:
        read(client, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("client", ["vllm", *dict.fromkeys(client for client, _ in FILES)])
def test_a_result_of_another_client_is_refused(client: str, tmp_path: Path) -> None:
    others = [file for other, file in FILES if other != client]
    for number, file in enumerate(others):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ResultError):
            read(client, copied(file, tmp_path / str(number)))


@pytest.mark.parametrize("client", ["guidellm", "sglang", "aiperf", "inference-perf"])
def test_a_result_that_was_not_written_is_refused(client: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="wrote no result"):
        read(client, tmp_path / "none.json")


@pytest.mark.parametrize("client", ["aiperf", "inference-perf"])
def test_an_empty_folder_is_no_result(client: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="holds n"):
        read(client, tmp_path)


NAN = math.nan


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ((*TIMINGS, "request_start"), NAN, r"successful\[3\]: info: timings: has no request_start"),
        ((*TIMINGS, "request_start"), "soon", r"timings: request_start is 'soon', not a number"),
        ((*TIMINGS, "request_start"), -1.0, "request_start is -1"),
        (("benchmarks", 0, "config", "strategy", "rate"), NAN, "strategy: has no rate"),
        (("benchmarks",), [], "holds no benchmark"),
        (("benchmarks",), {}, "benchmarks is no list"),
        (("benchmarks", 0), 7, r"benchmarks\[0\] is no object"),
        (("benchmarks", 0, "metrics", "request_totals", "total"), 24.5, "total is 24.5, not a count"),
    ],
)
def test_a_guidellm_report_with_nonsense_names_it(
    keys: tuple[str | int, ...], value: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ResultError, match=said):
        read("guidellm", edited(GUIDELLM / "rate8.json", tmp_path, {keys: value}))


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("benchmark_duration", "avg"), NAN, "benchmark_duration: has no avg"),
        (("time_to_first_token", "p99"), math.inf, "time_to_first_token: p99 is inf"),
        (("time_to_first_token", "unit"), "fortnights", "its unit 'fortnights' is none of ms"),
        (("request_count", "avg"), NAN, "counts no requests"),
        (("was_cancelled",), True, "aiperf was stopped before its end; run it again"),
        (("is_complete",), False, "aiperf was stopped before its end; run it again"),
        (("input_config", "phases"), [], "holds 0 profiling phases"),
    ],
)
def test_an_aiperf_export_with_nonsense_names_it(
    keys: tuple[str | int, ...], value: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ResultError, match=said):
        read("aiperf", edited(AIPERF / "rate8" / "profile_export_aiperf.json", tmp_path, {keys: value}))


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("metadata", "request_start_ns"), NAN, "line 2: metadata: has no request_start_ns"),
        (("metrics", "request_latency", "value"), NAN, "line 2: has neither a request_latency nor an error"),
        (("metrics", "inter_chunk_latency", "value"), [1.0, NAN], r"value\[1\] is nan"),
        (("metrics", "time_to_first_token"), 7, "time_to_first_token is no object"),
    ],
)
def test_an_aiperf_request_with_nonsense_names_its_line(
    keys: tuple[str, ...], value: object, said: str, tmp_path: Path
) -> None:
    lines = (AIPERF / "rate8" / "profile_export.jsonl").read_text().splitlines()
    (tmp_path / "one.json").write_text(lines[1])
    lines[1] = edited(tmp_path / "one.json", tmp_path, {keys: value}).read_text()
    (path := tmp_path / "profile_export.jsonl").write_text("\n".join(lines))

    with pytest.raises(ResultError, match=said):
        read("aiperf", path)


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("duration",), NAN, "line 1: has no duration"),
        (("completed",), 19, "completed is 19, but 20 have no error"),
        (("itls", 3, 0), NAN, r"itls\[3\]\[0\] is nan"),
        (("ttfts",), [0.1], "ttfts has 1 values, but there were 20 requests"),
        (("request_rate",), "fast", "request_rate is 'fast', not a number"),
    ],
)
def test_a_sglang_line_with_nonsense_names_it(
    keys: tuple[str | int, ...], value: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ResultError, match=said):
        read("sglang", edited(SGLANG / "rate8.jsonl", tmp_path, {keys: value}))


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("benchmark_time_seconds",), NAN, "has no benchmark_time_seconds"),
        (("successes", "count"), NAN, "successes: has no count"),
        (("successes", "latency", "time_to_first_token", "p99"), -1, "time_to_first_token: p99 is -1"),
        (("failures",), None, "failures is no object"),
    ],
)
def test_an_inference_perf_stage_with_nonsense_names_it(
    keys: tuple[str, ...], value: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ResultError, match=said):
        read("inference-perf", edited(INFERENCE_PERF / "rate8" / STAGE, tmp_path, {keys: value}))


def test_an_inference_perf_request_with_nonsense_names_it(tmp_path: Path) -> None:
    rows = json.loads((INFERENCE_PERF / "rate8" / REQUESTS).read_text())
    rows[2]["start_time"] = NAN
    (path := tmp_path / REQUESTS).write_text(json.dumps(rows))

    with pytest.raises(ResultError, match=r"requests\[2\]: has no start_time"):
        read("inference-perf", path)


def test_the_reader_of_the_example_reads_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    path = tmp_path / "result.json"
    path.write_text('{"rate": 4, "requests": [[10.0, 10.1, 10.2, 10.5, 16], [10.25, 10.3, 10.4, 10.7, 16]]}')

    reading = read("own_reader:read", path)

    assert (4, 2) == (reading.asked_rate, reading.completed)
    assert [200, 150] == pytest.approx(records_of(reading).ttft_ms().tolist())
    assert not knows(reading, "p99_itl_ms")
    path.write_text('{"rate": 4, "requests": [[10.0, 10.1]]}')
    with pytest.raises(ResultError, match='reader "own_reader:read" failed: ValueError'):
        read("own_reader:read", path)


def test_the_table_of_readers_says_of_each_client_which_version_and_command_made_its_sample() -> None:
    page = (DATA.parents[1] / "docs" / "reference" / "readers.md").read_text()
    made = (DATA / "README.md").read_text()
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in page.splitlines() if "`" in line]
    table = {row[0]: row[1:] for row in rows if len(row) == 6}

    assert {*READERS, "package.module:function"} == set(table)
    for reader in READERS:
        _, version, command, file, holds = table[reader]
        assert f"## {reader} {version}" in made
        asked = set(command.split()) - set(made.split())
        assert len(asked) <= 3, asked  # the README has placeholders where the load and the port are
        assert file
        assert "each request" in holds
        assert "totals" in holds
