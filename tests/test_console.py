import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driving import ENVIRONMENT, read_until
from redline.console import Console
from redline.events import (
    Answered,
    Event,
    Progress,
    ServerReady,
    ServerStarting,
    ServerStopped,
    TrialEnded,
    TrialStarted,
    Warned,
)
from redline.model import (
    Answer,
    Case,
    Endpoint,
    EvidenceClass,
    Experiment,
    Goal,
    Lengths,
    Measured,
    Probe,
    ProbeKind,
    ServerConfig,
    Stop,
    Trial,
    Workload,
)
from redline.records import Records, Status
from redline.sla import parse_sla
from redline.stored import Opened

TESTS = Path(__file__).parent
SLA = parse_sla("chat: p90_ttft_ms<=200, p90_tpot_ms<=50")
SERVER = ServerConfig(name="max_num_seqs=64", command=("serve",))
WORKLOAD = Workload(name="[chat]", prompt=Lengths(mean=100), output=Lengths(mean=10))
CASE = Case(key="k", server=SERVER, workload=WORKLOAD)
EXPERIMENT = Experiment(name="x", servers=(SERVER,), workloads=(WORKLOAD,), slas=(SLA,), goal=Goal())
PROBE = Probe(by="rate", load=12.5, kind="main", asked_by="chat")
ANSWER = Answer(
    server="max_num_seqs=64",
    workload="[chat]",
    sla="chat",
    criteria=SLA.criteria,
    variable="rate",
    evidence="edge",
    capacity=12.1,
    estimate=12.3,
    low=11.8,
    high=12.8,
    limiting="p90_ttft_ms<=200",
    trials=7,
    requests=9120,
    benchmark_s=143.2,
    stop_reason="precision reached",
)


def records(n: int, ttft_s: float) -> Records:
    at = np.arange(n) * 0.08
    return Records(
        observed_s=n * 0.08 + 1,
        scheduled_s=at,
        sent_s=at,
        first_s=at + ttft_s,
        end_s=at + ttft_s + 0.1,
        tokens_in=np.full(n, 100, np.int32),
        tokens_out=np.full(n, 11, np.int32),
        tokens_asked=np.full(n, 11, np.int32),
        status=np.full(n, Status.OK, np.uint8),
    )


def ended(ttft_s: float = 0.1, *, reason: str = "full") -> TrialEnded:
    stop = Stop(reason=reason, at_s=60.0)  # type: ignore[arg-type]  # a reason
    outcome = Measured(stop=stop, duration_s=60.0, records=records(400, ttft_s))
    return TrialEnded(
        case=CASE,
        trial=Trial(id="0001", case="k", probe=PROBE, seed=1, started="2026-11-25T00:00:00Z", outcome=outcome),
    )


def progress(now_s: float) -> Progress:
    stats = {"p90_ttft_ms": 184.0, "p90_tpot_ms": float("nan")}
    return Progress(case=CASE, probe=PROBE, now_s=now_s, sent=412, finished=398, failed=2, stats=stats)


EVENTS: list[Event] = [
    ServerStarting(server=SERVER),
    ServerReady(server=SERVER, endpoint=Endpoint(url="http://127.0.0.1:8000", model="m"), took_s=12.3),
    TrialStarted(case=CASE, probe=PROBE, number=3),
    progress(1.0),
    progress(31.0),
    ended(),
    Warned(text="the server was busy"),
    Answered(case=CASE, answer=ANSWER),
    ServerStopped(server=SERVER),
]


def play(console: Console, events: list[Event]) -> None:
    console.begin(EXPERIMENT)
    with console:
        for event in events:
            console.on_event(event)


def test_without_a_terminal_progress_is_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    play(Console(), EVENTS)

    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert "max_num_seqs=64: ready after 12 s at http://127.0.0.1:8000, model m" in err
    assert "31 s: 412 sent, 398 finished, 2 failed; p90_ttft_ms 184 ms of 200 ms" in err
    assert "12.5 requests/s" in err
    assert "measuring, 60 s: holds: p90_ttft_ms 100 ms of 200 ms  (400 requests)" in err
    assert "warning: the server was busy" in err
    assert "chat: edge, 12.1 requests/s (11.8 to 12.8)" in err
    assert "1 s: 412 sent" not in err.replace("31 s: 412 sent", "")


def test_a_trial_that_breaks_the_sla_says_which_criterion(capsys: pytest.CaptureFixture[str]) -> None:
    play(Console(), [ended(0.4)])

    assert "too much: p90_ttft_ms 400 ms > 200 ms" in capsys.readouterr().err


def test_a_warning_that_several_configurations_have_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    play(Console(), [Warned(text="few cores"), Warned(text="busy"), Warned(text="few cores")])

    assert ["warning: few cores", "warning: busy"] == capsys.readouterr().err.splitlines()


def opened(*trials: Trial) -> Opened:
    kept = Opened(directory=Path("x"), experiment=EXPERIMENT, trials={}, notes=(), environment={})
    return replace(kept, trials={kept.cases[0].key: trials})


def trial(outcome: Measured, *, id: str = "0001", kind: ProbeKind = "main") -> Trial:
    probe = replace(PROBE, kind=kind)
    return Trial(id=id, case="k", probe=probe, seed=1, started="2026-11-25T00:00:00Z", outcome=outcome)


def test_a_trial_shows_the_same_values_while_it_runs_and_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    runs = tuple({"p90_ttft_ms": ttft, "p90_tpot_ms": 20.0, "completed": 600.0} for ttft in (100.0, 310.0))
    twice = trial(Measured(stop=Stop(reason="ended", at_s=60.0), duration_s=60.0, aggregates=runs))

    play(Console(), [TrialEnded(case=CASE, trial=twice)])
    Console().trials(opened(twice), [SLA])

    out, err = capsys.readouterr()
    assert "holds: p90_ttft_ms 176 ms of 200 ms" in err
    assert "176" in out


def test_a_quick_look_has_no_exact_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Measured(stop=Stop(reason="scouted", at_s=33.0), duration_s=33.0, records=records(400, 0.4))

    Console().trials(opened(trial(outcome, kind="scout"), trial(outcome, id="0002")), [SLA])

    rows = capsys.readouterr().out.splitlines()[-2:]
    assert ["-", "fail"] == [row.split()[-1] for row in rows]


def test_a_trial_has_one_number_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    eleventh = replace(ended().trial, id="0011")

    play(Console(), [TrialStarted(case=CASE, probe=PROBE, number=2), TrialEnded(case=CASE, trial=eleventh)])
    Console().trials(opened(eleventh), [SLA])

    out, err = capsys.readouterr()
    assert "trial 11 " in err
    assert "11" == out.splitlines()[-1].split()[0]
    assert eleventh is opened(eleventh).trial("11") is opened(eleventh).trial("0011")


def test_quiet_means_no_progress_but_still_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    play(console, EVENTS)
    console.answers([ANSWER])

    out, err = capsys.readouterr()
    assert err == ""
    assert "12.1 requests/s" in out


def test_one_answer_is_a_row_and_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Console().answers([replace(ANSWER, warnings=("outputs were 8 % short",))])

    out = capsys.readouterr().out
    header, row = [line for line in out.splitlines() if line.strip()][:2]
    assert " ".join(header.split()) == "configuration capacity 90 % interval evidence limited by trials requests time"
    for cell in (
        "max_num_seqs=64",
        "12.1 requests/s",
        "11.8 to 12.8",
        "edge",
        "p90_ttft_ms<=200",
        "7",
        "9,120",
        "2 min 23 s",
    ):
        assert cell in row
    assert "This server carries 12.1 requests/s within p90_ttft_ms<=200, p90_tpot_ms<=50 (11.8 to 12.8" in out
    assert "the search ended: precision reached" in out
    assert "warning: outputs were 8 % short" in out


def test_several_answers_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(ANSWER, server="max_num_seqs=128", capacity=24.2, low=23.0, high=26.0)
    Console().answers([ANSWER, other], columns={"true capacity": ["12.2", "24.9 (in it)"]})

    out = capsys.readouterr().out
    assert "max_num_seqs=128 carries most: 24.2 requests/s" in out
    assert "24.9 (in it)" in out
    assert "workload" not in out


@pytest.mark.parametrize("evidence", ["not_started", "undecided"])
def test_an_error_is_told_once(evidence: EvidenceClass, capsys: pytest.CaptureFixture[str]) -> None:
    error = "server exited with code 2; last lines of x.log:\nno such model"
    Console().answers([replace(ANSWER, evidence=evidence, stop_reason="error", error=error)])

    out = capsys.readouterr().out
    assert 1 == out.count("no such model") == out.count("exited with code 2")


def test_workload_and_sla_have_a_column_where_they_differ(capsys: pytest.CaptureFixture[str]) -> None:
    Console().answers([ANSWER, replace(ANSWER, sla="batch", evidence="undecided", stop_reason="max_time reached")])

    out = capsys.readouterr().out
    assert "SLA" in out
    assert "max_num_seqs=64, [chat], batch: undecided" in out


def test_a_narrow_terminal_gets_blocks_that_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "48")

    console = Console()
    play(console, EVENTS)
    console.answers([ANSWER])

    out, err = capsys.readouterr()
    assert max(len(line) for line in (out + err).splitlines()) <= 48
    assert "capacity       12.1 requests/s" in out


@pytest.mark.parametrize("columns", range(30, 100, 7))
def test_progress_is_never_broken_within_a_value(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    play(Console(), [*EVENTS[:5], ended(0.4), *EVENTS[6:]])

    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= columns
    text = "\n".join(line.strip() for line in lines)
    for value in ("12.5 requests/s", "60 s", "400 ms", "> 200 ms", "12 s"):
        assert value in text
    assert all(line.startswith(("max_num_seqs=64: ", "warning: ", " ")) for line in lines)


def test_a_trial_is_one_line_of_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    play(Console(), [ended(0.4)])

    (line,) = capsys.readouterr().err.splitlines()
    assert "  ✗ trial 1  12.5 requests/s  measuring, 60 s: p90_ttft_ms 400 ms > 200 ms" == line


def test_answers_are_compared_side_by_side_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    other = replace(ANSWER, server="max_num_seqs=128", capacity=24.2, low=23.0, high=26.0, benchmark_s=60.0)

    Console().answers([ANSWER, other])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = " ".join(" ".join(lines[1:3]).split())
    for head in ("configuration", "capacity", "requests/s", "90 %", "evidence", "limited", "trials", "time"):
        assert head in heads
    (first,) = [line for line in lines if line.startswith("max_num_seqs=64 ")]
    assert ["max_num_seqs=64", "12.1", "11.8", "to", "12.8", "edge", "p90_ttft_ms", "7", "2", "min"] == first.split()
    assert any(line.startswith("max_num_seqs=128 ") and "23 to 26" in line for line in lines)
    assert "no room for: requests" in lines


def test_trials_are_a_row_each_in_80_columns_in_the_order_of_their_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    fast, slow = (replace(ended(ttft_s).trial, id=id) for ttft_s, id in ((0.1, "0002"), (0.4, "0010")))
    high = replace(fast, id="0001", probe=replace(PROBE, load=1234.0))

    Console().trials(opened(high, fast, slow), [SLA])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [["1", "1,234"], ["2", "12.5"], ["10", "12.5"]] == [line.split()[:2] for line in lines[4:7]]
    assert ["100", "400"] == [line.split()[-2] for line in lines[5:7]]
    assert "p90_" in lines[2]
    assert "ttft_ms" in lines[3]
    assert lines[7].startswith("in all: kind main, ended full")
    assert "error_rate 0 %" in " ".join(lines[7:])


def test_an_ascii_terminal_gets_ascii_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import test_console as t; t.play(t.Console(), t.EVENTS); t.Console().answers([t.ANSWER])"
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii:strict"}

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, cwd=TESTS, check=False)

    assert done.returncode == 0, done.stderr.decode()
    assert b"+ trial 1" in done.stderr


@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal_progress_is_live_and_goes_away(colour: bool) -> None:
    code = (
        "import test_console as t, sys\n"
        "console = t.Console(); console.begin(t.EXPERIMENT)\n"
        "with console:\n"
        "    for event in t.EVENTS[:4]: console.on_event(event)\n"
        "    sys.stdin.readline()\n"
        "    for event in t.EVENTS[4:]: console.on_event(event)\n"
        "console.answers([t.ANSWER])\n"
    )
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    if not colour:
        environment["NO_COLOR"] = "1"
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=slave, stderr=slave, env=environment, cwd=TESTS
    ) as process:
        os.close(slave)
        live = read_until(master, b"412 sent, 398 finished, 2 failed")
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        rest = read_until(master, b"This server carries 12.1 requests/s")
    os.close(master)

    assert b"184 ms" in live
    assert b"<= 200 ms" in live
    assert "✓".encode() in rest
    assert colour is (b"\x1b[32m" in live + rest)
