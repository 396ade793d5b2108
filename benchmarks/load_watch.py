"""The mock server, and a client's process tree, watched while the client runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from load_figures import Sample

_SAMPLE_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


def compiled(source: Path, folder: Path) -> Path:
    """The program made of a C file. SystemExit where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler: the mock server needs `cc` on the PATH")
    program = folder / source.stem
    subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return program


class Mock:
    """The mock server that runs."""

    def __init__(self, port: int, pid: int = 0) -> None:
        self.port, self.pid = port, pid

    def get(self, path: str) -> bytes:
        """What it says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def counts(self) -> Mapping[str, int]:
        """Requests, ended, chunks, held."""
        said: dict[str, int] = json.loads(self.get("/counts"))
        return said


@contextlib.contextmanager
def mock_server(program: Path, tokens_per_s: float, first_ms: float) -> Iterator[Mock]:
    """The mock server on a free port; it ends with us, whatever ends us."""
    command = [str(program), f"{tokens_per_s:g}", f"{first_ms:g}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # a pipe
        try:
            yield Mock(int(process.stdout.readline()), process.pid)
        finally:
            process.kill()


@contextlib.contextmanager
def awake(program: Path) -> Iterator[None]:
    """No core sleeps meanwhile: whatever else wants one gets it at once from a process of the lowest priority.

    To wake a core that sleeps takes time, most of all a virtual one's, and a client that waits for its server would be
    charged for it where a busier one is not.
    """
    with contextlib.ExitStack() as stack:
        for core in os.sched_getaffinity(0):
            process = stack.enter_context(subprocess.Popen([str(program)]))
            stack.callback(process.kill)
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setaffinity(process.pid, {core})
        yield


def watched(
    command: Sequence[str], mock: Mock, folder: Path, env: Mapping[str, str], within_s: float
) -> tuple[str, list[Sample], str]:
    """What the client printed, the samples taken while it ran, and why it failed, if so."""
    samples: list[Sample] = []
    out = folder / "printed.txt"
    with out.open("w") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            cwd=folder,
        )
        deadline = time.monotonic() + within_s
        try:
            while process.poll() is None and time.monotonic() < deadline:
                samples.append(_sample(process.pid, mock.counts()))
                time.sleep(_SAMPLE_S)
        finally:
            timed_out = process.poll() is None
            _end(process)
    printed = out.read_text(errors="replace")
    if timed_out:
        return printed, samples, f"not done after {within_s:.0f} s"
    return printed, samples, f"exit code {process.returncode}" if process.returncode else ""


def _sample(root: int, counts: Mapping[str, int]) -> Sample:
    tree = process_tree(root)
    return Sample(
        at_s=time.monotonic(),
        cpu_s=sum(_cpu_s(stat) for stat in tree.values()),
        memory_mb=sum(_memory_mb(pid) for pid in tree),
        **counts,
    )


def process_tree(root: int) -> dict[int, list[str]]:
    """`root` and all below it: pid -> the fields of its stat file after the name.

    By the kernel's lists of children: to look through all processes would take a core from client and server for so
    long that one request in a hundred met it.
    """
    tree: dict[int, list[str]] = {}
    left = [root]
    while left:
        folder = Path(f"/proc/{left.pop()}")
        with contextlib.suppress(OSError):
            tree[int(folder.name)] = (folder / "stat").read_text().rpartition(") ")[2].split()
            for task in (folder / "task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # of a thread that just ended
                    left += [int(pid) for pid in (task / "children").read_text().split()]
    return tree


def _cpu_s(stat: Sequence[str]) -> float:
    """User and system time, that of children that ended included."""
    return sum(int(ticks) for ticks in stat[11:15]) / _TICKS_PER_S


def _memory_mb(pid: int) -> float:
    """What is resident and of no file; 0 for a process that just ended."""
    with contextlib.suppress(OSError):
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(resident) - int(shared)) * _PAGE_MB
    return 0.0


def _end(process: subprocess.Popen[Any]) -> None:
    """End what is left of the tree."""
    for pid in [] if process.poll() is not None else process_tree(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    process.wait()
