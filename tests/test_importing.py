import json
import shutil
from pathlib import Path

import pytest

from driving import redline_here
from redline.bench import ResultError
from redline.bench.detection import client_of
from redline.importing import import_results
from redline.model import Invalid, Measured, UsageError
from redline.stored import open_experiment

DATA = Path(__file__).parent / "data"
VLLM = [DATA / "vllm" / "bench_rate4.json", DATA / "vllm" / "bench_rate16.json"]


@pytest.mark.parametrize(
    ("client", "files"),
    [
        ("vllm", sorted((DATA / "vllm").iterdir())),
        ("sglang", sorted((DATA / "sglang").glob("*.jsonl"))),
        ("guidellm", sorted((DATA / "guidellm").glob("*.json"))),
        ("aiperf", [*(DATA / "aiperf").iterdir(), *(DATA / "aiperf").glob("*/*")]),
        ("inference-perf", [*(DATA / "inference-perf").iterdir(), *(DATA / "inference-perf").glob("*/*")]),
    ],
)
def test_the_client_is_seen_from_what_it_wrote(client: str, files: list[Path]) -> None:
    assert [client] * len(files) == [client_of(file) for file in files]
    assert len(files) >= 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no complete JSON"),
        (b'{"completed": 4', "no complete JSON"),
        (b'{"completed": 4}', "name what reads it with --reader"),
        (b"[1]", "name what reads it with --reader"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_nobodys_file_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (path := tmp_path / "result.json").write_bytes(content)

    with pytest.raises(ResultError, match=said):
        client_of(path)


@pytest.mark.parametrize(
    ("files", "by", "loads", "quality"),
    [
        (VLLM, "rate", (4, 16), "aggregates"),
        ([DATA / "vllm" / "bench_detailed.json"], "rate", (8,), "records"),
        ([DATA / "guidellm" / "rate8.json"], "rate", (8,), "records"),
        ([DATA / "guidellm" / "concurrency4.json"], "concurrency", (4,), "records"),
        ([DATA / "sglang" / "plain.jsonl"], "rate", (8,), "aggregates"),
        ([DATA / "aiperf" / "rate8", DATA / "aiperf" / "failures"], "rate", (8,), "records"),
        ([DATA / "inference-perf" / "rate8"], "rate", (8,), "records"),
        ([DATA / "inference-perf" / "rate8" / "stage_0_lifecycle_metrics.json"], "rate", (8,), "aggregates"),
    ],
)
def test_imported_files_are_an_experiment_that_answers(
    files: list[Path], by: str, loads: tuple[float, ...], quality: str, tmp_path: Path
) -> None:
    import_results(files, tmp_path / "out")

    opened = open_experiment(tmp_path / "out")
    (answer,) = opened.answers(["p90_ttft_ms<=300"])
    assert (by, loads) == (opened.experiment.goal.by, opened.experiment.goal.loads)
    assert opened.listed
    assert (len(files), quality) == (answer.trials, answer.quality)
    assert answer.at_capacity == {} or answer.capacity in loads
    assert bool(answer.warnings) == (quality == "aggregates")
    assert "" == opened.missing(opened.slas(["p90_ttft_ms<=300"]))


def test_imported_totals_say_that_they_are_totals_and_what_they_do_not_tell(tmp_path: Path) -> None:
    import_results([DATA / "sglang" / "plain.jsonl"], tmp_path / "out")

    (answer,) = open_experiment(tmp_path / "out").answers(["p90_ttft_ms<=300"])
    assert "some loads were imported from totals, which say nothing on how sure they are" in answer.warnings
    assert "some of the files do not say how many requests failed: their error rate is not known" in answer.warnings


def test_an_error_rate_that_no_file_tells_is_unknown_and_a_criterion_on_it_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    plain = json.loads((DATA / "sglang" / "plain.jsonl").read_text())
    (path := tmp_path / "plain.jsonl").write_text(json.dumps({**plain, "completed": 400}))
    import_results([path], tmp_path / "out")

    _, by_default, _ = redline_here(["show", out, "--sla", "p90_ttft_ms<=300", "--json"], capsys)
    _, asked_for, _ = redline_here(["show", out, "--sla", "p90_ttft_ms<=300, error_rate<=5%", "--json"], capsys)
    shown, table, _ = redline_here(["show", out, "--sla", "p90_ttft_ms<=300"], capsys)
    reported, _, _ = redline_here(["report", out], capsys)

    (answer,) = json.loads(by_default)["answers"]
    assert 8 == answer["capacity"]
    assert answer["at_capacity"].get("error_rate") is None
    (answer,) = json.loads(asked_for)["answers"]
    assert (None, "undecided") == (answer["capacity"], answer["evidence"])
    assert (0, 0) == (shown, reported)
    assert "8 requests/s" in table


def test_a_file_that_vllm_appended_to_gives_a_trial_for_each_run(tmp_path: Path) -> None:
    (path := tmp_path / "runs.json").write_text("\n".join(file.read_text() for file in VLLM))

    runs = import_results([path], tmp_path / "out")

    assert [(f"{path}, run 1", 4), (f"{path}, run 2", 16)] == [(run.source, run.load) for run in runs]


def test_a_guidellm_report_of_several_benchmarks_gives_a_trial_for_each(tmp_path: Path) -> None:
    reports = [json.loads((DATA / "guidellm" / f"{name}.json").read_text()) for name in ("rate8", "failures")]
    benchmarks = [benchmark for report in reports for benchmark in report["benchmarks"]]
    benchmarks[1]["config"]["strategy"]["rate"] = 9.0
    (path := tmp_path / "report.json").write_text(json.dumps({**reports[0], "benchmarks": benchmarks}))

    runs = import_results([path], tmp_path / "out")

    assert [(8, 24), (9, 12)] == [(run.load, run.reading.requests) for run in runs]
    (answer,) = open_experiment(tmp_path / "out").answers(["p90_ttft_ms<=300"])
    assert (2, "records") == (answer.trials, answer.quality)


def test_each_run_keeps_the_name_of_its_file(tmp_path: Path) -> None:
    import_results(VLLM, tmp_path / "out")

    ((trials),) = open_experiment(tmp_path / "out").trials.values()
    assert [str(path) for path in VLLM] == [trial.facts["imported from"] for trial in trials]
    assert all(isinstance(trial.outcome, Measured) for trial in trials)


def test_a_file_of_several_runs_gives_a_trial_for_each(tmp_path: Path) -> None:
    (path := tmp_path / "runs.jsonl").write_text(
        "".join((DATA / "sglang" / f"{name}.jsonl").read_text() for name in ("rate8", "plain"))
    )

    runs = import_results([path], tmp_path / "out")

    assert [f"{path}, run 1", f"{path}, run 2"] == [run.source for run in runs]


def test_a_run_that_did_not_offer_its_load_is_kept_but_not_used(tmp_path: Path) -> None:
    folder = DATA / "inference-perf"
    slow = json.loads((folder / "rate8" / "stage_0_lifecycle_metrics.json").read_text())
    slow["load_summary"] |= {"requested_rate": 80.0}
    (path := tmp_path / "slow.json").write_text(json.dumps(slow))

    import_results([folder / "rate8", path], tmp_path / "out")

    opened = open_experiment(tmp_path / "out")
    ((_, unused),) = opened.trials.values()
    assert isinstance(unused.outcome, Invalid)
    assert (8,) == opened.experiment.goal.loads


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    (torn := tmp_path / "torn.json").write_text('{"completed": 4')
    twice = DATA / "aiperf" / "rate8"
    unknown = Path(shutil.copy(twice / "profile_export.jsonl", tmp_path / "requests.jsonl"))
    files = [*VLLM, torn, tmp_path / "none.json", twice, twice / "profile_export_aiperf.json", unknown]

    with pytest.raises(UsageError) as caught:
        import_results(files, tmp_path / "deep" / "out", ["p99_ttfft_ms<=1"])

    told = str(caught.value)
    for part in (
        "torn.json: no complete JSON",
        "none.json: there is no such file",
        f"is of the same run as {twice}; name one of them",
        "requests.jsonl: does not say at which load it ran",
        "unknown metric p99_ttfft_ms",
        "of 2 clients (vllm, aiperf): import those of each by themselves",
        "of 2 models (tiny, simulated)",
    ):
        assert part in told
    assert not (tmp_path / "deep").exists()


def test_rates_and_numbers_of_users_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"of 2 kinds of load \(rate, concurrency\)"):
        import_results([VLLM[0], DATA / "vllm" / "bench_inf_concurrency8.json"], tmp_path / "out")


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    import_results(VLLM, out)
    before = sorted(path.name for path in out.iterdir())

    with pytest.raises(UsageError, match="is there already; import all files together into a new directory"):
        import_results(VLLM, out)

    assert before == sorted(path.name for path in out.iterdir())
    assert [out] == list(tmp_path.iterdir())


def test_the_command_says_what_it_took_and_show_and_report_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "old")

    code, said, noted = redline_here(["import", *map(str, VLLM), "--out", out], capsys)
    shown, answers, _ = redline_here(["show", out, "--sla", "p90_e2el_ms<=1s", "--json"], capsys)
    reported, _, _ = redline_here(["report", out], capsys)

    assert (0, 0, 0) == (code, shown, reported)
    assert f"4 requests/s: 40 requests, known by each request, the rest by totals ({VLLM[0]})" in said
    assert "no SLA was given" in noted
    assert f"redline show {out}" in noted
    answer = json.loads(answers)["answers"][0]
    assert ("records", 2) == (answer["quality"], answer["trials"])
    assert (tmp_path / "old" / "report.html").is_file()


def test_the_command_reads_with_a_reader_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "importing_readers.py").write_text(
        "from redline.bench import read\ndef read_it(path): return read('vllm', path)"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def reading(reader: str) -> tuple[int, str, str]:
        out = str(tmp_path / reader)
        return redline_here(["import", str(VLLM[0]), "--reader", reader, "--out", out], capsys)

    assert 0 == reading("importing_readers:read_it")[0]
    code, _, told = reading("nonsense")
    assert 2 == code
    assert 'reader "nonsense" is unknown' in told
