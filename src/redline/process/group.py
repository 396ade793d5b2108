"""Processes that are ours: started in a session of their own, found again after a crash, and surely stopped."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from redline.model import Interrupted, RedlineError
from redline.process.cores import ANY, Cores, starting_on
from redline.process.table import Process, carries, look, table

MARK = "REDLINE_SERVER"
CLIENT_MARK = "REDLINE_CLIENT_OF"  # of a program that is run while a server of ours is up: that server's uuid
_POLL_S = 0.03
_AFTER_KILL_S = 10.0
_GRACE_S = 1.0  # for what a program that ended left behind
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """What finds a server again after the driver was killed; stored while the server is up."""

    uuid: str
    pid: int = 0  # of the leader; 0: noted before the start
    pgid: int = 0
    start_time: str = ""  # of the leader, as the system tells it
    stop: tuple[str, ...] = ()  # a command that stops it, for servers that are no child of ours


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A started command with everything that it starts."""

    marker: Marker
    log: Path
    leader: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.leader.pid


_live: dict[str, Group] = {}  # by uuid: what a second Ctrl-C kills


# ---- start and stop --------------------------------------------------------------------------------------------------


def new_marker(stop: Sequence[str] = ()) -> Marker:
    """A marker that can be stored before the start, so that no moment is left in which a server could be lost."""
    return Marker(uuid=uuid.uuid4().hex, stop=tuple(stop))


def start(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, marker: Marker | None = None, cores: Cores = ANY
) -> Group:
    """Start a command in a new session, its output appended to `log`; `env` is added to our own environment.

    It begins on these `cores`, and may choose others itself.
    """
    marker = marker or new_marker()
    # Without SPT_NOENV, engines that set their process title (vLLM) overwrite the environment by which we find them.
    environment = {**os.environ, "SPT_NOENV": "1", **env, MARK: marker.uuid, "PATH": _path(env)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with shielded(), log.open("ab") as output, starting_on(cores):
        try:
            leader = subprocess.Popen(
                list(argv),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise RedlineError(
                f"cannot start {argv[0]!r}: {error.strerror} (command: {shlex.join(argv)}); "
                "install it, or give its full path"
            ) from error
        seen = look(leader.pid)
        marker = Marker(
            uuid=marker.uuid,
            pid=leader.pid,
            pgid=leader.pid,
            start_time=seen.start_time if seen else "",
            stop=marker.stop,
        )
        group = Group(marker=marker, log=log, leader=leader)
        _live[marker.uuid] = group
    return group


def installed(program: str, env: Mapping[str, str]) -> bool:
    """Would `start` find this program?"""
    return shutil.which(program, path=_path(env)) is not None


def _path(env: Mapping[str, str]) -> str:
    """`redline` and the engines installed beside it are found last, also where their environment is not activated."""
    return os.pathsep.join([{**os.environ, **env}.get("PATH", os.defpath), str(Path(sys.executable).parent)])


def exit_code(group: Group) -> int | None:
    """The leader's exit code, negative for a signal; None while it runs.

    The leader stays a zombie until `stop`: as long as it is one, no other group can get its number.
    """
    if group.leader.returncode is not None or not hasattr(os, "waitid"):
        return group.leader.poll()
    ended = os.waitid(os.P_PID, group.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def alive(group: Group) -> bool:
    """Does the leader still run?"""
    return exit_code(group) is None


def wait(group: Group, timeout_s: float) -> int | None:
    """The leader's exit code, or None when it still runs after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while (code := exit_code(group)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return code


def run(argv: Sequence[str], log: Path, limit_s: float) -> int | None:
    """Run a program to its end; its exit code, or None where it had to be stopped after `limit_s`."""
    server = next(reversed(_live), None)
    group = start(argv, env={CLIENT_MARK: server} if server else {}, log=log)
    try:
        return wait(group, limit_s)
    finally:
        stop(group, _GRACE_S)


def how_ended(code: int) -> str:
    """An exit code in words that follow the program's name."""
    return f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"


def stop(group: Group, grace_s: float) -> None:
    """End every process of the group, or raise.

    TERM first, also when the leader is dead: engine workers outlive a killed parent and would keep the GPU.
    Reaches processes that left the group where /proc shows the environment they were started with; not
    those that also cleared it. An interrupt waits until this is done; a second one cuts the grace short.
    """
    with shielded():
        try:
            _end(lambda: _members(group.marker, held=group.leader.returncode is None), grace_s)
        except KeyboardInterrupt:
            _kill(group)
            raise
        finally:
            group.leader.poll()
        group.leader.wait()
        _live.pop(group.marker.uuid, None)


def stop_left_behind(marker: Marker, grace_s: float = 10.0) -> tuple[int, ...]:
    """End what a killed driver left of this server, and of the programs that it ran beside; the pids signalled.

    Signals a process only where it carries the marker's uuid, or belongs to a group that is surely the
    marker's: one of its members carries the uuid, or its leader has the noted pid and start time.
    """
    with shielded():
        if marker.stop:
            with suppress(OSError, subprocess.TimeoutExpired):
                limit_s = grace_s + _AFTER_KILL_S
                subprocess.run(marker.stop, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=limit_s)
        return _end(lambda: _members(marker, held=False) + _clients(marker), grace_s)


def tail(log: Path, lines: int = 20, width: int = 400) -> str:
    """The last lines of a log, for error messages."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(line[-width:] for line in text.rstrip().splitlines()[-lines:])


# ---- interrupts ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Interrupts:
    installed: bool = False
    seen: int = 0
    shields: int = 0
    pending: str = ""


_interrupts = _Interrupts()


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted; a second one kills our groups first, a third one leaves at once.

    A signal that was ignored before (SIGHUP by nohup, SIGINT by a script's shell for a background job) stays
    ignored. Outside the main thread, where no handler can be set, nothing changes.
    """
    if _interrupts.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    _interrupts.installed, _interrupts.seen, _interrupts.pending = True, 0, ""
    try:
        for number in caught:
            signal.signal(number, _on_signal)
        yield
    finally:
        for number in caught:
            handler = before[number]
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _interrupts.installed = False


@contextmanager
def shielded() -> Iterator[None]:
    """Hold an interrupt back until the body is done, so that no process is lost between its start and its owner."""
    _interrupts.shields += 1
    try:
        yield
    finally:
        _interrupts.shields -= 1
        if _interrupts.pending and not _interrupts.shields:
            name, _interrupts.pending = _interrupts.pending, ""
            raise Interrupted(name)


def _on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    _interrupts.seen += 1
    if _interrupts.seen > 1:
        for group in list(_live.values()):
            _kill(group)
    if _interrupts.seen > 2:
        os._exit(128 + number)
    if _interrupts.shields:
        _interrupts.pending = signal.Signals(number).name
        return
    raise Interrupted(signal.Signals(number).name)


# ---- who is ours -----------------------------------------------------------------------------------------------------


def _end(find: Callable[[], list[Process]], grace_s: float) -> tuple[int, ...]:
    """TERM to all that is found, KILL after the grace, until nothing is found; the pids that were signalled."""
    told: set[Process] = set()
    kill_at = time.monotonic() + grace_s
    while found := find():
        now = time.monotonic()
        if now > kill_at + _AFTER_KILL_S:
            pids = ",".join(str(process.pid) for process in found)
            raise RedlineError(
                f"processes {pids} did not end {_AFTER_KILL_S:g} s after SIGKILL; "
                f"see what holds them: ps -o pid,stat,wchan,args -p {pids}"
            )
        for process in found:
            if now >= kill_at:
                _signal(process, signal.SIGKILL)
            elif process not in told:
                _signal(process, signal.SIGTERM)
            told.add(process)
        time.sleep(_POLL_S)
    return tuple(sorted(process.pid for process in told))


def _kill(group: Group) -> None:
    for process in _members(group.marker, held=group.leader.returncode is None):
        _signal(process, signal.SIGKILL)


def _members(marker: Marker, *, held: bool) -> list[Process]:
    """The processes of this server that still run; `held`: its leader is our child and not reaped."""
    processes = [process for process in table() if not process.zombie and process.pid != os.getpid()]
    marked = {process for process in processes if carries(process.pid, f"{MARK}={marker.uuid}")}
    if not marker.pid:
        return sorted(marked)
    leader = next((process for process in processes if process.pid == marker.pid), None)
    same_leader = leader is not None and leader.start_time == marker.start_time != ""
    if held or same_leader or any(process.pgid == marker.pgid for process in marked):
        marked |= {process for process in processes if marker.pgid in (process.pgid, process.session)}
    return sorted(marked)


def _clients(marker: Marker) -> list[Process]:
    """What still runs of the benchmarks of this server: the next server would get their load."""
    mark = f"{CLIENT_MARK}={marker.uuid}"
    others = (process for process in table() if not process.zombie and process.pid != os.getpid())
    return [process for process in others if carries(process.pid, mark)]


def _signal(process: Process, number: int) -> None:
    """Signal this very process, never another one that got its number since it was seen."""
    with suppress(ProcessLookupError, PermissionError):
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        except (OSError, AttributeError):  # no pidfd on this system
            if (now := look(process.pid)) and now.start_time == process.start_time:
                os.kill(process.pid, number)
            return
        try:
            if (now := look(process.pid)) and now.start_time == process.start_time:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
