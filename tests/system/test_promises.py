"""What the README and the reference promise of each command, on a simulated server."""

import csv
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from driving import SimServer, redline, redline_here

SLA = "chat: mean_ttft_ms<=2s, mean_e2el_ms<=3s"  # higher bounds are measured for longer
SMALL = ("--workload", "random:in=16,out=8")
ANSWER_KEYS = (
    *("server", "workload", "sla", "criteria", "variable", "unit"),
    *("capacity", "estimate", "low", "high", "confidence", "evidence", "quality", "limiting", "headroom"),
    *("verdict_at_capacity", "at_capacity", "trials", "requests", "benchmark_s", "stop_reason", "warnings", "error"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[SimServer]:
    with SimServer() as running:
        yield running


@dataclass(frozen=True)
class Found:
    """One search that several tests look at."""

    command: tuple[str, ...]
    directory: Path  # where the command ran
    code: int
    out: str
    err: str

    @property
    def kept(self) -> Path:
        return self.directory / json.loads(self.out)["experiment"]


@pytest.fixture(scope="module")
def found(server: SimServer, tmp_path_factory: pytest.TempPathFactory) -> Found:
    directory = tmp_path_factory.mktemp("found")
    command = ("find", server.url, "--sla", SLA, *SMALL, "--min", "25", "--max", "50", "--json")
    done = redline(*command, cwd=directory)
    return Found(command=command, directory=directory, code=done.returncode, out=done.stdout, err=done.stderr)


def test_find_answers_on_stdout_as_json_and_tells_its_progress_on_stderr(found: Found) -> None:
    document = json.loads(found.out)

    (answer,) = document["answers"]
    assert "redline.answer/1" == document["schema"]
    assert set(ANSWER_KEYS) <= set(answer)
    assert ("floor", 50.0, 50.0, None) == tuple(answer[key] for key in ("evidence", "capacity", "low", "high"))
    assert ["mean_ttft_ms<=2000", "mean_e2el_ms<=3000", "error_rate<=0.01"] == answer["criteria"]
    assert 0 == found.code, found.err
    assert "trial 1 " in found.err
    assert "50 requests/s" in found.err
    kept = document["experiment"]
    assert f"kept in {kept}: redline show {kept}, redline report {kept}" == found.err.splitlines()[-1]
    assert re.fullmatch(r"redline-results/127\.0\.0\.1-[0-9a-f]{8}", document["experiment"])


def test_the_same_command_again_answers_from_disk(
    found: Found, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(found.directory)
    before = (found.kept / "trials.jsonl").read_bytes()

    code, out, err = redline_here(found.command, capsys)

    assert (0, found.out) == (code, out)
    assert "nothing was left to measure" in err
    assert before == (found.kept / "trials.jsonl").read_bytes()


def test_show_gives_the_same_answer_as_find(
    found: Found, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(found.directory)
    directory = json.loads(found.out)["experiment"]

    assert (0, found.out, "") == redline_here(("show", directory, "--json"), capsys)

    code, out, _ = redline_here(("show", directory), capsys)
    assert code == 0
    assert "This server carries at least 50 requests/s" in out
    assert re.search(r"\n +1 +25 requests/s", out)


def test_show_answers_another_sla_and_says_what_is_missing_and_how_to_measure_it(
    found: Found, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(found.directory)
    kept = len((found.kept / "trials.jsonl").read_text().splitlines())

    same = redline_here(("show", str(found.kept), "--sla", "mean_ttft_ms<=1s", "--json"), capsys)
    other = redline_here(("show", str(found.kept), "--sla", "p99.9_ttft_ms<=20s", "--json"), capsys)

    assert same[0] == 0
    assert ("floor", 50.0) == tuple(json.loads(same[1])["answers"][0][key] for key in ("evidence", "capacity"))
    assert other[0] == 4
    assert "the next measurement would be at" in other[2]
    program, *command = shlex.split(other[2].strip().splitlines()[-1].partition("only that: ")[2])
    assert program == "redline"
    assert ["--sla", "p99.9_ttft_ms<=20s"] == command[command.index("--sla", command.index("--sla") + 1) :][:2]
    assert kept == len((found.kept / "trials.jsonl").read_text().splitlines())


def test_show_prints_every_request_of_a_trial_as_csv(found: Found, capsys: pytest.CaptureFixture[str]) -> None:
    last = json.loads((found.kept / "trials.jsonl").read_text().splitlines()[-1])

    code, out, err = redline_here(("show", str(found.kept), "--requests", last["id"]), capsys)

    rows = list(csv.DictReader(io.StringIO(out)))
    assert (0, "") == (code, err)
    assert out == redline_here(("show", str(found.kept), "--requests", last["id"].lstrip("0")), capsys)[1]
    assert last["outcome"]["measured"]["requests"] == len(rows)
    assert {"ok", "unfinished"} >= {row["status"] for row in rows}
    finished = [row for row in rows if row["status"] == "ok"]
    assert all(0 < float(row["ttft_ms"]) <= float(row["e2el_ms"]) for row in finished)
    assert {"8"} == {row["tokens_out"] for row in finished}


def test_an_unknown_trial_is_answered_with_those_there_are(found: Found, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = redline_here(("show", str(found.kept), "--requests", "0099"), capsys)

    assert (2, "") == (code, out)
    assert "has no trial 0099; known are 1, 2" in err


def test_report_writes_one_page_that_needs_no_network(
    found: Found, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"

    code, out, _ = redline_here(("report", str(found.kept), "-o", str(page)), capsys)

    text = page.read_text()
    assert (0, f"{page}\n") == (code, out)
    assert "<svg" in text
    assert not re.search(r"(src|href)=.?(https?:)?//", text)


def test_an_sla_that_not_even_the_lowest_load_meets_ends_with_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    workload = ("--workload", "random:in=16,out=50")  # half a second each
    with SimServer("--max-num-seqs", "1") as slow:
        code, out, _ = redline_here(
            ("find", slow.url, "--sla", "mean_ttft_ms<=300", *workload, "--min", "25", "--max", "50", "--json"), capsys
        )

    (answer,) = json.loads(out)["answers"]
    assert ("none", None, 0.0, 25.0) == tuple(answer[key] for key in ("evidence", "capacity", "low", "high"))
    assert code == 3


def test_concurrency_is_searched_in_whole_requests_and_two_slas_share_trials(
    server: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    slas = ("--sla", "ttft: mean_ttft_ms<=2s", "--sla", "e2el: mean_e2el_ms<=3s")

    code, out, err = redline_here(
        ("find", server.url, *slas, *SMALL, "--by", "concurrency", "--min", "4", "--max", "8", "--json"), capsys
    )

    answers = json.loads(out)["answers"]
    assert code == 0, err
    assert [("ttft", "floor", 8.0), ("e2el", "floor", 8.0)] == [
        (answer["sla"], answer["evidence"], answer["capacity"]) for answer in answers
    ]
    assert {"requests in flight"} == {answer["unit"] for answer in answers}
    full = [line for line in err.splitlines() if "measuring" in line]
    assert 1 == len(full), err  # the second SLA is judged by the trial that the first one asked for


def test_a_list_of_loads_is_found_and_measured_and_goes_on_where_it_was_cut(
    server: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    limits = ("--loads", "auto", "--min", "100", "--max", "150", "--out", "kept", "--json", "-q")
    command = ("find", server.url, "--sla", "p50_ttft_ms<=1s", *SMALL, *limits)

    cut_code, cut, _ = redline_here((*command, "--max-time", "6s"), capsys)
    first = (tmp_path / "kept" / "trials.jsonl").read_text()
    code, out, err = redline_here(command, capsys)

    assert 4 == cut_code, cut
    assert (tmp_path / "kept" / "trials.jsonl").read_text().startswith(first)
    (answer,) = json.loads(out)["answers"]
    assert 0 == code, err
    kinds = [json.loads(line)["probe"] for line in (tmp_path / "kept" / "trials.jsonl").read_text().splitlines()]
    assert [100.0, 150.0] == [probe["load"] for probe in kinds if probe["kind"] == "list"]
    assert {100.0, 150.0} == {load["load"] for load in answer["loads"]}
    assert "all listed loads are measured" == answer["stop_reason"]


def test_a_list_of_loads_is_measured_and_each_load_judged(
    server: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("find", server.url, "--sla", "mean_ttft_ms<=2s", *SMALL, "--loads", "100", "--out", "kept")

    code, out, _ = redline_here((*command, "--json", "-q"), capsys)
    text = redline_here(command, capsys)[1]

    (answer,) = json.loads(out)["answers"]
    assert code == 0
    assert [(100.0, "pass")] == [(load["load"], load["verdict"]) for load in answer["loads"]]
    assert "met mean_ttft_ms<=2000 at up to 100 requests/s of the loads measured" in text
    assert re.search(r"100 requests/s .* pass", text)


CRASHING = """
[server]
command = "redline sim-server --port {port} --faults.crash-above 40 --max-num-seqs 4"
stop_grace_s = 5

[workload.small]
random = { in = 16, out = 40 }

[sla]
quick = ["mean_ttft_ms<=2s"]

[search]
min = 40
"""


def test_run_says_that_a_server_crashes_and_at_which_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crashing.toml").write_text(CRASHING)

    code, out, err = redline_here(("run", "crashing.toml", "--json"), capsys)

    (answer,) = json.loads(out)["answers"]
    assert code == 1
    assert ("crashed", "server exited") == (answer["evidence"], answer["limiting"])
    assert answer["high"] > 10
    assert "simulated crash with" in answer["error"]
    assert "the server died" in err
    assert "redline-results/crashing" == json.loads(out)["experiment"]


def test_plan_says_what_would_run_and_how_long_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.toml").write_text(
        CRASHING.replace("stop_grace", "vary = { max_num_seqs = [4, 8] }\nstop_grace", 1)
    )

    code, out, err = redline_here(("plan", "two.toml"), capsys)

    assert (0, "") == (code, err)
    assert "--max-num-seqs 8" in out
    assert re.search(r"in all about .+ requests, 2 launches", out)
    assert "assuming that" in out
    assert ["two.toml"] == [path.name for path in tmp_path.iterdir()]


def test_again_measures_in_a_new_directory_beside_the_old_one(
    server: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("find", server.url, "--sla", "mean_e2el_ms<=1", *SMALL, "--min", "50", "--out", "kept", "--json", "-q")

    first = json.loads(redline_here(command, capsys)[1])
    again = json.loads(redline_here((*command, "--again"), capsys)[1])

    assert ("kept", "kept-2") == (first["experiment"], again["experiment"])
    assert (tmp_path / "kept-2" / "trials.jsonl").read_text() != (tmp_path / "kept" / "trials.jsonl").read_text()
