import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from redline import process
from redline.model import Interrupted, RedlineError
from redline.process import Group, Marker
from waiting import gone, number_in, until

Start = Callable[..., Group]

IGNORES_TERM = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
SAYS_BYE = """
import signal, sys, time
def bye(*_):
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a Python script, or a command, that is gone after the test."""
    groups: list[Group] = []

    def start(script: str = "", *, argv: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Group:
        argv = argv or (sys.executable, "-c", script)
        groups.append(process.start(argv, env=env or {}, log=tmp_path / f"{len(groups)}.log"))
        return groups[-1]

    yield start
    for group in groups:
        process.stop(group, 0.0)


def says(group: Group, text: str) -> None:
    until(lambda: text in group.log.read_text())


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(RedlineError, match=r"cannot start 'no-such-server': No such file.*no-such-server --port 1"):
        process.start(["no-such-server", "--port", "1"], env={}, log=tmp_path / "log")


def test_output_goes_to_the_log_and_the_environment_carries_the_marker(start: Start) -> None:
    group = start(
        "import os, sys; print(os.environ['REDLINE_SERVER'], os.environ['MINE']); sys.exit('oops')", env={"MINE": "x"}
    )

    assert 1 == process.wait(group, 10.0)
    assert f"{group.marker.uuid} x\noops" == process.tail(group.log)


def test_a_command_has_a_session_of_its_own(start: Start) -> None:
    group = start(SAYS_BYE)

    assert group.pid == group.marker.pid == group.marker.pgid == os.getsid(group.pid)
    assert os.getsid(0) != os.getsid(group.pid)


def test_the_exit_code_is_known_before_and_after_it_is_reaped(start: Start) -> None:
    running, killed = start(SAYS_BYE), start(SAYS_BYE)
    killed.leader.kill()

    assert -9 == process.wait(killed, 10.0)
    assert -9 == process.exit_code(killed)
    process.stop(killed, 1.0)
    assert -9 == process.exit_code(killed)
    assert process.exit_code(running) is None
    assert process.alive(running)


def test_a_server_may_end_in_peace(start: Start) -> None:
    group = start(SAYS_BYE)
    says(group, "up")

    process.stop(group, 10.0)

    assert "up\nbye" == process.tail(group.log)
    assert 0 == group.leader.returncode


def test_a_server_that_ignores_term_is_killed_after_its_grace(start: Start) -> None:
    group = start(IGNORES_TERM)
    says(group, "up")

    process.stop(group, 0.2)

    assert -signal.SIGKILL == group.leader.returncode


def test_workers_end_though_their_leader_is_dead(start: Start, tmp_path: Path) -> None:
    group = start(argv=("sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid"))
    worker = number_in(tmp_path / "pid")
    assert 0 == process.wait(group, 10.0)
    assert not gone(worker)

    process.stop(group, 10.0)

    assert gone(worker)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="environments are read from /proc")
def test_a_worker_that_left_the_group_ends_too(start: Start, tmp_path: Path) -> None:
    group = start(argv=("sh", "-c", f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 600' & wait"))
    worker = number_in(tmp_path / "pid")
    assert os.getsid(worker) == worker != group.pid

    process.stop(group, 10.0)

    assert gone(worker)


def test_a_worker_that_starts_while_the_group_is_stopped_ends_too(start: Start, tmp_path: Path) -> None:
    late = f"trap 'sh -c \"trap : TERM; echo \\$\\$ > {tmp_path}/pid; while :; do sleep 1; done\" & exit' TERM; "
    group = start(argv=("sh", "-c", late + "echo up; while :; do sleep 0.05; done"))
    says(group, "up")

    process.stop(group, 0.5)

    assert gone(number_in(tmp_path / "pid"))


def test_stopping_twice_is_harmless(start: Start) -> None:
    group = start(SAYS_BYE)
    process.stop(group, 0.0)

    process.stop(group, 0.0)

    assert not process.alive(group)


def test_what_a_killed_driver_left_behind_is_found_by_its_uuid_alone(start: Start) -> None:
    group = start(SAYS_BYE)
    noted_before_the_start = Marker(uuid=group.marker.uuid)
    says(group, "up")

    signalled = process.stop_left_behind(noted_before_the_start)

    assert (group.pid,) == signalled
    assert 0 == process.wait(group, 10.0)


def test_nothing_is_left_behind_twice(start: Start) -> None:
    group = start(SAYS_BYE)
    process.stop(group, 0.0)

    assert () == process.stop_left_behind(group.marker)


def test_another_process_that_has_the_number_now_is_never_signalled(start: Start) -> None:
    bystander = start(SAYS_BYE)
    says(bystander, "up")
    stale = replace(bystander.marker, uuid="of-another-server", start_time="long ago")

    assert () == process.stop_left_behind(stale, grace_s=0.0)
    assert process.alive(bystander)


def test_a_member_without_the_uuid_ends_where_the_leader_is_surely_ours(start: Start) -> None:
    group = start(SAYS_BYE)
    says(group, "up")
    not_marked = replace(group.marker, uuid="cannot be read")

    assert (group.pid,) == process.stop_left_behind(not_marked)


def test_a_server_that_is_no_child_is_stopped_by_its_command(tmp_path: Path) -> None:
    marker = process.new_marker(stop=("sh", "-c", f"echo stopped > {tmp_path}/said"))

    process.stop_left_behind(marker)

    assert "stopped\n" == (tmp_path / "said").read_text()


def test_the_tail_of_a_log_is_short(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(100_000)) + "x" * 1000 + "\n")

    assert ["line 99998", "line 99999", "x" * 400] == process.tail(log, lines=3).splitlines()
    assert "" == process.tail(tmp_path / "none")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_once_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with pytest.raises(Interrupted, match=number.name), process.interruptible():
        os.kill(os.getpid(), number)

    assert before is signal.getsignal(number)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process.interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_waits_until_a_shielded_part_is_done() -> None:
    done = []

    def shielded_part() -> None:
        with process.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("all of it")

    with pytest.raises(Interrupted), process.interruptible():
        shielded_part()

    assert ["all of it"] == done


def test_a_second_signal_kills_our_groups_at_once(start: Start) -> None:
    group = start(IGNORES_TERM)
    says(group, "up")

    with suppress(Interrupted), process.interruptible():
        with suppress(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        assert process.alive(group)
        os.kill(os.getpid(), signal.SIGINT)

    assert -signal.SIGKILL == process.wait(group, 10.0)
