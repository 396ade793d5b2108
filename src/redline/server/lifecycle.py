"""A server to measure: launched here and surely stopped again, or attached to where it runs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from redline import process
from redline.model import Endpoint, RedlineError, ServerConfig, Session, UsageError
from redline.process import Group, Marker
from redline.process.cores import ANY, Cores
from redline.server import address, readiness
from redline.server.ask import NoReplyError, ask, expand, headers_of
from redline.server.idle import Stillness
from redline.server.released import gpu_memory_mib, wait_until_released
from redline.server.warmup import warm_up

_PATIENCE_S = 5.0  # a server that answers nothing for so long is dead
_STOP_COMMAND_S = 30.0  # beyond the grace of the server that it stops
_LOG_COMMAND_S = 10.0
Note: TypeAlias = Callable[[Marker | None], None]

_CACHES = ("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache")  # vLLM in development mode


@dataclass(kw_only=True, slots=True)
class Server:
    """One start of a server that answers."""

    endpoint: Endpoint
    start_id: str
    path: str  # that says whether it is well
    ended: Callable[[], bool] = lambda: False  # has the command exited?
    log_tail: Callable[[], str] = str
    cold: bool = False
    warnings: list[str] = field(default_factory=list)
    _stillness: Stillness = field(init=False)
    _caches: tuple[str, ...] = _CACHES

    def __post_init__(self) -> None:
        self._stillness = Stillness(self.endpoint)

    def alive(self) -> bool:
        """Does it run, and answer? One that only is slow is alive; one that answers errors for 5 s is not."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.ended():
            if readiness.answers(self.endpoint, self.path):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        return False

    def settle(self, limit_s: float = 60.0) -> str | None:
        """Wait until it is idle; a warning where it is not within `limit_s`."""
        return self._stillness.settle(limit_s)

    def busy(self) -> float:
        """Requests of others that run or wait in it now; 0 where none are seen."""
        return self._stillness.busy()

    def warm_up(self, session: Session) -> None:
        """Unmeasured requests after a launch, until the time to first token settles."""
        if self.cold:
            warm_up(session, lambda: self._stillness.lone_ttft_s(10.0))
            self.cold = False

    def reset_caches(self) -> None:
        """Empty what an earlier trial has left in its caches, where it has pages for that."""
        kept = []
        for path in self._caches:
            with suppress(NoReplyError):
                if ask(self.endpoint, path, {}, timeout_s=10.0).status < 400:
                    kept.append(path)
        self._caches = tuple(kept)


# ---- attach ----------------------------------------------------------------------------------------------------------


@contextmanager
def attach(config: ServerConfig) -> Iterator[Server]:
    """The server that runs at `config.url`; RedlineError where none answers or the model is not served."""
    if config.url is None:
        raise UsageError(f"{config.name or 'server'}: neither a command nor a url is given")
    url = address.base_url(config.url.replace("{port}", str(config.port)))
    bare = Endpoint(url=url, model="", headers=headers_of(config), insecure=config.insecure)
    try:
        served = readiness.listing(bare)
    except NoReplyError as error:
        raise RedlineError(f"{error}; start the server, or correct the URL") from error
    endpoint = readiness.choose_model(bare, served, config.model)
    server = Server(
        endpoint=endpoint,
        start_id=readiness.start_of(endpoint, served.created),
        path=config.ready or "/health",
    )
    server.warnings += _several_models(config, served.models)
    if load := server.busy():
        server.warnings.append(
            f"the server was busy before the first trial ({load:.0f} requests): this load is not ours, "
            "and the capacity is what is left beside it"
        )
    yield server


def _several_models(config: ServerConfig, models: Sequence[str]) -> list[str]:
    if config.model is not None or len(models) < 2:
        return []
    return [f"{len(models)} models are served and {models[0]!r} is measured; choose another one with --model"]


# ---- launch ----------------------------------------------------------------------------------------------------------


def _to_nobody(told: object) -> None: ...


@contextmanager
def launch(
    config: ServerConfig,
    log_dir: Path,
    note: Note = _to_nobody,
    warn: Callable[[str], None] = _to_nobody,
    cores: Cores = ANY,
) -> Iterator[Server]:
    """Start a server, hand it out when it is ready, and stop it: all of it, its workers too.

    It begins on these `cores`; none: on ours.

    `note` gets a marker before the server starts and again when its pid is known, and None when nothing is
    left of it; `warn` gets what went wrong while it stopped.

    Raises:
        UsageError: the command says no port, or `${NAME}` is not set in the environment.
        RedlineError: the port is taken, the command ends or fails, the server is never ready, or it does
            not serve the model; with the last lines of its log.
    """
    filled, url = address.resolve(config)
    bare = Endpoint(url=url, model="", headers=headers_of(config), insecure=config.insecure)
    where = f"env of {config.name or 'server'}"
    env = {name: expand(value, where) for name, value in config.env.items()}
    address.require_free(url)
    memory_mib = gpu_memory_mib()
    launched = _Launched(config=filled, url=url, env=env, log_dir=log_dir, note=note, warn=warn, cores=cores)
    hurried = False
    try:
        launched.start()
        try:
            path = readiness.wait_until_ready(bare, config.ready, config.ready_timeout_s, launched.check)
        except RedlineError as error:
            raise RedlineError(launched.with_tail(str(error))) from error
        served = readiness.listing(bare)
        server = Server(
            endpoint=readiness.choose_model(bare, served, config.model),
            start_id=launched.marker.uuid,
            path=path,
            ended=launched.ended,
            log_tail=launched.tail,
            cold=True,
        )
        server.warnings += _several_models(config, served.models)
        yield server
    except KeyboardInterrupt:
        hurried = True
        raise
    finally:
        launched.stop()
        if not hurried and (warning := wait_until_released(url, memory_mib)):
            warn(warning)


@dataclass(kw_only=True, slots=True)
class _Launched:
    """The processes behind a launched server."""

    config: ServerConfig  # its {port} filled in
    url: str
    env: Mapping[str, str]
    log_dir: Path
    note: Note
    warn: Callable[[str], None]
    cores: Cores
    marker: Marker = field(init=False)
    group: Group | None = None

    def start(self) -> None:
        self.marker = process.new_marker(self.config.stop or ())
        self.note(self.marker)
        with process.shielded():
            argv = self.config.command or self.config.start or ()
            log = _fresh(self.log_dir, "server")
            self.group = process.start(argv, env=self.env, log=log, marker=self.marker, cores=self.cores)
            self.marker = self.group.marker
            self.note(self.marker)

    def ended(self) -> bool:
        """Has the foreground command exited? A start command may."""
        return self.config.command is not None and self._exit_code() is not None

    def check(self) -> None:
        code = self._exit_code()
        if code is not None and (self.ended() or code != 0):
            what = "server" if self.config.command else "start command"
            raise RedlineError(f"{what} exited with {_code(code)} before {self.url} was ready")

    def tail(self) -> str:
        if self.config.log:
            return _said(self.config.log, self.env, self.log_dir)
        return process.tail(self.group.log) if self.group else ""

    def with_tail(self, text: str) -> str:
        name = self.group.log if self.group else self.log_dir
        last = self.tail()
        return f"{text}; last lines of {name}:\n{last}" if last else f"{text}; its log {name} is empty"

    def stop(self) -> None:
        """End it; what does not end is told, and keeps its marker for the next run."""
        with process.shielded():
            if self.group is not None:
                if self.config.stop:
                    self._run_stop(self.config.stop)
                try:
                    process.stop(self.group, self.config.stop_grace_s)
                except RedlineError as error:
                    self.warn(str(error))
                    return
            self.note(None)

    def _run_stop(self, argv: Sequence[str]) -> None:
        try:
            stopping = process.start(argv, env=self.env, log=_fresh(self.log_dir, "stop"))
        except RedlineError as error:
            self.warn(str(error))
            return
        code = process.wait(stopping, self.config.stop_grace_s + _STOP_COMMAND_S)
        process.stop(stopping, 1.0)
        if code != 0:
            how = "did not end" if code is None else f"exited with {_code(code)}"
            self.warn(f"stop command {how}: {shlex.join(argv)}\n{process.tail(stopping.log)}".rstrip())

    def _exit_code(self) -> int | None:
        return process.exit_code(self.group) if self.group else None


def _said(argv: Sequence[str], env: Mapping[str, str], log_dir: Path) -> str:
    """What a command prints that shows a server's log."""
    try:
        printing = process.start(argv, env=env, log=_fresh(log_dir, "log"))
    except RedlineError as error:
        return str(error)
    try:
        process.wait(printing, _LOG_COMMAND_S)
    finally:
        process.stop(printing, 1.0)
    return process.tail(printing.log)


def _fresh(log_dir: Path, name: str) -> Path:
    """A log file of its own for each start, so that a tail never shows an earlier one."""
    taken = len(list(log_dir.glob(f"{name}*.log")))
    return log_dir / (f"{name}.log" if not taken else f"{name}-{taken + 1}.log")


def _code(code: int) -> str:
    return f"code {code}" if code >= 0 else f"signal {-code}"
