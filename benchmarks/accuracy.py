"""How near is the answer to the truth, and what does it cost? Redline and other searches on servers of known capacity.

    python benchmarks/accuracy.py                    every cell: 10 searches by Redline, one by each of the others
    python benchmarks/accuracy.py --quick            a few cells; fails when coverage or cost is worse than its bound
    python benchmarks/accuracy.py --thorough         40 searches by Redline
    python benchmarks/accuracy.py --session my_module:factory --sla "p99_ttft_ms<=200" --truth 12.3
    python benchmarks/accuracy.py --page docs/explanation/accuracy.md    from the rows of the last run

Everything is in virtual time: only the processor is needed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import groupby
from pathlib import Path

import numpy as np
from cells import ASIDE, WORKLOADS, Cell, cells, truth
from report import page, table
from rivals import Run, Search, bisection, goodput, isotonic, seed_search

from redline.model import Answer, Goal, Measured, Probe, Session, Sla, Trial
from redline.search import answer_now, next_job, next_step
from redline.simulate.session import VirtualSession
from redline.sla import allowed_share, judged, metric_of
from redline.stats import quantile
from redline.verdict import watcher

ROWS = Path("accuracy.jsonl")
RIVALS: dict[str, Callable[[str], Search]] = {
    "seed": seed_search,
    "bisection": bisection,
    "isotonic": isotonic,
    "goodput": goodput,
}
METHODS = [*RIVALS, "shared", "redline"]
QUICK = {("demo", "rate"), ("vllm-cpu", "concurrency")}
QUICK_COVERAGE, QUICK_COST = 0.80, 0.16  # of the 90% intervals, over 60 searches; of the seed's time


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One search."""

    profile: str
    by: str
    sla_set: str
    method: str
    seed: int
    truth: float
    capacity: float | None
    evidence: str
    low: float | None = None
    high: float | None = None
    low80: float | None = None
    high80: float | None = None
    benchmark_s: float
    trials: int
    requests: int
    warned: bool = False
    cpu_s: float = 0.0


def search(session: Session, sla: Sla, goal: Goal, seed: int) -> tuple[Answer, Answer]:
    """One search by Redline: the answer, and with the interval at 80%."""
    evidence: list[Trial] = []
    while isinstance(step := next_step(evidence, sla, goal), Probe):
        evidence.append(_trial(session, step, sla, evidence, seed))
    return step, answer_now(evidence, sla, replace(goal, confidence=0.8), "")


def search_all(session: Session, slas: Sequence[Sla], goal: Goal, seed: int) -> list[Answer]:
    """Several SLAs that share their trials."""
    evidence: list[Trial] = []
    while not isinstance(job := next_job(evidence, slas, goal), list):
        sla, probe = job
        evidence.append(_trial(session, probe, sla, evidence, seed))
    return job


def _trial(session: Session, probe: Probe, sla: Sla, evidence: Sequence[Trial], seed: int) -> Trial:
    number = len(evidence)
    outcome = session.measure(probe, watcher(probe, sla, evidence), 10_000 * seed + number)
    return Trial(id=str(number), case="", probe=probe, seed=0, started="", outcome=outcome)


# ---- tasks -----------------------------------------------------------------------------------------------------------


def ours(cell: Cell, seed: int) -> list[Row]:
    began = time.process_time()
    found, at80 = search(VirtualSession(cell.server, cell.load), cell.bounds, cell.goal(), seed)
    row = _row(cell, "redline", seed, found, time.process_time() - began)
    return [replace(row, low80=at80.low, high80=at80.high)]


def shared(group: Sequence[Cell], seed: int) -> list[Row]:
    """The five SLAs of a server at once; each row has the time of all."""
    began = time.process_time()
    first = group[0]
    session = VirtualSession(first.server, first.load)
    answers = search_all(session, [cell.bounds for cell in group], first.goal(), seed)
    cpu_s = time.process_time() - began
    return [_row(cell, "redline, shared", seed, found, cpu_s) for cell, found in zip(group, answers, strict=True)]


def _row(cell: Cell, method: str, seed: int, found: Answer, cpu_s: float) -> Row:
    return Row(
        profile=cell.profile,
        by=cell.by,
        sla_set=cell.sla_set,
        method=method,
        seed=seed,
        truth=truth(cell).capacity,
        capacity=found.capacity,
        evidence=found.evidence,
        low=found.low,
        high=found.high,
        benchmark_s=found.benchmark_s,
        trials=found.trials,
        requests=found.requests,
        warned=bool(found.warnings),
        cpu_s=cpu_s,
    )


def theirs(cell: Cell, method: str, seed: int) -> list[Row]:
    """One search by another method, on a client that lets all requests of a run finish."""
    began = time.process_time()
    session = VirtualSession(cell.server, cell.load, live=False)
    way = RIVALS[method](cell.by)
    spent_s, runs, requests = 0.0, 0, 0
    found: float | None = None
    try:
        load, prompts = next(way)
        while True:
            outcome = session.measure(
                Probe(by=cell.by, load=load, kind="list", max_requests=prompts), lambda _: None, 10_000 * seed + runs
            )
            assert isinstance(outcome, Measured)  # these servers do not crash
            spent_s, runs, requests = spent_s + outcome.duration_s, runs + 1, requests + prompts
            load, prompts = way.send(_run(outcome, cell.bounds))
    except StopIteration as end:
        found = end.value
    return [
        Row(
            profile=cell.profile,
            by=cell.by,
            sla_set=cell.sla_set,
            method=method,
            seed=seed,
            truth=truth(cell).capacity,
            capacity=found,
            evidence="",
            benchmark_s=spent_s,
            trials=runs,
            requests=requests,
            cpu_s=time.process_time() - began,
        )
    ]


_HOPELESS = 1_000.0  # times the bound, where nothing was answered: the seed's search takes finite numbers only


def _run(outcome: Measured, sla: Sla) -> Run:
    """What a client that reports percentiles over all its requests would say."""
    records = outcome.records
    assert records is not None  # of a virtual session
    stats, bounds = [], []
    good = np.ones(len(records), bool)
    for criterion in sla.criteria:
        if criterion.default:
            continue
        found, allowed = judged(criterion, records), allowed_share(criterion)
        if allowed is None:
            value = found.value[np.isfinite(found.value)]
            stats.append(float(value.mean()) if len(value) else _HOPELESS * criterion.bound)
            bounds.append(criterion.bound)
            good &= ~(found.value > criterion.bound)
            continue
        good &= ~(found.over > 0)
        if metric_of(criterion.metric).kind == "quantile":
            value = found.value[(found.weight > 0) & np.isfinite(found.value)]  # of those that were answered
            stats.append(quantile(value, 1 - allowed) if len(value) else _HOPELESS * criterion.bound)
            bounds.append(criterion.bound)
        else:
            stats.append(float(found.over.sum() / max(found.weight.sum(), 1e-9)))
            bounds.append(allowed)
    return Run(stats=tuple(stats), bounds=tuple(bounds), good_share=float(good.mean()))


def _work(task: tuple[str, object, int]) -> list[Row]:
    kind, what, seed = task
    if kind == "ours":
        return ours(what, seed)  # type: ignore[arg-type]  # by its kind
    if kind == "shared":
        return shared(what, seed)  # type: ignore[arg-type]  # by its kind
    return theirs(what, kind, seed)  # type: ignore[arg-type]  # by its kind


def run(tasks: Iterable[tuple[str, object, int]], out: Path) -> list[Row]:
    """All tasks on all cores; rows are written as they come."""
    rows: list[Row] = []
    began = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool, out.open("w", encoding="utf-8") as file:
        for found in pool.map(_work, tasks, chunksize=1):
            rows += found
            file.writelines(json.dumps(asdict(row)) + "\n" for row in found)
            if sys.stderr.isatty():
                print(f"\r{len(rows)} searches, {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return rows


def tasks_of(args: argparse.Namespace) -> list[tuple[str, object, int]]:
    """What to do, the longest first."""
    first = 1_000  # seeds that no constant was tuned on
    every = list(cells(tuple(args.profiles)))
    if args.quick:
        every = [cell for cell in every if (cell.profile, cell.by) in QUICK]
    counted = [cell for cell in every if cell.profile not in ASIDE]
    seeds = args.searches or (40 if args.thorough else 6 if args.quick else 10)
    methods = args.methods or (["seed", "redline"] if args.quick else METHODS)
    tasks: list[tuple[str, object, int]] = []
    tasks += [(method, cell, first) for method in RIVALS if method in methods for cell in counted]
    if "shared" in methods:
        groups = [list(group) for _, group in groupby(counted, key=lambda cell: (cell.profile, cell.by))]
        tasks += [("shared", group, first + n) for group in groups for n in range(max(2, seeds // 4))]
    return tasks + [("ours", cell, first + n) for cell in every for n in range(seeds) if "redline" in methods]


def _quick_verdict(rows: Sequence[Row]) -> int:
    mine = [row for row in rows if row.method == "redline"]
    held = np.mean([(row.low or 0) <= row.truth <= (row.high or math.inf) for row in mine])
    seeds = {(row.profile, row.by, row.sla_set): row.benchmark_s for row in rows if row.method == "seed"}
    cost = math.exp(np.mean([math.log(row.benchmark_s / seeds[row.profile, row.by, row.sla_set]) for row in mine]))
    print(f"the 90% interval held the truth in {held:.0%} of {len(mine)} (at least {QUICK_COVERAGE:.0%})")
    print(f"benchmark time against the seed's search: {cost:.3f} (at most {QUICK_COST})")
    return 0 if held >= QUICK_COVERAGE and cost <= QUICK_COST else 1


def _own(args: argparse.Namespace) -> int:
    """The suite on a session of someone else's: its own SLAs, and the truth if it is known."""
    module, _, name = args.session.partition(":")
    factory = getattr(import_module(module), name)
    from redline.sla import parse_sla

    known = args.truth if args.truth is not None else math.nan
    errors, held, spent = [], [], []
    for text in args.sla:
        for seed in range(args.searches or 10):
            answer, _ = search(factory(), parse_sla(text), Goal(by=args.by), 1_000 + seed)
            low, high = answer.low or 0.0, answer.high or math.inf
            print(f"{text}: {answer.evidence} {answer.capacity} [{low:.4g}, {high:.4g}] {answer.benchmark_s:.0f} s")
            errors.append(abs((answer.capacity or math.nan) / known - 1))
            held.append(low <= known <= high)
            spent.append(answer.benchmark_s)
    if args.truth is not None:
        print(f"held the truth: {sum(held)} of {len(held)}; median error {np.nanmedian(errors):.1%}")
    print(f"median benchmark time {np.median(spent):.0f} s")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--thorough", action="store_true")
    parser.add_argument("--methods", nargs="*", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--searches", type=int, help="by Redline for each cell")
    parser.add_argument("--profiles", nargs="*", default=[], choices=[*WORKLOADS], metavar="PROFILE")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where each search is written")
    parser.add_argument("--page", type=Path, help="write this page from --rows, and measure nothing")
    parser.add_argument("--session", help="package.module:factory, which returns a Session")
    parser.add_argument("--sla", action="append", default=[])
    parser.add_argument("--by", default="rate", choices=["rate", "concurrency"])
    parser.add_argument("--truth", type=float, help="the true capacity of that session")
    args = parser.parse_args()
    if args.session:
        return _own(args)
    if args.page:
        rows = [Row(**json.loads(line)) for line in args.rows.read_text(encoding="utf-8").splitlines()]
        args.page.write_text(page(rows), encoding="utf-8")
        return 0
    rows = run(tasks_of(args), args.rows)
    print(table(rows))
    return _quick_verdict(rows) if args.quick else 0


if __name__ == "__main__":
    sys.exit(main())
