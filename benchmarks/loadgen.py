"""What Redline's load generator costs, and how right its times are, beside other clients and a raw epoll loop.

python benchmarks/loadgen.py                                       # a quarter of an hour, on an idle machine
python benchmarks/loadgen.py --quick                               # under a minute: Redline, vLLM's client, raw loop
python benchmarks/loadgen.py --page docs/explanation/loadgen.md    # the page of the documentation

A mock server in C is the other end; every client meets the same one, in turn, several times. Only ratios within one
run mean anything. Clients other than Redline are looked for in the folder that REDLINE_REAL names (CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from load_clients import QUIET, Client, Place, clients
from load_figures import PACE, STREAMS, Load, Row, costs, parse_log, schedule
from load_table import page, table
from load_watch import Mock, awake, compiled, mock_server, watched

FIRST_MS = 10.0
HERE = Path(__file__).parent
COSTED = ("200/s", "500 streams")  # what every client is asked to offer
_START_S = 90.0  # what a client may need before its first request, and after its last


def loads(*, quick: bool) -> list[Load]:
    """What each client is asked to offer."""
    request_s, stream_s = (2.0, 3.0) if quick else (5.0, 6.0)
    rates = [Load(name=f"{rate:g}/s", rate=rate, count=int(rate * request_s), tokens=1) for rate in (200.0, 1000.0)]
    streams = [
        Load(name=name, rate=float(count), count=count, tokens=int(PACE * stream_s))
        for name, count in zip(STREAMS, (100, 500, 1000), strict=True)
    ]
    return [rates[0], streams[1]] if quick else [*rates, *streams]


def measure(
    chosen: Sequence[Client], wanted: Sequence[Load], rounds: int, mock: Mock, until_s: float, *, kept_awake: bool
) -> Iterator[Row]:
    """Each client under each load, in turn; no new run after `until_s`."""
    for number in range(1, rounds + 1):
        for load in wanted:
            for client in chosen:
                if client.missing() or (client.loads and load.name not in client.loads):
                    continue
                if time.monotonic() > until_s:
                    print("out of time: the rest is left out", file=sys.stderr)
                    return
                yield _row(client, load, number, mock, kept_awake=kept_awake)


def _row(client: Client, load: Load, number: int, mock: Mock, *, kept_awake: bool) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(port=mock.port, folder=Path(folder))
        mock.get("/reset")
        within_s = load.count / load.rate + load.tokens / PACE + _START_S
        printed, samples, failure = watched(client.command(load, place), mock, place.folder, QUIET, within_s)
        served = parse_log(mock.get("/log"))
        figures = costs(load, samples) | schedule(load, served)
        if not failure:
            try:
                figures |= client.read(place, printed, served)
            except (OSError, KeyError, ValueError, IndexError) as error:
                failure = f"its results cannot be read: {error!r}"
        if failure:
            print(f"{client.name}, {load.name}: {failure}\n{printed[-2000:]}", file=sys.stderr)
    return Row(client=client.name, load=load.name, round=number, awake=kept_awake, figures=figures, failure=failure)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round of three clients")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each client meets each load (default 3)")
    parser.add_argument("--only", metavar="NAMES", help="clients, with commas between them")
    parser.add_argument("--max-minutes", type=float, default=16, help="start nothing new after this (default 16)")
    parser.add_argument("--rows", type=Path, help="write every measurement here, one JSON object a line")
    parser.add_argument("--page", type=Path, help="write the page of the documentation here")
    given = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        sources = ("mock_server.c", "floor.c", "awake.c")
        mock_program, floor, awake_program = (compiled(HERE / name, Path(folder)) for name in sources)
        everyone = clients(floor)
        chosen = [one for one in everyone if _chosen(one, given.only, quick=given.quick)]
        wanted = loads(quick=given.quick)
        rows: list[Row] = []
        with mock_server(mock_program, PACE, FIRST_MS) as mock:
            rounds = given.rounds or (1 if given.quick else 3)
            until_s = began_s + 60 * given.max_minutes
            # What it costs where cores sleep, then everything where none does.
            parts = [(False, [load for load in wanted if load.name in COSTED], 1)] if not given.quick else []
            for kept_awake, some, times in [*parts, (True, wanted, rounds)]:
                with awake(awake_program) if kept_awake else contextlib.nullcontext():
                    for row in measure(chosen, some, times, mock, until_s, kept_awake=kept_awake):
                        rows.append(row)
                        print(_said(row), file=sys.stderr)
        versions = [f"{one.package} {one.version()}" for one in chosen if one.package and not one.missing()]
    missing = {one.name: one.missing() for one in everyone if one.missing()}
    machine = f"{_cores()} cores, Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    text = table(rows, missing)
    print(text)
    if given.rows:
        given.rows.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    if given.page:
        given.page.write_text(page(text, machine=machine, versions=versions, minutes=(time.monotonic() - began_s) / 60))


def _chosen(client: Client, only: str | None, *, quick: bool) -> bool:
    if only:
        return client.name.partition(",")[0] in only.split(",")
    return not quick or client.name in ("raw epoll loop", "Redline", "Redline, compared", "vllm bench serve")


def _said(row: Row) -> str:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in row.figures.items())
    return f"{row.round if row.awake else 'asleep'} {row.client}, {row.load}: {row.failure or figures}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
