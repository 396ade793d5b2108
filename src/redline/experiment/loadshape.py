"""The settings of a workload that shape its load over time: what they take, and which of them fit together."""

from __future__ import annotations

from collections.abc import Mapping

from redline.experiment.settings import Path, Problem, Read, read
from redline.model import ThinkTime, UsageError, Variable, Workload
from redline.units import parse_count, parse_duration, parse_not_negative


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


SHAPE: Mapping[str, Read] = {
    "think_time_s": _think_time,
    "max_in_flight": parse_count,
    "ramp_s": parse_duration,
}


def check_load(workload: Workload, by: Variable, path: Path, problems: list[Problem]) -> None:
    """Does its shape fit the load that is searched?"""

    def problem(key: str, why: str) -> None:
        problems.append(Problem(path=(*path, key), text=f"{key} does nothing by {by}, {why}"))

    if by == "rate" and workload.think_time_s is not None:
        problem("think_time_s", "where requests come by the schedule: remove it, or search by concurrency")
    if by == "concurrency" and workload.max_in_flight is not None:
        problem("max_in_flight", "where the load itself says how many are in flight: remove it, or search by rate")
