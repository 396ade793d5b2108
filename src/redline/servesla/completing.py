"""What a kill kept from the tree: the runs of stored trials, from the files that their benchmarks left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from redline.bench import ResultError
from redline.bench.checked import json_object
from redline.model import JsonValue, Measured, Trial
from redline.servesla.parameters import Pair
from redline.servesla.targets import Target
from redline.servesla.tree import Tree

_RUNS = "runs"  # among the facts of a trial


def runs_fact(files: Mapping[int, Path], directory: Path) -> dict[str, JsonValue]:
    """What a trial must say for that: the result file of each of its runs, by the run's number in the tree."""
    return {_RUNS: {str(number): str(file.relative_to(directory)) for number, file in files.items()}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Own:
    """What this experiment measured of one pair."""

    pair: Pair
    trials: Sequence[Trial]
    directory: Path  # that the result files are in
    detailed: bool  # the user's own command keeps every request

    def complete(self, tree: Tree) -> tuple[int, list[str]]:
        """Write what the tree lacks: at how many points, and what cannot be had any more."""
        points, notes = 0, []
        for trial, files in self._measured():
            load = trial.probe.load
            there = {run.get("run_number") for run in tree.runs_at(self.pair, load)}
            try:
                lacking = {number: json_object(file) for number, file in files.items() if number not in there}
            except ResultError as error:
                notes.append(f"{tree.point_folder(self.pair, load)} lacks trial {trial.id}: {error}")
                continue
            if lacking:
                runs = [
                    tree.run_object(data, self.pair, load, number, detailed=self.detailed)
                    for number, data in lacking.items()
                ]
                tree.finish(self.pair, load, runs)
                points += 1
        return points, notes

    def all_in(self, tree: Tree, target: Target) -> bool:
        """Does the file of this target hold every run?"""
        there = {(run.get(tree.variable), run.get("run_number")) for run in tree.read_target(self.pair, target)}
        return there.issuperset((trial.probe.load, number) for trial, files in self._measured() for number in files)

    def _measured(self) -> Iterator[tuple[Trial, dict[int, Path]]]:
        for trial in self.trials:
            if isinstance(trial.outcome, Measured) and _RUNS in trial.facts:
                files = cast("Mapping[str, str]", trial.facts[_RUNS])
                yield trial, {int(number): self.directory / file for number, file in files.items()}
