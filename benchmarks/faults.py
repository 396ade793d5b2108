"""How many spoiled trials the load generator finds itself, and how many good ones it refuses.

python benchmarks/faults.py            # 100 clean runs, and 12 with each fault: 20 minutes
python benchmarks/faults.py --quick    # a few of each: 5 minutes

A load worker that measures the mock server is stopped now and then, or shares its core with busy processes. The mock
stamps what it reads and writes, so what the client should have seen is known. A run is spoiled for an SLA when its
percentile is wrong by more than 5 ms (of the time per token: 5 %), or when in closed loop the server held more than
5 % fewer requests than the load says.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from load_figures import PACE, Served, parse_log
from load_watch import Mock, compiled, mock_server
from planted import crowded, stopped
from tables import lines_of

from redline.loadgen import LoadSession, open_session
from redline.model import Endpoint, Lengths, Measured, Outcome, Probe, Sla, Trial, Workload
from redline.sla import parse_sla
from redline.verdict import usable

FIRST_MS, RUN_S = 10.0, 4.0
ERROR_MS, ERROR_SHARE, LOST_SHARE = 5.0, 0.05, 0.05
SLAS = tuple(map(parse_sla, ("p90_ttft_ms<=50", "p99_ttft_ms<=50", "p90_tpot_ms<=25")))
HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is done to the load worker while it measures."""

    name: str
    plant: Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What is measured."""

    name: str
    probe: Probe
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One run as one SLA sees it."""

    fault: str
    load: str
    sla: str
    error: float  # of the SLA's percentile: ms
    lost_share: float  # of the load
    spoiled: bool
    why: str  # it was refused; empty: used


def stop(for_s: float, each_s: float) -> Callable[[int], AbstractContextManager[None]]:
    """Stop the worker for so long, about so often."""
    return lambda pid: stopped(lambda: [pid], for_s, each_s, jitter=0.5)


def crowd(hogs: int) -> Callable[[int], AbstractContextManager[None]]:
    """Let so many busy processes share the worker's core."""
    return lambda pid: crowded(pid, hogs)


@contextlib.contextmanager
def clean(_: int) -> Iterator[None]:
    """Nothing."""
    yield


CLEAN = Fault(name="none", plant=clean)
FAULTS = (
    Fault(name="stopped 10 ms each 100 ms", plant=stop(0.01, 0.1)),
    Fault(name="stopped 50 ms each 100 ms", plant=stop(0.05, 0.1)),
    Fault(name="stopped 50 ms each 500 ms", plant=stop(0.05, 0.5)),
    Fault(name="stopped 50 ms each 2 s", plant=stop(0.05, 2.0)),
    Fault(name="stopped 300 ms each 2 s", plant=stop(0.3, 2.0)),
    Fault(name="core shared with 1 busy process", plant=crowd(1)),
    Fault(name="core shared with 4 busy processes", plant=crowd(4)),
)
LOADS = (
    Load(name="100/s, 20 tokens", probe=Probe(by="rate", load=100.0, kind="main", max_s=RUN_S), tokens=20),
    Load(name="500/s, 1 token", probe=Probe(by="rate", load=500.0, kind="main", max_s=RUN_S), tokens=1),
    Load(name="50 users, 20 tokens", probe=Probe(by="concurrency", load=50.0, kind="main", max_s=RUN_S), tokens=20),
    Load(name="20 users, 1 token", probe=Probe(by="concurrency", load=20.0, kind="main", max_s=RUN_S), tokens=1),
)


def measure(fault: Fault, load: Load, mock: Mock, seed: int) -> list[Found]:
    """One run, as each SLA sees it."""
    workload = Workload(name="mock", prompt=Lengths(mean=32), output=Lengths(mean=load.tokens))
    with open_session(Endpoint(url=f"http://127.0.0.1:{mock.port}", model="mock"), workload) as session:
        urllib.request.urlopen(f"http://127.0.0.1:{mock.port}/reset").close()  # what preflight asked does not count
        outcome = _run(fault, load, session, seed)
    served = parse_log(mock.get("/log"))
    slas = [sla for sla in SLAS if load.tokens > 1 or "tpot" not in sla.name]
    return [_found(fault, load, sla, outcome, served) for sla in slas]


def _run(fault: Fault, load: Load, session: LoadSession, seed: int) -> Outcome:
    pid = session.worker_pid
    assert pid is not None  # preflight started it
    with fault.plant(pid):
        return session.measure(load.probe, lambda _: None, seed)


def _found(fault: Fault, load: Load, sla: Sla, outcome: Outcome, served: Sequence[Served]) -> Found:
    trial = Trial(id="1", case="", probe=load.probe, seed=0, started="", outcome=outcome)
    good, why = usable(trial, sla)
    error_ms, lost_share = (_errors(sla, load, outcome, served)) if isinstance(outcome, Measured) else (0.0, 0.0)
    most_ms = ERROR_SHARE * 1e3 / PACE if "tpot" in sla.name else ERROR_MS
    return Found(
        fault=fault.name,
        load=load.name,
        sla=sla.name,
        error=error_ms,
        lost_share=lost_share,
        spoiled=bool(abs(error_ms) > most_ms or lost_share > LOST_SHARE),
        why="" if good else why,
    )


def _errors(sla: Sla, load: Load, outcome: Measured, served: Sequence[Served]) -> tuple[float, float]:
    """How wrong the SLA's percentile is, in ms, and which share of the users the server did not see."""
    records = outcome.records
    assert records is not None  # a live session has them
    begun = [one for one in served if len(one.sent_ns)]
    if "tpot" in sla.name:
        seen_ms = records.tpot_ms()
        ended = [one.sent_ns for one in begun if len(one.sent_ns) == load.tokens]
        true_ms = np.array([(sent[-1] - sent[0]) / 1e6 / (load.tokens - 1) for sent in ended])
    else:
        seen_ms = records.ttft_ms()
        true_ms = np.array([(one.sent_ns[0] - one.read_ns) / 1e6 for one in begun])
    q = float(sla.name.split("_")[0][1:]) / 100
    error_ms = float(np.nanquantile(seen_ms, q) - np.quantile(true_ms, q))
    if load.probe.by == "rate":
        return error_ms, 0.0
    # Users have started after a second; what is in flight at the end counts from its last word.
    until_s = max(one.sent_ns[-1] for one in begun) / 1e9
    since_s = until_s - (outcome.duration_s - load.probe.spread_s - 0.5)
    held = [max(0.0, one.sent_ns[-1] / 1e9 - max(since_s, one.read_ns / 1e9)) for one in begun]
    return error_ms, float(1 - sum(held) / (until_s - since_s) / load.probe.load)


def table(found: Sequence[Found]) -> str:
    """Counts by fault and load."""
    head = ("fault", "load", "judgements", "worst error, ms", "spoiled", "of these refused", "refused, not spoiled")
    rows = []
    for fault, load in dict.fromkeys((one.fault, one.load) for one in found):
        mine = [one for one in found if (one.fault, one.load) == (fault, load)]
        spoiled = [one for one in mine if one.spoiled]
        caught = sum(bool(one.why) for one in spoiled)
        cried = sum(bool(one.why) for one in mine if not one.spoiled)
        worst = max(mine, key=lambda one: abs(one.error)).error
        rows.append([fault, load, str(len(mine)), f"{worst:.1f}", str(len(spoiled)), str(caught), str(cried)])
    return "\n".join(lines_of(head, rows))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 clean runs of each load, and 1 with each fault")
    parser.add_argument("--runs", type=int, help="with each fault under each load (default 3)")
    parser.add_argument("--clean", type=int, help="clean runs under each load (default 25)")
    parser.add_argument("--only", metavar="TEXT", help="faults with this in their names")
    parser.add_argument("--max-minutes", type=float, default=20.0, help="start nothing new after this (default 20)")
    given = parser.parse_args()
    runs, clean_runs = given.runs or (1 if given.quick else 3), given.clean or (3 if given.quick else 25)
    until_s = time.monotonic() + 60 * given.max_minutes
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(HERE / "mock_server.c", Path(folder))
        with mock_server(program, PACE, FIRST_MS) as mock:
            with contextlib.suppress(OSError):  # it must not be what is late
                os.sched_setscheduler(mock.pid, os.SCHED_FIFO, os.sched_param(2))
            for number in range(max(runs, clean_runs)):
                for fault in (CLEAN, *FAULTS):
                    wanted = (not given.only or given.only in fault.name) and number < (
                        clean_runs if fault is CLEAN else runs
                    )
                    for load in LOADS if wanted else ():
                        if time.monotonic() < until_s:
                            for one in measure(fault, load, mock, number):
                                print(one, file=sys.stderr)
                                found.append(one)
    print(table(found))


if __name__ == "__main__":
    main()
