"""What a sweep would run, in words; nothing is started or written."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from redline.servesla.asked import Asked, commands_of
from redline.servesla.tree import Tree
from redline.servesla.words import percentiles_for, run_command


def rehearse(asked: Asked) -> Iterator[str]:
    """For each pair its folder, its two commands, its targets, and what is there already."""
    tree = Tree(folder=asked.folder, variable=asked.variable)
    points, ignored = tree.read(asked.pairs)
    yield f"Results: {asked.folder}"
    for note in (*asked.notes, *ignored):
        yield f"Note: {note}"
    for pair in asked.pairs:
        serve, bench = commands_of(asked, pair)
        yield ""
        yield f"Pair: {pair.label}"
        yield f"Server command: VLLM_SERVER_DEV_MODE=1 {shlex.join(serve)}"
        words = run_command(bench, str(asked.own / "logs"), "result.json", percentiles_for(bench, asked.targets))
        yield f"Benchmark command: {shlex.join(words)}"
        if asked.after_bench:
            yield f"After each benchmark: {shlex.join(asked.after_bench)}"
        for target in asked.targets:
            done = " (there is a file of an earlier search)" if tree.target_file(pair, target).is_file() else ""
            yield f"SLA criteria: {target.words}{done}"
        loads = ", ".join(f"{point.load:g}" for point in points[pair.folder])
        yield f"Finished points: {loads or 'none'}"
    if not (asked.pairs and asked.targets):
        yield "Nothing would run: there is no pair of records, or no target."
