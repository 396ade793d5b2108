"""Servers that misbehave under drivers that are killed, interrupted, and interrupted again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redline import process
from redline.process import Marker, table
from tiny_server import SCRIPT
from waiting import gone, until

# Launches a server, says so, and holds it until it is stopped; what it gets as arguments is the server's.
DRIVER = """
import dataclasses, json, sys, time
from pathlib import Path
from redline.model import Interrupted, ServerConfig
from redline.process import interruptible
from redline.server import launch

place, grace_s, *command = sys.argv[1:]

def note(marker):
    Path(place, "marker.tmp").write_text(json.dumps(marker and dataclasses.asdict(marker)))
    Path(place, "marker.tmp").rename(Path(place, "marker"))

config = ServerConfig(name="s", command=tuple(command), stop_grace_s=float(grace_s))
try:
    with interruptible(), launch(config, Path(place), note):
        Path(place, "ready").touch()
        time.sleep(600)
except Interrupted as interrupted:
    sys.exit(f"interrupted by {interrupted}")
"""


class Driver:
    """A driver in a process group of its own, as a shell starts one, with a tiny server."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def start(self, *options: str, grace_s: float = 60.0) -> None:
        command = [sys.executable, SCRIPT, "--port", "{port}", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.place), str(grace_s), *command],
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    @property
    def marker(self) -> Marker | None:
        noted = json.loads((self.place / "marker").read_text())
        return Marker(**{**noted, "stop": ()}) if noted else None

    def server(self) -> Marker:
        """The marker of the server, once it is ready."""
        until(lambda: (self.place / "ready").exists())
        marker = self.marker
        assert marker is not None
        return marker

    def log(self) -> str:
        return (self.place / "server.log").read_text()

    def signal(self, number: signal.Signals) -> None:
        """To the whole foreground group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def said(self) -> str:
        return self.process.communicate(timeout=20)[1]


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path)
    yield driver
    driver.process.kill()
    driver.process.communicate()
    if driver.marker:  # a failed test must not leave its server to others
        process.stop_left_behind(driver.marker, grace_s=0.0)


def worker_of(place: Path) -> int:
    return int((place / "worker").read_text())


def test_what_a_killed_driver_leaves_is_ended_by_the_next_one_with_all_its_workers(driver: Driver) -> None:
    driver.start("--worker", str(driver.place / "worker"))
    left, worker = driver.server(), worker_of(driver.place)
    driver.process.kill()
    driver.process.wait(10)
    assert not gone(left.pid)
    assert os.getsid(worker) == worker != left.pid

    signalled = process.stop_left_behind(left)

    assert tuple(sorted((left.pid, worker))) == signalled
    assert gone(left.pid)
    assert gone(worker)


def test_workers_are_found_though_the_server_died_with_its_driver(driver: Driver) -> None:
    driver.start("--worker", str(driver.place / "worker"))
    left, worker = driver.server(), worker_of(driver.place)
    driver.process.kill()
    os.kill(left.pid, signal.SIGKILL)
    until(lambda: gone(left.pid))

    assert (worker,) == process.stop_left_behind(left)
    assert gone(worker)


def test_a_left_server_that_ignores_term_is_killed(driver: Driver) -> None:
    driver.start("--ignore-term")
    left = driver.server()
    driver.process.kill()
    driver.process.wait(10)

    assert (left.pid,) == process.stop_left_behind(left, grace_s=0.2)
    assert gone(left.pid)
    assert "TERM, ignored" in driver.log()


def test_an_interrupt_stops_the_server_which_itself_sees_only_a_term(driver: Driver) -> None:
    driver.start("--worker", str(driver.place / "worker"))
    server, worker = driver.server(), worker_of(driver.place)

    driver.signal(signal.SIGINT)

    assert "interrupted by SIGINT\n" == driver.said()
    assert gone(server.pid)
    assert gone(worker)
    assert driver.marker is None
    assert "KeyboardInterrupt" not in driver.log()


def test_an_interrupt_gives_the_server_its_grace(driver: Driver) -> None:
    driver.start("--ignore-term", grace_s=0.5)
    server = driver.server()
    began = time.monotonic()

    driver.signal(signal.SIGTERM)

    assert "interrupted by SIGTERM\n" == driver.said()
    assert time.monotonic() - began >= 0.5
    assert gone(server.pid)


def test_a_second_interrupt_kills_a_server_that_would_have_a_long_grace(driver: Driver) -> None:
    driver.start("--ignore-term", "--worker", str(driver.place / "worker"))
    server, worker = driver.server(), worker_of(driver.place)
    driver.signal(signal.SIGINT)
    until(lambda: "TERM, ignored" in driver.log())
    assert driver.process.poll() is None

    driver.signal(signal.SIGINT)

    assert "interrupted by SIGINT\n" == driver.said()
    assert gone(server.pid)
    assert gone(worker)
    assert driver.marker is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_while_the_server_is_not_ready_yet_stops_it(driver: Driver, number: signal.Signals) -> None:
    driver.start("--health", "503")
    until(lambda: (driver.place / "server.log").exists() and "listens" in driver.log())
    starting = driver.marker
    assert starting is not None

    driver.signal(number)

    assert f"interrupted by {number.name}\n" == driver.said()
    assert gone(starting.pid)
    assert driver.marker is None


def test_killed_in_the_middle_of_a_start_nothing_is_lost(driver: Driver) -> None:
    driver.start()
    until(lambda: (driver.place / "marker").exists())  # which is noted before the server is started
    driver.process.kill()
    driver.process.wait(10)
    noted = driver.marker
    assert noted is not None

    process.stop_left_behind(noted)

    mark = f"{process.MARK}={noted.uuid}"
    assert [] == [p for p in table.table() if not p.zombie and table.carries(p.pid, mark)]
