"""Who runs on which cores: decided on made-up machines, and done on this one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from driving import SimServer
from redline import process
from redline.loadgen import open_session
from redline.model import CommandWorkload, Endpoint, Experiment, Goal, Lengths, Probe, ServerConfig, Workload
from redline.process.cores import of_a_server, of_listener, of_load_workers, starting_on, usable
from redline.runner.local import server_cores
from redline.server import launch
from tiny_server import SCRIPT

CHAT = Workload(name="chat", prompt=Lengths(mean=20), output=Lengths(mean=4))
BENCH = CommandWorkload(name="b", command=("bench",), reader="vllm")
PRINT = "import os; print(sorted(os.sched_getaffinity(0)))"
several = pytest.mark.skipif(len(usable()) < 2, reason="needs a second core")


def cores(text: str) -> frozenset[int]:
    """`0-3,8` as a set."""
    ranges = (part.partition("-")[::2] for part in text.split(",") if part)
    return frozenset(core for low, high in ranges for core in range(int(low), int(high or low) + 1))


@pytest.mark.parametrize(
    ("machine", "servers"),
    [("0-1", "0-1"), ("0-2", "0-2"), ("0-3", "0-2"), ("0-15", "0-14"), ("4-6,9", "4-6"), ("", "")],
)
def test_a_server_leaves_a_core_to_the_load_worker_where_that_is_a_quarter_at_most(machine, servers):
    assert cores(servers) == of_a_server(cores(machine))


@pytest.mark.parametrize(
    ("machine", "servers", "workers", "own"),
    [
        ("0-15", "0-14", 1, "15"),
        ("0-15", "0-14", 2, "0-15"),  # two on one core would be worse off than free ones
        ("0-15", "0-3", 2, "4-15"),
        ("0-15", "0-15", 1, "0-15"),
        ("0-15", "", 1, "0-15"),  # nobody knows
        ("0-1", "0", 1, "1"),
        ("2-3", "0-1", 1, "2-3"),
        ("0-3", "0-63", 1, "0-3"),
    ],
)
def test_load_workers_keep_off_the_cores_that_a_server_may_use(machine, servers, workers, own):
    assert cores(own) == of_load_workers(cores(machine), cores(servers), workers)


@several
def test_a_command_starts_on_the_cores_that_it_is_given_and_we_stay_where_we_are(tmp_path: Path):
    before, last = usable(), frozenset([max(usable())])
    group = process.start((sys.executable, "-c", PRINT), env={}, log=tmp_path / "log", cores=last)
    process.wait(group, 20)
    process.stop(group, 1.0)

    assert str(sorted(last)) == (tmp_path / "log").read_text().strip()
    assert before == usable()


@several
def test_a_server_is_launched_on_the_cores_that_are_left_to_it(tmp_path: Path):
    first = frozenset([min(usable())])
    command = (sys.executable, SCRIPT, "--port", "{port}")

    with launch(ServerConfig(name="s", command=command), tmp_path, cores=first) as server:
        assert first == of_listener(int(server.endpoint.url.rpartition(":")[2]))


@several
def test_the_cores_of_a_server_are_those_of_its_threads_and_children_too():
    first, last = min(usable()), max(usable())
    listens = (
        "import os, socket, subprocess, sys\n"
        f"os.sched_setaffinity(0, [{last}])\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"os.sched_setaffinity(0, [{first}])\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    print(server.getsockname()[1], flush=True)\n"
        "    sys.stdin.read()\n"
        "child.kill()\n"
        "child.wait()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", listens], **pipes) as server:
        found = of_listener(int(server.stdout.readline()))
        server.stdin.close()

    assert {first, last} == found


@pytest.fixture
def threads(monkeypatch, tmp_path: Path) -> Path:
    """A made-up process 1, which listens, with the threads 1 to 3 on cores 1 to 3, each with a child on core 10 times
    as high.
    """
    for pid, tid in ((1, 1), (1, 2), (1, 3), (10, 10), (20, 20), (30, 30)):
        thread = tmp_path / f"{pid}/task/{tid}"
        thread.mkdir(parents=True)
        (thread / "children").write_text(f"{tid}0 " if pid == 1 else "")
    monkeypatch.setattr(process.cores, "_PROC", tmp_path)
    monkeypatch.setattr(process.cores, "listener", lambda port: process.table.Process(1, 1, 1, False, "now"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda tid: {tid})
    return tmp_path


@pytest.mark.parametrize("ended", [1, 2, 3])
def test_a_thread_that_ends_while_it_is_looked_at_hides_no_other(monkeypatch, threads: Path, ended):
    def affinity(tid: int) -> set[int]:
        if tid == ended:
            shutil.rmtree(threads / f"1/task/{tid}")
            raise ProcessLookupError
        return {tid}

    monkeypatch.setattr(os, "sched_getaffinity", affinity)

    assert {1, 2, 3, 10, 20, 30} - {ended, 10 * ended} == of_listener(80)


def test_a_child_that_ends_while_it_is_looked_at_hides_no_other(threads: Path):
    shutil.rmtree(threads / "20")

    assert {1, 2, 3, 10, 30} == of_listener(80)


@pytest.mark.parametrize("unread", ["1/task/2", "30/task/30"])
def test_where_a_thread_does_not_tell_its_children_nothing_is_known(threads: Path, unread):
    (threads / unread / "children").unlink()

    assert frozenset() == of_listener(80)


def test_of_a_port_on_which_nobody_listens_nothing_is_known():
    assert frozenset() == of_listener(1)


@several
def test_a_worker_keeps_off_the_cores_of_a_server_that_is_bound_to_some(tmp_path: Path):
    """Also of one that Redline did not start; one that may use all cores moves no worker."""
    first = min(usable())
    rest = usable() - {first}

    def measured_beside(server: SimServer) -> tuple[list[int], set[int], bool]:
        with open_session(Endpoint(url=server.url, model="simulated"), CHAT) as session:
            session.measure(Probe(by="rate", load=20.0, kind="main", max_s=0.3), lambda _: None, seed=1)
            shares = any("share" in text for text in session.warnings)
            return session.facts["load_cores"], os.sched_getaffinity(session.worker_pid), shares

    with SimServer() as server:
        free = measured_beside(server)
        for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), [first])
        bound = measured_beside(server)
        with starting_on(rest):
            apart_before = measured_beside(server)

    assert ([], usable(), len(usable()) < 4) == free
    assert (sorted(rest), rest, False) == bound == apart_before


@pytest.mark.parametrize(
    ("machine", "load_workers", "workloads", "servers"),
    [
        ("0-7", None, [CHAT], "0-6"),
        ("0-7", 2, [CHAT], "0-6"),  # as many as for one: its trials have the same key
        ("0-1", None, [CHAT], "0-1"),
        ("0-7", None, [BENCH], ""),
        ("0-7", None, [BENCH, CHAT], "0-6"),
    ],
)
def test_only_the_built_in_generator_gets_a_core_of_its_own(monkeypatch, machine, load_workers, workloads, servers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cores(machine)))
    config = ServerConfig(name="s", command=("serve",))
    goal = Goal(load_workers=load_workers)
    experiment = Experiment(name="e", servers=(config,), workloads=tuple(workloads), slas=(), goal=goal)

    assert cores(servers) == server_cores(experiment)
