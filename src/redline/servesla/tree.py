"""The tree of vLLM's sweep: written as it was written there, read from whoever wrote it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from redline.model import RedlineError
from redline.servesla.parameters import Pair
from redline.servesla.targets import Target
from redline.store.durable import cannot_write, replace_file

Run: TypeAlias = Mapping[str, Any]  # the object of one run

SUMMARY = "summary.json"
TABLE = "summary.csv"
# What `vllm bench serve --save-detailed` adds: every request, which is kept in our own directory.
DETAILS = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors")
_RUN = re.compile(r"run=(\d+)\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One load of one pair with all its runs."""

    load: float
    folder: Path
    runs: tuple[Run, ...]


@dataclass(slots=True)
class Tree:
    """The folder of one experiment, and every run object in it."""

    folder: Path
    variable: str
    runs: dict[Path, list[Run]] = field(default_factory=dict)  # by the folder of their point, in order of measurement
    named: dict[str, Path] = field(default_factory=dict)  # folders by name that were read too, by the pair's own folder

    def pair_folder(self, pair: Pair) -> Path:
        return self.folder / pair.folder

    def point_folder(self, pair: Pair, load: float) -> Path:
        return self.pair_folder(pair) / f"{self.variable}={load:.10g}"

    def runs_at(self, pair: Pair, load: float) -> Sequence[Run]:
        """The finished runs at this load."""
        return self.runs.get(self.point_folder(pair, load), ())

    def run_object(self, data: Run, pair: Pair, load: float, number: int, *, detailed: bool = False) -> dict[str, Any]:
        """A result with what the sweep adds to it, without its requests unless the user's own command keeps them."""
        kept = {key: value for key, value in data.items() if detailed or key not in DETAILS}
        return {**kept, "run_number": number, **pair.overrides(self.variable, load)}

    def finish(self, pair: Pair, load: float, runs: Sequence[Run]) -> None:
        """A point has these further runs: their files, its summary, and the table of all."""
        folder = self.point_folder(pair, load)
        _make(folder)
        for run in runs:
            _write(folder / f"run={run['run_number']}.json", run)
        self.runs.setdefault(folder, []).extend(runs)
        _write(folder / SUMMARY, self.runs[folder])
        self.write_table()

    def runs_of(self, pair: Pair) -> list[Run]:
        """Every run of this pair."""
        inside = {self.pair_folder(pair), self.named.get(pair.folder)}
        return [run for folder, runs in self.runs.items() if folder.parent in inside for run in runs]

    def write_target(self, pair: Pair, target: Target) -> None:
        """The runs that the answer of one target rests on; a file is never emptied."""
        if runs := self.runs_of(pair):
            _make(self.pair_folder(pair))
            _write(self.target_file(pair, target), runs)

    def target_file(self, pair: Pair, target: Target) -> Path:
        return self.pair_folder(pair) / target.file_name

    def read_target(self, pair: Pair, target: Target) -> tuple[Run, ...]:
        """The runs in the file of a target; none where it cannot be read."""
        runs, _ = _read_runs(self.target_file(pair, target))
        return runs

    def write_table(self) -> None:
        every = [run for runs in self.runs.values() for run in runs]
        if every:
            _replace(self.folder / TABLE, table_of(every).encode())

    def complete_table(self) -> None:
        """Write the table where it lacks a run: a kill may come before that, when all else of a point is written."""
        try:
            text = (self.folder / TABLE).read_text(encoding="utf-8")
        except (OSError, ValueError):
            text = ""
        if not in_table(text, [run for runs in self.runs.values() for run in runs]):
            self.write_table()

    def read(self, pairs: Sequence[Pair]) -> tuple[dict[str, tuple[Point, ...]], tuple[str, ...]]:
        """The finished points of each pair by its folder, and what is ignored, in words.

        What other pairs left is not looked at. Everything that can be read stays in the tables of the tree.
        """
        found: dict[str, tuple[Point, ...]] = {}
        notes: list[str] = []
        own = {pair.folder for pair in pairs}
        for pair in pairs:
            folders = [self.pair_folder(pair)]
            if pair.named_folder not in own:
                self.named[pair.folder] = self.folder / pair.named_folder
                folders.insert(0, self.named[pair.folder])
            there = [read_points(folder, self.variable) for folder in folders]
            found[pair.folder] = tuple(
                sorted((point for points, _ in there for point in points), key=lambda point: point.load)
            )
            notes += [note for _, ignored in there for note in ignored]
        every = [point for points in found.values() for point in points]
        for point in sorted(every, key=lambda point: str(point.runs[0].get("date", ""))):
            self.runs[point.folder] = list(point.runs)
        return found, tuple(notes)


def read_points(folder: Path, variable: str) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """The finished points in the folder of a pair by load, and what is ignored there and why."""
    points, notes = [], []
    for place in sorted(folder.glob(f"{variable}=*")):
        text = place.name.partition("=")[2]
        try:
            load = float(text)
        except ValueError:
            load = math.nan
        if not place.is_dir() or not (math.isfinite(load) and load > 0):
            notes.append(f"{place} is ignored: {text} is no load")
            continue
        runs, why = _read_summary(place)
        if why:
            notes.append(f"{place} is ignored: {why}")
        else:
            points.append(Point(load=load, folder=place, runs=runs))
    return tuple(sorted(points, key=lambda point: point.load)), tuple(notes)


def _read_summary(place: Path) -> tuple[tuple[Run, ...], str]:
    """The runs of a point, or why it is none."""
    if not (place / SUMMARY).exists():
        loose = ", ".join(sorted(file.name for file in place.iterdir() if _RUN.fullmatch(file.name)))
        return (), f"{loose or 'nothing'} without a {SUMMARY} is no finished point"
    return _read_runs(place / SUMMARY)


def _read_runs(path: Path) -> tuple[tuple[Run, ...], str]:
    """The run objects in a file, or why there are none."""
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return (), f"{path.name} is torn or unreadable ({error})"
    if not isinstance(runs, list) or not runs or not all(isinstance(run, Mapping) for run in runs):
        return (), f"{path.name} is no list of run objects"
    return tuple(runs), ""


def foreign(point: Point, pair: Pair, variable: str, expected: Mapping[str, object]) -> str:
    """Why these runs were made by another command than this pair's; empty where nothing says so.

    A tree of vLLM's does not say which command made it: its run objects hold the overrides, and a few facts beside.
    """
    wanted = {key: value for key, value in pair.overrides(variable, point.load).items() if key != "_benchmark_name"}
    for run in point.runs:
        if "run_number" not in run:
            return "a run has no run_number: it was cut off, or is no run of a sweep"
        for key, value in {**expected, **wanted}.items():
            if key in wanted and key not in run:
                return f"a run has no {key}"
            if key in run and run[key] != value:
                return f"{key} is {run[key]}, not {value}"
    return ""


def table_of(runs: Sequence[Run]) -> str:
    """One row for each run as CSV: an unnamed index first, then all keys in order of first appearance."""
    columns = list(dict.fromkeys(key for run in runs for key in run))
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["", *columns])
    for number, run in enumerate(runs):
        rows.writerow([number, *(_cell(run.get(column)) for column in columns)])
    return buffer.getvalue()


def in_table(text: str, runs: Sequence[Run]) -> bool:
    """Does a table as `table_of` writes it hold these runs?"""
    try:
        (_, *columns), *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError):  # cut off, or empty
        return not runs
    there = {tuple(row[1:]) for row in rows}
    return all(
        columns and not run.keys() - set(columns) and tuple(str(_cell(run.get(column))) for column in columns) in there
        for run in runs
    )


def _cell(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _write(path: Path, data: object) -> None:
    _replace(path, json.dumps(data, indent=4).encode())


def _replace(path: Path, data: bytes) -> None:
    if len(path.name.encode()) > 200:  # with what a temporary name adds
        raise RedlineError(f"{path.name[:60]}... is too long for the name of a file; shorten the parameters' values")
    replace_file(path, data)
