"""`redline bench`: what one load, or a few, come to on a server, and every way in which that ends."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from driving import ENVIRONMENT, SimServer, read_until, redline_here
from redline import measuring
from redline.bench.vllm import read_vllm
from redline.events import Event, Noted
from redline.verdict.tally import window_of

SMALL = ("--workload", "random:in=16,out=8")


@pytest.fixture(scope="module")
def server() -> Iterator[SimServer]:
    with SimServer() as running:
        yield running


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    folder: Path


@pytest.fixture(scope="module")
def done(server: SimServer, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One measurement that several tests look at."""
    folder = tmp_path_factory.mktemp("bench")
    files = ("-o", str(folder / "r.json"), "--save-requests", str(folder / "r.csv"), "--save-detailed")
    argv = ("bench", server.url, "--rate", "60", "--requests", "420", *SMALL, *files, "--goodput", "ttft:60000")
    ran = subprocess.run(
        [sys.executable, "-m", "redline", *argv, "e2el:60000", "--sla", "p50_ttft_ms<=60s", "--json"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=60,
        check=False,
    )
    return Done(code=ran.returncode, out=ran.stdout, err=ran.stderr, folder=folder)


def test_one_load_is_measured_whole(done: Done) -> None:
    result = json.loads(done.out)

    assert 0 == done.code, done.err
    assert (420, 0, 420) == tuple(result[key] for key in ("completed", "failed", "num_prompts"))
    assert (60.0, None, "openai-chat", "simulated") == tuple(
        result[key] for key in ("request_rate", "max_concurrency", "backend", "model_id")
    )
    assert 420 * 8 == result["total_output_tokens"]
    assert result["request_throughput"] == result["request_goodput"]
    assert result == json.loads((done.folder / "r.json").read_text())
    assert "420 requests at 60 requests/s, about 7 s" in done.err
    assert "trial 1 " in done.err


def test_our_own_reader_takes_the_file_and_agrees_with_its_numbers(done: Done) -> None:
    result = json.loads(done.out)
    (reading,) = read_vllm(done.folder / "r.json")
    records = reading.records

    assert records is not None
    sent_ms = (records.first_s - records.sent_s) * 1e3
    assert pytest.approx(result["mean_ttft_ms"]) == sent_ms.mean()
    assert pytest.approx(result["p99_tpot_ms"], abs=1e-3) == np.percentile(records.tpot_ms(), 99)
    assert pytest.approx(result["mean_itl_ms"], abs=1e-3) == records.gaps_us.mean() / 1e3
    assert window_of(records, 0.0).p90_e2e_s > 0


def test_every_request_is_in_the_table_with_units_in_its_columns(done: Done) -> None:
    result = json.loads(done.out)
    with (done.folder / "r.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert 420 == len(rows)
    assert {"60.0"} == {row["rate_per_s"] for row in rows}
    assert pytest.approx(result["mean_e2el_ms"], abs=5) == np.mean([float(row["e2el_ms"]) for row in rows])


def test_what_we_add_stands_under_one_key(done: Done) -> None:
    ours = json.loads(done.out)["redline"]

    assert ("redline.bench/1", "rate", 60.0, False, 0) == tuple(
        ours[key] for key in ("schema", "variable", "load", "cut_short", "unfinished")
    )
    assert pytest.approx(60, rel=0.2) == ours["offered_per_s"]
    assert ours["steady"]["from_s"] < ours["steady"]["to_s"]
    assert ours["steady"]["p99_ttft_ms"] > 0
    assert ["p50_ttft_ms<=60s"] == [verdict["sla"] for verdict in ours["verdicts"]]
    assert ours["client"]["good"]


def test_a_list_of_loads_gives_a_row_each_and_a_line_each(
    server: SimServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("bench", server.url, "--loads", "2,4", "--by", "concurrency", "--requests", "12", *SMALL, "-q")
    requests = tmp_path / "r.jsonl"

    code, out, _ = redline_here((*argv, "--json", "--save-requests", str(requests)), capsys)
    table_code, table, _ = redline_here(argv, capsys)

    results = [json.loads(line) for line in out.splitlines()]
    assert (0, 0) == (code, table_code)
    assert [(2, "inf", 12), (4, "inf", 12)] == [
        tuple(result[key] for key in ("max_concurrency", "request_rate", "completed")) for result in results
    ]
    assert results[1]["max_concurrent_requests"] >= 4
    rows = [json.loads(line) for line in requests.read_text().splitlines()]
    assert [2.0] * 12 + [4.0] * 12 == [row["concurrency"] for row in rows]
    assert all(len(row["itls_ms"]) == 7 and row["status"] == "ok" for row in rows)
    assert 2 == len(re.findall(r"^[24] requests in flight +12 +0 ", table, re.MULTILINE))
    assert "p99_ttft_ms" in table


def test_the_table_of_one_load_shows_each_latency(server: SimServer, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("bench", server.url, "--concurrency", "4", "--duration", "1s", *SMALL)

    code, out, err = redline_here((*argv, "--sla", "fine: p50_ttft_ms<=60s"), capsys)

    assert code in (0, 4), err
    assert ["TTFT", "TPOT", "ITL", "E2EL"] == re.findall(r"^(TTFT|TPOT|ITL|E2EL) +[\d.,]+ ms", out, re.MULTILINE)
    assert "SLA fine: " in out
    assert "requests with 4 in flight for 1 s" in err


@pytest.mark.parametrize(
    ("sla", "code"), [("p50_e2el_ms<=50", 3), ("p99.99_ttft_ms<=60s", 4)], ids=["fail", "undecided"]
)
def test_the_verdict_on_one_load_is_the_exit_code(
    server: SimServer, sla: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("bench", server.url, "--rate", "60", "--requests", "60", *SMALL, "-q", "--sla", sla)

    ended, out, _ = redline_here(argv, capsys)

    assert code == ended, out


def test_failed_requests_are_counted_and_the_server_quoted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with SimServer("--faults.reject-every", "4") as refusing:
        argv = ("bench", refusing.url, "--rate", "50", "--requests", "40", *SMALL, "-q", "-o", str(path))
        code, out, _ = redline_here(argv, capsys)

    result = json.loads(path.read_text())
    assert 0 == code
    assert 40 == result["completed"] + result["failed"]
    assert 9 <= result["failed"] == result["redline"]["rejected"] <= 11
    assert re.search(r"of the failed requests, \d+ had: .*429", out)
    assert [result["failed"]] == [reading.failed for reading in read_vllm(path)]


def test_a_server_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = redline_here(("bench", "http://127.0.0.1:9", "--rate", "1"), capsys)

    assert (1, "") == (code, out)
    assert "start the server, or correct the URL" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("http://127.0.0.1:9",), "at which load?"),
        ((), "Missing argument 'URL'"),
        (("http://127.0.0.1:9", "ttft:200", "--rate", "1"), "unexpected extra argument (ttft:200)"),
        (("http://127.0.0.1:9", "--rate", "1", "--concurrency", "2"), "--rate and --concurrency"),
        (("http://127.0.0.1:9", "--rate", "1", "--by", "concurrency"), "contradicts --rate"),
        (("http://127.0.0.1:9", "--loads", "auto"), "belongs to redline find"),
        (("http://127.0.0.1:9", "--loads", "1,x"), "'x' is no load"),
        (("http://127.0.0.1:9", "--rate", "inf"), "must be above 0, and finite"),
        (("http://127.0.0.1:9", "--concurrency", "99999"), "within 1 and 8192"),
        (("http://127.0.0.1:9", "--rate", "1", "--goodput", "tftt:1"), "did you mean ttft"),
        (("http://127.0.0.1:9", "--rate", "1", "--sla", "p99_tttt_ms<=1"), "unknown metric"),
        (("http://127.0.0.1:9", "--rate", "1", "--save-requests", "r.txt"), ".csv or .jsonl"),
        (("http://127.0.0.1:9", "--rate", "1", "-o", "no/such/r.json"), "there is no directory"),
        (("http://192.0.2.1", "--rate", "1"), "will send it 1,000 requests at 1 requests/s"),
    ],
)
def test_a_question_that_cannot_be_asked_ends_with_code_2(
    argv: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    code, out, err = redline_here(("bench", *argv), capsys)

    assert (2, "") == (code, out), err
    assert words in err
    assert [] == list(tmp_path.iterdir())


def test_a_workload_that_is_a_command_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.toml"
    path.write_text('command = "true {url} {rate} {result}"\nreader = "vllm"\n')

    code, _, err = redline_here(("bench", "http://127.0.0.1:9", "--rate", "1", "--workload", str(path)), capsys)

    assert 2 == code
    assert "measures with the built-in generator" in err


def test_loads_that_cannot_be_kept_up_or_never_come_are_named(
    server: SimServer, capsys: pytest.CaptureFixture[str]
) -> None:
    few_code, few, _ = redline_here(
        ("bench", server.url, "--concurrency", "4", "--requests", "5", *SMALL, "-q"), capsys
    )
    none_code, _, none = redline_here(
        ("bench", server.url, "--rate", "0.01", "--duration", "0.1s", "--seed", "1", *SMALL, "-q"), capsys
    )

    assert (0, 1) == (few_code, none_code)
    assert "5 requests cannot keep 4 in flight: raise --requests" in few
    assert "0.01 requests/s: no request was due in that time; raise --duration" in none


def test_the_loads_that_a_dead_server_left_unmeasured_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with SimServer("--faults.crash-above", "8") as dying:
        argv = ("bench", dying.url, "--loads", "16,4,2", "--by", "concurrency", "--requests", "64", *SMALL, "-q")
        code, _, err = redline_here(argv, capsys)

    assert 1 == code
    assert "16 requests in flight was not measured" in err
    assert "not measured: 4, 2" in err


def test_who_stops_between_two_loads_keeps_the_first_as_whole(server: SimServer) -> None:
    options = {"workload": SMALL[1], "loads": [20, 30]}
    plan = measuring.prepare(server.url, [], options, measuring.Extent(requests=5), measuring.Saying())

    def stop_at_the_second(event: Event) -> None:
        if isinstance(event, Noted) and "at 30 requests/s" in event.text:
            raise KeyboardInterrupt

    found = measuring.measure(plan, stop_at_the_second)

    (row,) = found.rows
    assert found.stopped
    assert not row.cut_short
    assert 5 == measuring.result_of(plan, row)["completed"]
    assert 130 == measuring.exit_code(plan, found)


def test_ctrl_c_stops_at_once_and_what_was_measured_is_shown(server: SimServer, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    argv = ("bench", server.url, "--rate", "30", "--requests", "100000", *SMALL, "-o", str(path))
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "redline", *argv], stdin=slave, stdout=subprocess.PIPE, stderr=slave, env=ENVIRONMENT
    ) as process:
        os.close(slave)
        read_until(master, b"median_ttft_ms")  # the load runs, and its TTFT so far is shown
        told_at = time.monotonic()
        process.send_signal(signal.SIGINT)
        read_until(master, b"what is shown was cut short")
        took_s = time.monotonic() - told_at
        out = process.communicate(timeout=20)[0].decode()
    os.close(master)

    result = json.loads(path.read_text())
    assert 130 == process.returncode
    assert took_s < 20  # that it is one second is no matter for a test
    assert result["redline"]["cut_short"]
    assert 0 < result["completed"] < 100_000
    assert "cut short after" in out
    assert "30 requests/s" in out
