"""What the system says about the processes that run now."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


class Process(NamedTuple):
    pid: int
    pgid: int
    session: int  # 0: not known
    zombie: bool
    start_time: str  # with the pid, it names one process for good


def table() -> list[Process]:
    """Every process that this user may see."""
    if not _has_proc():
        return _by_ps(["-ax"])
    return [process for entry in _PROC.iterdir() if entry.name.isdecimal() and (process := look(int(entry.name)))]


def look(pid: int) -> Process | None:
    """The process that has this number now."""
    if not _has_proc():
        return next(iter(_by_ps(["-p", str(pid)])), None)
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return Process(pid, int(fields[2]), int(fields[3]), fields[0] in "ZX", f"{fields[19]}@{_boot()}")


def carries(pid: int, variable: str) -> bool:
    """Was this process started with `NAME=value` in its environment? False where that cannot be read."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return variable.encode() in environment.split(b"\0")


def listener(port: int) -> Process | None:
    """The process that listens on a TCP port of this machine, where that can be seen."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for entry in _PROC.iterdir() if sockets else ():
        if entry.name.isdecimal() and _holds(entry, sockets):
            return look(int(entry.name))
    return None


def command_line(pid: int) -> str:
    """What a process was started as; empty where that cannot be read."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _holds(entry: Path, sockets: set[str]) -> bool:
    try:
        handles = list((entry / "fd").iterdir())
    except OSError:  # gone, or another user's
        return False
    for handle in handles:
        with suppress(OSError):  # closed meanwhile
            if str(handle.readlink()) in sockets:
                return True
    return False


def _listening_inodes(port: int) -> list[str]:
    inodes = []
    for name in ("net/tcp", "net/tcp6"):
        try:
            rows = [line.split() for line in (_PROC / name).read_text().splitlines()[1:]]
        except OSError:
            continue
        inodes += [row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]
    return inodes


@cache
def _has_proc() -> bool:
    return (_PROC / "self/stat").exists()


@cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _by_ps(options: list[str]) -> list[Process]:
    """Where there is no /proc (macOS): no environment and no sessions, so groups and start times must do."""
    columns = ["-o", "pid=,pgid=,stat=,lstart="]
    listing = subprocess.run(["ps", *options, *columns], capture_output=True, text=True, check=False)
    rows = [line.split(maxsplit=3) for line in listing.stdout.splitlines()]
    return [Process(int(pid), int(pgid), 0, stat.startswith("Z"), at.strip()) for pid, pgid, stat, at in rows]
