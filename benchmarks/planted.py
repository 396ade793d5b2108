"""Faults to plant in a load worker while it measures: it is stopped now and then, or shares its core."""

import contextlib
import os
import random
import signal  # noqa: TID251  # the faults are what this is about
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

_HOG = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile os.getppid() == int(sys.argv[2]): pass"


@contextlib.contextmanager
def stopped(
    pids: Callable[[], list[int]], for_s: float = 0.05, each_s: float = 0.1, jitter: float = 0.0
) -> Iterator[None]:
    """Stop these processes for so long, so often; the pauses between differ by up to `jitter`, a share of them."""
    ended = threading.Event()

    def send(number: int) -> None:
        for pid in pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def now_and_then() -> None:
        while not ended.wait((each_s - for_s) * random.uniform(1 - jitter, 1 + jitter)):
            send(signal.SIGSTOP)
            ended.wait(for_s)
            send(signal.SIGCONT)

    thread = threading.Thread(target=now_and_then)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        send(signal.SIGCONT)


@contextlib.contextmanager
def crowded(pid: int, hogs: int) -> Iterator[None]:
    """Put a process on one core with so many busy ones, at ordinary priority."""
    core = max(os.sched_getaffinity(0))
    os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(pid, {core})
    processes = [subprocess.Popen([sys.executable, "-c", _HOG, str(core), str(os.getpid())]) for _ in range(hogs)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
