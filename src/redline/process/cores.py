"""Which cores a server and the load workers beside it run on, so that neither waits for the other."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from redline.process.table import listener

Cores: TypeAlias = frozenset[int]
ANY: Cores = frozenset()  # nobody chose, or nobody knows

_PROC = Path("/proc")
ENOUGH = 4  # for a server and a load worker; with fewer, each is worth more to the server than to us


# ---- deciding --------------------------------------------------------------------------------------------------------


def of_a_server(usable: Cores) -> Cores:
    """The cores that a server which is launched here starts on: all but the last, which is kept for a load worker.

    All, where that would take more than a quarter. How many workers there are must not count: trials are pooled
    whatever their number, so they need a server on the same cores.
    """
    return usable if len(usable) < ENOUGH else frozenset(sorted(usable)[:-1])


def of_load_workers(usable: Cores, servers: Cores, workers: int) -> Cores:
    """The cores that load workers keep to: those that the server may not use, or all where these are too few.

    Without knowing the server's, all.
    """
    free = usable - servers
    return free if servers and len(free) >= workers else usable


# ---- asking and telling the system -----------------------------------------------------------------------------------


def usable() -> Cores:
    """Those that this process may use, as whoever started it wants; none where the system binds no process."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ANY


def count() -> int:
    """How many this process may use."""
    return len(usable()) or os.cpu_count() or 1


def of_listener(port: int) -> Cores:
    """Those that any thread of the server on a port of this machine may use; none if not known.

    Its threads are those of the process that listens and of all that this one started. Does not see what another user
    runs, nor engines that the listening process is itself a child of.
    """
    found = listener(port)
    if not found or not hasattr(os, "sched_getaffinity"):
        return ANY
    try:
        return frozenset(_of_threads(found.pid))
    except OSError:  # such as from a kernel that tells no children: a part must not pass for the whole
        return ANY


def _of_threads(pid: int) -> set[int]:
    cores: set[int] = set()
    threads: list[Path] = []
    children: list[str] = []
    process = _PROC / str(pid) / "task"
    with _unless_ended(process):
        threads += process.iterdir()
    for thread in threads:
        with _unless_ended(thread):
            cores |= os.sched_getaffinity(int(thread.name))
            children += (thread / "children").read_text().split()
    return cores.union(*(_of_threads(int(child)) for child in children))


@contextmanager
def _unless_ended(entry: Path) -> Iterator[None]:
    """What cannot be read inside is an error only of a process or thread that is still there."""
    try:
        yield
    except OSError:
        if entry.exists():
            raise


def keep_to(cores: Collection[int]) -> None:
    """Run on these from now on; where that is refused, on the same as before."""
    if cores:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)


@contextmanager
def starting_on(cores: Collection[int]) -> Iterator[None]:
    """What this thread starts inside runs on these; on all of ours where none are given."""
    before = usable()
    keep_to(cores)
    try:
        yield
    finally:
        keep_to(before if cores else ())
