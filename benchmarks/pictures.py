"""The pictures of docs/explanation/verdicts.md, from the simulator, and their captions, which it
writes into the page.

    python benchmarks/pictures.py                         all of them: a few minutes of two cores
    python benchmarks/pictures.py search answers drift    those that change with the search

The same code gives the same pictures: every run has its seed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from cells import truth
from figures import (
    Picture,
    draw_answers,
    draw_dependence,
    draw_drift,
    draw_first_wave,
    draw_in_flight,
    draw_search,
)
from scenes import (
    LOADS,
    answer_of,
    backlog,
    capacity_after,
    cell_of,
    first_wave,
    search,
    served_per_s,
    shares,
)

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "verdicts.md"
IMAGES = PAGE.parent / "images"
RUNS, COVERAGE_TRIALS, ANSWERS, DRIFTS = 40, 200, 100, 20


def in_flight(pool: Executor) -> Picture:
    cell = cell_of("demo", "chat")
    full = served_per_s(cell)
    tasks = [(share * full, seed) for share in LOADS for seed in range(RUNS)]
    runs = list(pool.map(partial(backlog, cell), tasks))
    return draw_in_flight([runs[i * RUNS : (i + 1) * RUNS] for i in range(len(LOADS))], [x * full for x in LOADS])


def dependence(pool: Executor) -> Picture:
    cell = replace(cell_of("demo", "chat"), sla="p90_ttft_ms<=63")  # alone, or the time per token limits the load
    rate = truth(cell).capacity
    trials = list(pool.map(partial(shares, cell, rate), range(COVERAGE_TRIALS)))
    return draw_dependence(trials, f"{cell.bounds.criteria[0].bound:g} ms to the first token")


def one_search(_: Executor) -> Picture:
    cell = cell_of("demo", "chat")
    found = search(cell, 0)
    answer = found.answer
    numbers = (answer.capacity or 0.0, answer.low or 0.0, answer.high or np.inf)
    return draw_search(found.seen(cell), found.beliefs(cell), numbers, truth(cell).capacity)


def answers(pool: Executor) -> Picture:
    panels = {}
    for name, cell in (("demo", cell_of("demo", "chat")), ("8b-slots", cell_of("8b-slots", "chat"))):
        found = list(pool.map(partial(answer_of, cell), range(ANSWERS)))
        panels[name] = (found, truth(cell).capacity)
    return draw_answers(panels)


def wave(_: Executor) -> Picture:
    cell = cell_of("8b-chat", "chat", "concurrency")
    return draw_first_wave(first_wave(cell, 0.0), first_wave(cell, 10.0))


def drift(pool: Executor) -> Picture:
    cell = cell_of("8b-drift", "chat")
    times_s = [0.0, 500.0, 1_000.0, 2_000.0]
    capacities = list(pool.map(partial(capacity_after, cell), times_s))
    found = list(pool.map(partial(answer_of, cell), range(DRIFTS)))
    return draw_drift(found, search(cell, 0).seen(cell), times_s, capacities)


PICTURES: Mapping[str, Callable[[Executor], Picture]] = {
    "in-flight": in_flight,
    "dependence": dependence,
    "search": one_search,
    "answers": answers,
    "first-wave": wave,
    "drift": drift,
}


def captioned(page: str, name: str, caption: str) -> str:
    """The page with this caption under the picture; ValueError where it does not show the picture."""
    changed, count = re.subn(
        rf"(!\[[^\]]*\]\(images/{name}\.svg\)\n)\n\*[^\n]*\*\n", lambda found: f"{found[1]}\n*{caption}*\n", page
    )
    if count != 1:
        raise ValueError(f"{PAGE.name} must show images/{name}.svg once, with a caption in asterisks under it")
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help=", ".join(PICTURES))
    names = parser.parse_args().pictures or list(PICTURES)
    if unknown := [name for name in names if name not in PICTURES]:
        parser.error(f"no such picture: {', '.join(unknown)}; there are {', '.join(PICTURES)}")
    IMAGES.mkdir(exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in names:
            made = PICTURES[name](pool)
            (IMAGES / f"{name}.svg").write_text(made.svg, encoding="utf-8")
            PAGE.write_text(captioned(PAGE.read_text(encoding="utf-8"), name, made.caption), encoding="utf-8")
            print(f"{name}: {made.caption}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
