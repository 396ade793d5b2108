"""The load worker: a process of its own that sends, receives and stamps; the driver talks to it over a socket.

It ends when the driver's end closes, so it never outlives a driver that was killed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import sys
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from redline.loadgen import wire
from redline.loadgen.conn import Exchange
from redline.loadgen.handover import shape_from, workload_from
from redline.loadgen.loop import new_loop
from redline.loadgen.payload import Payloads, Target, message
from redline.loadgen.pool import Pool, find_address
from redline.loadgen.sources import describe
from redline.loadgen.spec import TrialSpec
from redline.loadgen.trial import Run
from redline.model import RedlineError
from redline.process.cores import keep_to
from redline.process.priority import run_first, wake_promptly

_UNDRAINED_BYTES = 8_000_000  # more than this not yet taken by the driver: wait with the next report
_SPARE_FILES = 64
_EXIT_BUG = 70


class Worker(asyncio.Protocol):
    """Carries out the driver's commands, one at a time; `stop` may come any time."""

    def __init__(self) -> None:
        self._decoder = wire.Decoder()
        self._transport: asyncio.Transport | None = None
        self._target: Target | None = None
        self._inputs: Mapping[str, bytes] = {}
        self._pool: Pool | None = None
        self._trial: Run | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- what asyncio calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # what create_connection makes
        transport.set_write_buffer_limits(high=1 << 30)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for command in self._decoder.feed(data):
            if command.kind == "stop":
                if self._trial is not None:
                    self._trial.stop("stopped")
            elif command.kind == "go":
                if self._trial is not None:
                    self._trial.begin(command.header["t0_ns"])
            elif command.kind == "open":
                self._inputs = command.columns
                self._run(self._open(command.header))
            elif command.kind == "ask":
                self._run(self._ask(command.header, command.columns.get("body")))
            elif command.kind == "trial":
                self._run(self._measure(command.header))

    def connection_lost(self, _error: Exception | None) -> None:
        os._exit(0)  # the driver is gone: nothing here is worth an orderly end

    # ---- commands ----

    async def _open(self, facts: wire.Header) -> None:
        self._target = Target(**facts["target"])
        try:
            address = await find_address(self._target)
        except RedlineError as error:
            self._send("error", {"text": str(error)})
            return
        self._pool = Pool(address)
        self._send("opened", {"address": address.text, "kernel_stamps": self._pool.has_stamps})

    async def _ask(self, facts: wire.Header, body: bytes | None) -> None:
        """One request outside of any trial."""
        assert self._target is not None  # the driver opens first
        assert self._pool is not None
        ended = asyncio.get_running_loop().create_future()
        exchange = Exchange(message(self._target, facts["method"], facts["path"], body), ended.set_result)
        began_ns = time.monotonic_ns()
        try:
            self._pool.send(exchange)
            async with asyncio.timeout(facts["timeout_s"]):
                await ended
        except OSError as error:
            if not ended.done():
                why = (
                    f"no answer within {facts['timeout_s']:g} s" if isinstance(error, TimeoutError) else describe(error)
                )
                self._pool.drop(exchange, why)
        self._send("answer", _told(exchange, began_ns), {"body": exchange.response.body})

    async def _measure(self, facts: wire.Header) -> None:
        assert self._target is not None  # the driver opens first
        assert self._pool is not None
        keep_to(facts["cores"])
        spec = TrialSpec(**facts["spec"])
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if spec.by == "concurrency" and spec.own(spec.load) + _SPARE_FILES > limit:
            needed = f"{spec.own(spec.load)} requests in flight need as many connections"
            cure = f"ulimit -n {spec.own(spec.load) + 2 * _SPARE_FILES}"
            self._send("refused", {"reason": f"{needed}, and the limit of open files is {limit}", "cure": cure})
            return
        workload, shape = workload_from(facts["workload"], self._inputs), shape_from(facts["shape"])
        payloads = Payloads(self._target, facts["model"], workload, shape, spec.seed)
        trial = self._trial = Run(spec, self._pool, payloads, self._report)
        gc.collect()
        gc.freeze()
        gc.disable()
        await trial.prepare()

    # ---- what it says ----

    def _report(self, kind: str, header: wire.Header, columns: dict[str, Any]) -> bool:
        """False when the driver lags behind: the same rows will come again, with more."""
        if kind == "records" and self._transport and self._transport.get_write_buffer_size() > _UNDRAINED_BYTES:
            return False
        self._send(kind, header, columns)
        if kind == "ended":
            self._trial = None
            gc.enable()
            gc.unfreeze()
        return True

    def _send(self, kind: str, header: wire.Header, columns: dict[str, Any] | None = None) -> None:
        if self._transport is not None:
            self._transport.write(wire.encode(kind, header, columns))

    def _run(self, command: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(command)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a command failed", "exception": task.exception()}
            )


def _told(exchange: Exchange, began_ns: int) -> wire.Header:
    """What a single exchange brought, for preflight."""
    response = exchange.response
    status, words = response.outcome(1)
    return {
        "ok": status.name == "OK",
        "words": words,
        "code": response.code,
        "broken": response.broken,
        "headers": response.headers,
        "streamed": response.streamed,
        "events": response.events,
        "tokens_in": response.tokens_in,
        "tokens_out": response.tokens_out,
        "finish": response.finish,
        "first_s": (response.first_ns - began_ns) / 1e9 if response.first_ns else None,
    }


def _crash(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A bug must end the trial, not leave requests that nobody watches."""
    loop.default_exception_handler(context)
    sys.stderr.flush()
    os._exit(_EXIT_BUG)


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = min(hard, 1_048_576) if hard != resource.RLIM_INFINITY else 1_048_576
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _serve(fd: int) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_crash)
    await loop.create_connection(Worker, sock=socket.socket(fileno=fd))
    await loop.create_future()  # until the driver's end closes


def main() -> None:
    """`python -m redline.loadgen.worker FD`: FD is this end of the socket."""
    _raise_file_limit()
    _ = run_first() or wake_promptly()  # else late sends are recorded, and judged
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
