"""Killed or stopped at any moment, the same command goes on, and what is not ours is left alone."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from driving import ENVIRONMENT, SimServer, redline_here
from redline.process import table
from waiting import gone, until

EXPERIMENT = """
[server]
command = "redline sim-server --port {port}"
vary = { max_num_seqs = [16, 32] }
stop_grace_s = 5

[workload.small]
random = { in = 16, out = 8 }

[sla]
quick = ["mean_ttft_ms<=60s"]

[search]
min = 50
max = 200
max_time = "3s"
"""  # two scouts for each configuration, then the time is up


class Driver:
    """`redline` in a session of its own, so that all of it can be found."""

    def __init__(self, directory: Path, *argv: str) -> None:
        self.kept = directory / "kept"
        self.err = directory / "stderr.txt"
        with self.err.open("wb") as err, (directory / "stdout.txt").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "redline", *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=directory,
                env=ENVIRONMENT,
                start_new_session=True,
            )

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def kill(self) -> None:
        """As a crash does: nobody is told."""
        self.process.kill()
        self.process.wait(10)

    def said(self) -> str:
        return self.err.read_text()

    def lines(self) -> list[str]:
        """The finished trials, as they are stored."""
        path = self.kept / "trials.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    def marker(self) -> dict[str, object] | None:
        """The server that is up."""
        with suppress(OSError, ValueError):
            marker = json.loads((self.kept / "server.json").read_text())
            return marker if marker["pid"] else None
        return None


def starting(driver: Driver) -> bool:
    return driver.marker() is not None


def ready(driver: Driver) -> bool:
    return "ready after" in driver.said()


def one_trial_kept(driver: Driver) -> bool:
    return len(driver.lines()) == 1


def second_server_starting(driver: Driver) -> bool:
    return len(driver.lines()) >= 2 and driver.marker() is not None and "max_num_seqs=32: starting" in driver.said()


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    yield tmp_path
    with suppress(OSError, ValueError):  # a failed test must not leave its server to others
        os.killpg(json.loads((tmp_path / "kept" / "server.json").read_text())["pid"], signal.SIGKILL)


RUN = ("run", "experiment.toml", "--out", "kept", "--json")


def test_killed_at_any_moment_the_same_command_goes_on_and_repeats_no_finished_trial(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moments: list[Callable[[Driver], bool]] = [starting, one_trial_kept, second_server_starting]
    kept: list[str] = []
    with SimServer() as foreign:
        for moment in moments:
            with Driver(experiment, *RUN) as driver:
                until(lambda driver=driver, moment=moment: moment(driver) or driver.process.poll() is not None, 60)
            left = driver.marker()
            assert left is not None, driver.said()
            until(lambda driver=driver: _alone(driver.process.pid))  # its load worker ends with it
            assert kept == driver.lines()[: len(kept)]
            kept = driver.lines()
            assert not gone(int(str(left["pid"])))

        monkeypatch.chdir(experiment)
        code, last, err = redline_here(RUN, capsys)

        assert code == 4, err
        assert f"stopped the server that an earlier run had left behind (process {left['pid']})" in err
        assert f"continuing with {len(kept)} trial" in err
        assert gone(int(str(left["pid"])))
        assert foreign.answers()
    lines = driver.lines()
    assert kept == lines[: len(kept)]
    probes = [(json.loads(line)["case"], json.loads(line)["probe"]["load"]) for line in lines]
    assert 4 == len(set(probes)) == len(probes)
    assert (4, last) == redline_here(("show", "kept", "--json"), capsys)[:2]
    code, out, err = redline_here(RUN, capsys)
    assert (4, last) == (code, out)
    assert "nothing was left to measure: answered from kept" in err


def _alone(session: int) -> bool:
    """No process of this session runs."""
    return not [process for process in table.table() if process.session == session and not process.zombie]


def test_a_process_that_got_the_number_of_the_lost_server_is_not_signalled(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(experiment)
    with Driver(experiment, *RUN) as driver:
        until(lambda: ready(driver), 60)
    left = driver.marker()
    assert left is not None
    with SimServer() as foreign:
        number = foreign.process.pid
        (driver.kept / "server.json").write_text(json.dumps({**left, "pid": number, "pgid": os.getpgid(number)}))

        with Driver(experiment, *RUN) as second:
            until(lambda: ready(second), 60)

            assert gone(int(str(left["pid"])))  # found by what its environment carries
            assert foreign.answers()
            third = redline_here(RUN, capsys)
            assert (1, "") == third[:2]
            assert f"kept is in use by process {second.process.pid}" in third[2]
            second.process.send_signal(signal.SIGTERM)
            assert second.process.wait(10) == 130
        assert foreign.answers()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_stop_ends_the_load_within_a_second_and_the_server_soon_after(
    experiment: Path, number: signal.Signals
) -> None:
    with Driver(experiment, *RUN) as driver:
        until(lambda: ready(driver), 60)
        marker = driver.marker()
        assert marker is not None

        driver.process.send_signal(number)
        began = time.monotonic()
        code = driver.process.wait(10)

    assert time.monotonic() - began < 7.0  # 1 s for the load, 5 s for a simulated server
    assert code == 130
    assert gone(int(str(marker["pid"])))
    assert not (driver.kept / "server.json").exists()
    assert "Traceback" not in driver.said()
    last = driver.said().strip().splitlines()[-1]
    assert ["redline", *RUN] == shlex.split(last)


def test_after_a_stop_nothing_runs_on_the_server_and_the_printed_command_continues(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    sla = ("--sla", "mean_ttft_ms<=60s", "--workload", "random:in=16,out=8")
    search = ("--min", "50", "--max", "200")  # two scouts, then a trial of 5 s or more
    with (
        SimServer() as server,
        Driver(tmp_path, "find", server.url, *sla, *search, "--out", "kept", "--again") as driver,
    ):
        driver.kept = tmp_path / "kept-2"  # --again
        until(lambda: len(driver.lines()) == 2 and server.in_flight() > 0, 60)

        driver.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        until(lambda: server.in_flight() == 0, 5)
        stopped_s = time.monotonic() - began
        assert driver.process.wait(10) == 130

        assert stopped_s < 1.5  # the second that is promised, and what it takes to see it
        program, *command = shlex.split(driver.said().strip().splitlines()[-1])
        assert program == "redline"
        assert command == ["find", server.url, *sla, *search, "--out", "kept-2"]
        with Driver(tmp_path, *command) as second:
            until(lambda: "continuing with 2 trials from kept-2" in second.said(), 30)
            second.process.send_signal(signal.SIGINT)
            assert second.process.wait(10) == 130
