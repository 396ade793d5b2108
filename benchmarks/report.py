"""The rows of the accuracy suite as tables."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from cells import ASIDE
from tables import lines_of

if TYPE_CHECKING:
    from accuracy import Row

HEAD = ("search", "variable", "time against seed's: from 1/s on / all", "trials", "requests",
        "median / 95% error", "no answer", "> 2% / > 5% high", "90% held: all / worst server", "80% held")  # fmt: skip

SEED_LOWEST = 1  # its search tries whole numbers of requests/s

PAGE = """# How near the truth, and at what cost

<!-- Made by `python benchmarks/accuracy.py`, and then again with `--page docs/explanation/accuracy.md`. -->

Redline and four other searches, on simulated servers whose true capacity is known from very long runs.
{cells} questions (server, SLA, variable), {searches} searches by Redline at its default precision of 5%,
with seeds that no constant was tuned on; the servers are those that the constants were chosen with.
Times are of the benchmark, as a real server would take; ratios are geometric means over the questions.

`seed` is the search of vLLM's `serve_sla` (8192, 1, roots of an interpolant; 3 runs of 1,000 prompts).
It tries whole numbers only, so where the capacity is below one request/s it says 1, soon and wrongly:
the first figure of its time's column leaves those questions out, the second has them all.
`bisection` doubles and bisects, with 1,000 prompts at each load.
`isotonic` and `goodput` are the searches of AIPerf and of GuideLLM, re-made from their documentation, with as many.
Errors are of the load to rely on, which Redline chooses low: its model gives it 80%.

{table}

## Servers that change

On a server that gets 10% slower in ten minutes, against its capacity at the start, and on one that stops for a second
every 50 s, against its capacity in the long run with its stops: {wrong} of {aside} intervals did not hold it;
{silent} of these carried no warning.
"""


def table(rows: Sequence[Row]) -> str:
    """Each method and variable in a line of Markdown."""
    counted = [row for row in rows if row.profile not in ASIDE]
    seeds = {_cell(row): row.benchmark_s for row in counted if row.method == "seed"}
    body = []
    for method in dict.fromkeys(row.method for row in counted):
        for by in ("rate", "concurrency"):
            some = [row for row in counted if row.method == method and row.by == by]
            if some:
                body.append(_summary(method, by, some, seeds))
    lines = [
        *lines_of(HEAD, body),
        "",
        *_by("profile", lambda row: row.profile, rows),
        "",
        *_by("SLA", lambda row: row.sla_set, rows),
    ]
    return "\n".join(lines)


def _summary(method: str, by: str, rows: Sequence[Row], seeds: dict[tuple[str, str, str], float]) -> list[str]:
    errors = np.array([error(row) for row in rows])
    known = errors[np.isfinite(errors)]
    costs = [(row.truth, row.benchmark_s / seeds[_cell(row)]) for row in rows if seeds.get(_cell(row))]
    answerable = _geometric(cost for capacity, cost in costs if capacity >= SEED_LOWEST)
    cells = [
        method,
        by,
        f"{answerable:.3f} / {_geometric(cost for _, cost in costs):.3f}",
        f"{_median(r.trials for r in rows):.0f}",
        f"{_median(r.requests for r in rows):,.0f}",
    ]
    cells.append(f"{np.median(abs(known)):.1%} / {np.quantile(abs(known), 0.95):.1%}" if len(known) else "-")
    cells.append(f"{np.mean(~np.isfinite(errors)):.0%}")
    cells.append(f"{np.mean(known > 0.02):.0%} / {np.mean(known > 0.05):.0%}" if len(known) else "-")
    if not method.startswith("redline"):
        return [*cells, "-", "-"]
    worst = min((_held(some), name) for name, some in _grouped(rows, lambda row: row.profile).items())
    at80 = [row for row in rows if row.low80 is not None or row.high80 is not None]
    return [*cells, f"{_held(rows):.0%} / {worst[0]:.0%} ({worst[1]})", f"{_held80(at80):.0%}" if at80 else "-"]


def _by(what: str, key: Callable[[Row], str], rows: Sequence[Row]) -> list[str]:
    """Redline's own searches, cell by cell."""
    mine = [row for row in rows if row.method == "redline"]
    seeds = {_cell(row): row.benchmark_s for row in rows if row.method == "seed"}
    head = (what, "variable", "searches", "evidence", "time", "against seed's", "median error", "spread",
            "90% held", "80% held")  # fmt: skip
    body = []
    for (name, by), some in _grouped(mine, lambda row: (key(row), row.by)).items():
        errors = np.array([error(row) for row in some])
        errors = errors[np.isfinite(errors)]
        kinds = {kind: sum(row.evidence == kind for row in some) for kind in dict.fromkeys(r.evidence for r in some)}
        cost = _geometric(row.benchmark_s / seeds[_cell(row)] for row in some if seeds.get(_cell(row)))
        body.append(
            [
                str(name),
                str(by),
                str(len(some)),
                ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
                f"{_median(row.benchmark_s for row in some):,.0f} s",
                f"{cost:.3f}",
                f"{np.median(errors):+.1%}" if len(errors) else "-",
                f"{errors.std():.1%}" if len(errors) else "-",
                f"{_held(some):.0%}",
                f"{_held80(some):.0%}",
            ]
        )
    return lines_of(head, body)


def page(rows: Sequence[Row]) -> str:
    """The page of the documentation."""
    cells = len({_cell(row) for row in rows if row.profile not in ASIDE})
    searches = len([row for row in rows if row.method == "redline" and row.profile not in ASIDE])
    aside = [row for row in rows if row.profile in ASIDE and row.method == "redline"]
    wrong = [row for row in aside if not held(row)]
    silent = [row for row in wrong if not row.warned]
    return PAGE.format(
        cells=cells, searches=searches, table=table(rows), wrong=len(wrong), aside=len(aside), silent=len(silent)
    )


def error(row: Row) -> float:
    """Of the capacity, relative to the truth; NaN without an answer."""
    if row.capacity is None or not 0 < row.truth < math.inf:
        return math.nan
    return row.capacity / row.truth - 1


def held(row: Row) -> bool:
    """Does the interval hold the truth?"""
    return (row.low or 0.0) <= row.truth <= (row.high if row.high is not None else math.inf)


def _held(rows: Sequence[Row]) -> float:
    return float(np.mean([held(row) for row in rows])) if rows else math.nan


def _held80(rows: Sequence[Row]) -> float:
    inside = [(row.low80 or 0.0) <= row.truth <= (row.high80 if row.high80 is not None else math.inf) for row in rows]
    return float(np.mean(inside)) if inside else math.nan


def _cell(row: Row) -> tuple[str, str, str]:
    return row.profile, row.by, row.sla_set


def _grouped(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def _geometric(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values if value > 0]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))
