"""Redline's load generator as one client of the benchmark: offers one load, and prints what it knows of itself.

python load_redline.py URL RATE COUNT TOKENS            as it ships: a driver, and a worker process
python load_redline.py URL RATE COUNT TOKENS --stamps   its worker's code in this process, each arrival compared

With `--stamps` the process keeps normal priority, and all that came; after the load each chunk is held against the
server's log.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
import urllib.request
from typing import Any

import numpy as np
from load_figures import PACE, parse_log

from redline.loadgen import open_session
from redline.loadgen.conn import Exchange
from redline.loadgen.loop import new_loop
from redline.loadgen.parse import Response
from redline.loadgen.payload import Payloads, Shape, target_of
from redline.loadgen.pool import Pool, find_address
from redline.loadgen.spec import TrialSpec
from redline.loadgen.trial import Run
from redline.model import Endpoint, Lengths, Measured, Probe, Variable, Workload
from redline.process.priority import wake_promptly

_NUMBER, _CHUNK = re.compile(rb'"id":"r(\d+)"'), b'"content":'


def main() -> None:
    """One load, from the arguments."""
    url, rate, count, tokens = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    streams = tokens > 1
    by: Variable = "concurrency" if streams else "rate"
    workload = Workload(name="mock", prompt=Lengths(mean=32), output=Lengths(mean=tokens), arrivals="constant")
    load = float(count) if streams else rate
    spread_s = count / rate
    max_s = tokens / PACE + 0.5 if streams else spread_s
    if "--stamps" in sys.argv:
        spec = TrialSpec(by=by, load=load, seed=1, spread_s=spread_s, max_s=max_s, max_requests=None)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            found = runner.run(_compare(url, workload, spec))
    else:
        found = _measure(url, workload, Probe(by=by, load=load, kind="main", spread_s=spread_s, max_s=max_s))
    print(json.dumps(found))


def _measure(url: str, workload: Workload, probe: Probe) -> dict[str, Any]:
    with open_session(Endpoint(url=url, model="mock"), workload) as session:
        urllib.request.urlopen(f"{url}/reset").close()  # what preflight asked does not count
        outcome = session.measure(probe, lambda _: None, 1)
    if not isinstance(outcome, Measured):
        raise SystemExit(f"no measurement: {outcome.reason}")
    client = outcome.client
    return {
        "sent": client.sent,
        "late_us": [client.late_p50_s * 1e6, client.late_p99_s * 1e6],
        "cpu_share": client.cpu_share,
    }


# ---- the same code with each arrival compared ----


class _Compared(Response):
    """Keeps what came, with the kernel's time and that of the read; to look into it now would delay the next read."""

    __slots__ = ("reads",)

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[bytes, int, int]] = []  # content, arrived, read

    def feed(self, data: bytes, now_ns: int) -> None:
        self.reads.append((data, now_ns, time.monotonic_ns()))
        super().feed(data, now_ns)

    def number(self) -> int:
        """Of the request, by the server's count; -1 where nothing came."""
        found = next((found for data, _, _ in self.reads if (found := _NUMBER.search(data))), None)
        return int(found[1]) if found else -1

    def arrivals(self) -> list[tuple[int, int]]:
        """When each chunk arrived, and when it was read."""
        return [(arrived_ns, read_ns) for data, arrived_ns, read_ns in self.reads for _ in range(data.count(_CHUNK))]


class _ComparingPool(Pool):
    """Keeps every exchange."""

    def begin(self) -> None:
        """Only what is sent from now on counts."""
        self.kept: list[Exchange] = []

    def send(self, exchange: Exchange) -> None:
        exchange.response = _Compared()
        self.kept.append(exchange)
        super().send(exchange)


async def _compare(url: str, workload: Workload, spec: TrialSpec) -> dict[str, Any]:
    wake_promptly()
    target = target_of(Endpoint(url=url, model="mock"))
    pool = _ComparingPool(await find_address(target))
    pool.begin()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def report(kind: str, _header: dict[str, Any], _columns: dict[str, Any]) -> bool:
        if kind == "ended":
            ended.set_result(None)
        return True

    run = Run(spec, pool, Payloads(target, "mock", workload, Shape(), spec.seed), report)
    gc.collect()
    gc.freeze()
    gc.disable()
    await run.prepare()
    run.begin(time.monotonic_ns() + 1_000_000)
    offset_ns = _offset_ns()
    await ended
    served = {one.number: one for one in parse_log(urllib.request.urlopen(f"{url}/log").read())}
    chunks, errors = [], []
    for exchange in pool.kept:
        response = exchange.response
        assert isinstance(response, _Compared)  # set when it was sent
        arrivals = response.arrivals()
        if not arrivals or (seen := served.get(response.number())) is None:
            continue
        written_ns = seen.sent_ns.tolist()
        chunks += [(written, *times) for written, times in zip(written_ns, arrivals, strict=False)]  # some are cut off
        errors.append((arrivals[0][0] - exchange.sent_ns) - (written_ns[0] - seen.read_ns))
    written, arrived, read = np.array(chunks, np.int64).reshape(-1, 3).T
    return {
        "sent": len(pool.kept),
        "chunks": len(chunks),
        "chunk_lag_us": _spread_us(arrived + offset_ns - written),
        "read_lag_us": _spread_us(read + offset_ns - written),
        "ttft_error_us": _spread_us(np.array(errors)),
    }


def _offset_ns() -> int:
    """The wall clock minus the monotonic one; the narrowest of some tries counts."""
    tries = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(200)]
    before, wall, after = min(tries, key=lambda tried: tried[2] - tried[0])
    return wall - (before + after) // 2


def _spread_us(times_ns: Any) -> list[float]:
    return [float(q) / 1e3 for q in np.quantile(times_ns, [0.5, 0.99])]


if __name__ == "__main__":
    main()
