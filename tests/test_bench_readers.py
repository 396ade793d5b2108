import json
import math
from pathlib import Path

import numpy as np
import pytest

from redline.bench import Reading, ResultError, knows, read, read_runs, reader_of
from redline.codec import load_experiment
from redline.experiment.plan import fill
from redline.model import CommandWorkload, UsageError
from redline.records import Status
from redline.sla import judged, parse_criterion

DATA = Path(__file__).parent / "data" / "vllm"


def edited(tmp_path: Path, name: str, **changes: object) -> Path:
    """A copy of a real result with some keys changed, or taken away where the value is None."""
    data = json.loads((DATA / name).read_text())
    data.update(changes)
    path = tmp_path / "result.json"
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return path


def file_says(name: str, key: str) -> float:
    return float(json.loads((DATA / name).read_text())[key])


def test_a_detailed_result_gives_full_records_with_vllms_own_statistics() -> None:
    reading = read("vllm", DATA / "bench_detailed.json")
    records = reading.records

    assert records is not None
    assert (12, 0) == (reading.completed, reading.failed)
    sent_to_end_ms = (records.end_s - records.sent_s) * 1e3
    assert file_says("bench_detailed.json", "mean_e2el_ms") == pytest.approx(sent_to_end_ms.mean())
    sent_to_first_ms = (records.first_s - records.sent_s) * 1e3
    assert file_says("bench_detailed.json", "p99_ttft_ms") == pytest.approx(np.quantile(sent_to_first_ms, 0.99))
    assert file_says("bench_detailed.json", "mean_tpot_ms") == pytest.approx(records.tpot_ms().mean())
    assert file_says("bench_detailed.json", "mean_itl_ms") == pytest.approx(records.gaps_us.mean() / 1e3, rel=1e-3)
    assert 192 == records.tokens_out.sum()


def test_a_detailed_result_leaves_no_aggregates_beside_its_records() -> None:
    assert {} == read("vllm", DATA / "bench_detailed.json").aggregates


def test_records_are_in_the_order_of_their_schedule_and_start_at_zero() -> None:
    for path in sorted(DATA.glob("*.json")):
        records = read("vllm", path).records

        assert records is not None
        assert (np.diff(records.scheduled_s) >= 0).all()
        assert records.scheduled_s[0] == 0
        assert (records.sent_s >= records.scheduled_s).all()
        assert records.observed_s >= np.nanmax(records.end_s)


def test_open_loop_latency_counts_the_wait_in_the_client() -> None:
    data = json.loads((DATA / "bench_rate4.json").read_text())

    records = read("vllm", DATA / "bench_rate4.json").records

    assert records is not None
    expected = np.array(data["latencies"]) + np.array(data["queue_times"])
    assert sorted(expected * 1e3) == pytest.approx(sorted(records.e2el_ms()))


def test_closed_loop_latency_does_not_count_the_wait_for_a_free_user() -> None:
    data = json.loads((DATA / "bench_inf_concurrency8.json").read_text())

    records = read("vllm", DATA / "bench_inf_concurrency8.json").records

    assert records is not None
    assert sorted(np.array(data["latencies"]) * 1e3) == pytest.approx(sorted(records.e2el_ms()))


def test_a_plain_closed_loop_is_rebuilt_with_as_many_in_flight_as_it_had() -> None:
    reading = read("vllm", DATA / "bench_inf_concurrency8.json")
    records = reading.records

    assert records is not None
    in_flight = [((records.sent_s <= t) & (records.end_s > t)).sum() for t in records.sent_s]
    assert 8 == max(in_flight)
    assert reading.duration_s == pytest.approx(records.end_s.max(), rel=0.02)


def test_a_plain_result_has_records_of_e2el_and_aggregates_of_the_rest() -> None:
    reading = read("vllm", DATA / "bench_rate16.json")
    records = reading.records

    assert records is not None
    assert np.isnan(records.first_s).all()
    assert file_says("bench_rate16.json", "p99_ttft_ms") == reading.aggregates["p99_ttft_ms"]
    assert 0 == reading.aggregates["error_rate"]
    assert (80, 0) == (reading.aggregates["completed"], reading.aggregates["failed"])
    assert 1280 == records.tokens_out.sum()
    assert 2810 == records.tokens_in.sum()


def test_what_a_plain_result_cannot_tell_is_never_judged_on_its_records() -> None:
    records = read("vllm", DATA / "bench_rate16.json").records

    assert records is not None
    for text in ("p99_ttft_ms<=1", "p90_tpot_ms<=1", "p90_itl_ms<=1", "attainment(ttft_ms<=1)>=0.9"):
        assert 0 == judged(parse_criterion(text), records).weight.sum()
    for text in ("p99_e2el_ms<=50", "error_rate<=0.01", "attainment(e2el_ms<=50)>=0.9"):
        assert 80 == judged(parse_criterion(text), records).weight.sum()


def test_failed_requests_are_failed_records_and_counted_by_their_text() -> None:
    reading = read("vllm", DATA / "bench_failures.json")
    records = reading.records

    assert records is not None
    assert (14, 10) == (reading.completed, reading.failed)
    assert 10 == (records.status == Status.FAILED).sum()
    assert {"Bad Request": 10} == reading.errors
    assert np.isnan(records.e2el_ms()).sum() == 10
    assert np.isnan(records.first_s[records.broken]).all()


def test_a_detailed_result_of_an_older_vllm_has_its_e2el_from_the_gaps(tmp_path: Path) -> None:
    path = edited(tmp_path, "bench_detailed.json", latencies=None, start_times=None, queue_times=None)
    records = read("vllm", path).records
    expected = file_says("bench_detailed.json", "mean_e2el_ms")

    assert records is not None
    assert expected == pytest.approx(records.e2el_ms().mean(), rel=1e-3)


def test_without_any_latencies_only_aggregates_are_left(tmp_path: Path) -> None:
    reading = read("vllm", edited(tmp_path, "bench_rate4.json", latencies=None))

    assert reading.records is None
    assert file_says("bench_rate4.json", "p90_tpot_ms") == reading.aggregates["p90_tpot_ms"]
    assert reading.aggregates["median_itl_ms"] == reading.aggregates["p50_itl_ms"]
    assert reading.sending_s is None


def appended(tmp_path: Path, *texts: str) -> Path:
    """A file as `vllm bench serve --append-result` leaves it: a line for each run, and none after the last."""
    path = tmp_path / "result.json"
    path.write_text("\n".join(texts))
    return path


def test_a_file_that_vllm_appended_to_holds_several_runs(tmp_path: Path) -> None:
    texts = [(DATA / f"bench_{name}.json").read_text() for name in ("rate4", "rate16", "detailed")]
    path = appended(tmp_path, *texts)

    runs = read_runs("vllm", path)

    assert [(40, 4.0), (80, 16.0), (12, 8.0)] == [(run.completed, run.asked_rate) for run in runs]
    assert runs[1].aggregates == read("vllm", DATA / "bench_rate16.json").aggregates
    with pytest.raises(ResultError, match="holds 3 runs; have the command make one, at one load"):
        read("vllm", path)
    assert 40 == read("vllm", appended(tmp_path, texts[0])).completed


def test_a_file_that_vllm_itself_appended_to_is_read() -> None:
    runs = read_runs("vllm", DATA / "appended.jsonl")

    assert [(12, 8.0), (12, 16.0)] == [(run.completed, run.asked_rate) for run in runs]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"completed": 4', "line 2 is no complete JSON"),
        ("[1]", "line 2 holds a JSON list"),
        ('{"completed": 4}', "line 2: has no duration"),
    ],
)
def test_a_line_that_is_no_run_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = appended(tmp_path, (DATA / "bench_rate4.json").read_text(), line)

    with pytest.raises(ResultError, match=said):
        read_runs("vllm", path)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, 0),
        ({"failed": 10, "completed": 30}, 10),
        ({"failed": None, "completed": 30}, 10),  # older ones: num_prompts less completed
        ({"failed": None, "num_prompts": None}, None),
    ],
)
def test_failures_that_are_not_counted_are_unknown_and_not_none(
    tmp_path: Path, changes: dict[str, object], failed: int | None
) -> None:
    reading = read("vllm", edited(tmp_path, "bench_rate4.json", latencies=None, **changes))

    assert failed == reading.failed
    assert failed == reading.aggregates.get("failed")
    assert (None if failed is None else failed / 40) == reading.aggregates.get("error_rate")
    assert knows(reading, "error_rate") is (failed is not None)


def test_latencies_are_dropped_when_nothing_completed(tmp_path: Path) -> None:
    path = edited(tmp_path, "bench_rate4.json", completed=0, failed=40, latencies=None, mean_ttft_ms=0.0)

    reading = read("vllm", path)

    assert 1 == reading.aggregates["error_rate"]
    assert not [name for name in reading.aggregates if name.endswith("_ms")]


@pytest.mark.parametrize(
    ("name", "metric", "known"),
    [
        ("bench_detailed.json", "p99.9_ttft_ms", True),
        ("bench_detailed.json", "output_throughput", True),
        ("bench_detailed.json", "attainment(ttft_ms<=200, tpot_ms<=50)", True),
        ("bench_rate4.json", "p99_ttft_ms", True),
        ("bench_rate4.json", "p99.9_ttft_ms", False),
        ("bench_rate4.json", "p99.9_e2el_ms", True),
        ("bench_rate4.json", "attainment(e2el_ms<=200)", True),
        ("bench_rate4.json", "attainment(ttft_ms<=200)", False),
        ("bench_rate4.json", "request_throughput", True),
    ],
)
def test_a_reading_knows_what_its_records_or_its_aggregates_hold(name: str, metric: str, known: bool) -> None:
    assert known is knows(read("vllm", DATA / name), metric)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latencies": [0.1] * 39}, "latencies has 39 values, but there were 40 requests"),
        ({"latencies": [0.1] * 39 + [-1.0]}, r"latencies\[39\] is -1"),
        ({"latencies": [math.nan] + [0.1] * 39}, r"latencies\[0\] is nan"),
        ({"latencies": ["fast"] + [0.1] * 39}, "latencies holds something that is no number"),
        ({"latencies": [0.0] + [0.1] * 39}, "failed is 0, but 1 of its requests are marked as failed"),
        ({"completed": -1}, "completed is -1"),
        ({"completed": 40.5}, "completed is 40.5, not a count"),
        ({"completed": 0, "failed": 0}, "0 completed and 0 failed"),
        ({"completed": None}, "has no completed"),
        ({"completed": 50, "failed": None}, "50 completed and -10 failed"),
        ({"duration": math.nan}, "has no duration"),
        ({"duration": "long"}, "duration is 'long', not a number"),
        ({"mean_ttft_ms": -3.0}, "mean_ttft_ms is -3"),
        ({"mean_ttft_ms": math.inf}, "mean_ttft_ms is inf"),
        ({"itls": [[0.1]] * 3, "ttfts": [0.1] * 40}, "itls has 3 values"),
        ({"itls": [[0.1]] * 39 + [[-0.1]], "ttfts": [0.1] * 40}, r"itls\[39\]\[0\] is -0.1"),
        ({"itls": [[0.1]] * 39 + [7], "ttfts": [0.1] * 40}, r"itls\[39\] is no list"),
        ({"errors": ["x"]}, "errors is no list of 40 texts"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    path = edited(tmp_path, "bench_rate4.json", **changes)

    with pytest.raises(ResultError, match=said) as caught:
        read("vllm", path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no complete JSON"),
        (b'{"completed": 4', "no complete JSON"),
        (b"[1, 2]", "holds a JSON list"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "no complete JSON"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)

    with pytest.raises(ResultError, match=said):
        read("vllm", path)


def test_a_result_that_was_not_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="wrote no result"):
        read("vllm", tmp_path / "none.json")


@pytest.mark.parametrize("name", ["sglan", "nonsense", "no.such.module:read", "json:no_such_function"])
def test_an_unusable_reader_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        reader_of(name)


def test_an_unknown_reader_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match=r'use "vllm", .*"inference-perf", or your own as "package\.module:function"'):
        reader_of("sglan")


def own_reader(path: Path) -> Reading:
    p99 = float(path.read_text())
    return Reading(completed=100, failed=0, duration_s=10.0, aggregates={"p99_ttft_ms": p99})


def careless_reader(path: Path) -> str:
    return path.read_text()


def test_a_readers_import_string_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("123")

    counted = {"completed": 100, "failed": 0, "error_rate": 0}
    assert {"p99_ttft_ms": 123.0, **counted} == read(f"{__name__}:own_reader", path).aggregates


@pytest.mark.parametrize("content", ["", "nan", "-1", "fast"])
def test_what_an_imported_reader_cannot_use_is_an_unusable_result(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result"
    path.write_text(content)

    with pytest.raises(ResultError, match="own_reader"):
        read(f"{__name__}:own_reader", path)


def test_an_imported_reader_must_return_a_reading(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("123")

    with pytest.raises(UsageError, match="returned a str"):
        read(f"{__name__}:careless_reader", path)


def code_of_the_guide(language: str) -> str:
    guide = Path(__file__).parents[1] / "docs" / "how-to" / "use-your-own-benchmark-command.md"
    return guide.read_text().split(f"```{language}\n")[1].split("```")[0]


def test_the_reader_in_the_guide_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "readers_of_the_guide.py").write_text(code_of_the_guide("python"))
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "result.json"
    path.write_text('{"ok": 98, "errors": 2, "seconds": 20, "ttft": {"p99": 0.25}, "tpot": {"p90": 0.02}}')

    reading = read("readers_of_the_guide:read_my_tool", path)

    assert 250 == reading.aggregates["p99_ttft_ms"]
    assert 0.02 == reading.aggregates["error_rate"]
    assert knows(reading, "p90_tpot_ms")


@pytest.mark.parametrize("source", ["guide", "example"])
def test_the_commands_shown_can_be_filled(source: str, tmp_path: Path) -> None:
    text = code_of_the_guide("toml")
    if source == "example":
        text = (Path(__file__).parents[1] / "examples" / "vllm-bench.toml").read_text()
    path = tmp_path / "experiment.toml"
    rest = "" if source == "example" else '[server]\nurl = "http://127.0.0.1:1"\n[sla]\nchat = ["p99_ttft_ms<=200"]\n'
    path.write_text(rest + text)

    (workload,) = load_experiment(path).workloads

    assert isinstance(workload, CommandWorkload)
    values = dict.fromkeys(("url", "model", "rate", "requests", "seed", "result"), "7")
    assert "{" not in "".join(fill(workload.command, values))
    assert reader_of(workload.reader)
