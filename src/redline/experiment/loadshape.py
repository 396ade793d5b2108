"""The settings of a workload that shape its load over time: what they take, and which of them fit together."""

from __future__ import annotations

from collections.abc import Mapping

from redline.experiment.settings import Path, Problem, Read, read
from redline.model import ThinkTime, UsageError, Variable, Workload
from redline.units import parse_duration, parse_not_negative


def _think_time(value: object) -> ThinkTime:
    """{ mean, cv }, or one duration for pauses that are all the same."""
    if not isinstance(value, Mapping):
        return ThinkTime(mean=parse_duration(value))
    problems: list[Problem] = []
    settings = read(value, {"mean": parse_duration, "cv": parse_not_negative}, (), problems)
    if not problems and "mean" not in settings:
        problems.append(Problem(path=(), text="mean missing; write { mean = 2, cv = 1 }: seconds, and how they vary"))
    if problems:
        raise UsageError("; ".join(problem.text for problem in problems))
    return ThinkTime(**settings)


SHAPE: Mapping[str, Read] = {"think_time_s": _think_time}


def check_load(workload: Workload, by: Variable, path: Path, problems: list[Problem]) -> None:
    """Does its shape fit the load that is searched?"""
    if workload.think_time_s is not None and by == "rate":
        why = "does nothing by rate, where requests come by the schedule: remove it, or search by concurrency"
        problems.append(Problem(path=(*path, "think_time_s"), text=f"think_time_s {why}"))
