"""The settings of a workload that shape its load over time: what they take, and which of them fit together."""

from __future__ import annotations

from collections.abc import Mapping

from redline.experiment.settings import Path, Problem, Read, read_table
from redline.model import Goal, Lengths, ThinkTime, UsageError, Workload
from redline.talks import turns_like
from redline.units import parse_count, parse_duration, parse_not_negative, parse_positive


def _think_time(value: object) -> ThinkTime:
    """{ mean, cv }, or one duration for pauses that are all the same."""
    if not isinstance(value, Mapping):
        return ThinkTime(mean=parse_duration(value))
    table = {"mean": parse_duration, "cv": parse_not_negative}
    return ThinkTime(**read_table(value, table, ("mean",), "{ mean = 2, cv = 1 }: seconds, and how they vary"))


def _turns(value: object) -> Lengths:
    """{ mean, cv }, or one number for conversations that are all as long."""
    if not isinstance(value, Mapping):
        return turns_like(parse_count(value), 0.0)
    table = {"mean": parse_positive, "cv": parse_not_negative}
    settings = read_table(value, table, ("mean",), "{ mean = 4, cv = 0.5 }: requests, and how they vary")
    if not settings["mean"] >= 1:
        raise UsageError(f"a mean of {settings['mean']:g} is less than one request")
    return turns_like(settings["mean"], settings.get("cv", 0.0))


SHAPE: Mapping[str, Read] = {
    "turns": _turns,
    "think_time_s": _think_time,
    "max_in_flight": parse_count,
    "ramp_s": parse_duration,
}


ONE_WORKER = "max_in_flight is counted in one process: leave out load_workers, or max_in_flight"


def contradictions(workload: Workload) -> list[tuple[str, str]]:
    """What of a workload's shape does not fit the rest of it: a key, and why."""
    if workload.turns is None:
        return []
    found = []
    if workload.api != "chat":
        found.append(("turns", 'turns needs api = "chat": completions have no messages to repeat'))
    for key in ("trace", "dataset"):
        if getattr(workload, key) is not None:
            found.append(("turns", f"turns does nothing beside {key}, whose requests are sent as they are: remove one"))
    if workload.prefix is not None:
        found.append(("turns", "turns needs prompts without prefix, since what one repeats is its own: remove one"))
    return found


def check_load(workload: Workload, goal: Goal, path: Path, problems: list[Problem]) -> None:
    """Does its shape fit the load that is searched, and what options changed of the workload?"""

    def problem(key: str, why: str) -> None:
        problems.append(Problem(path=(*path, key), text=why))

    for key, why in contradictions(workload):
        problem(key, why)
    if goal.by == "rate" and workload.think_time_s is not None and workload.turns is None:
        why = "requests come by the schedule: add turns, remove it, or search by concurrency"
        problem("think_time_s", f"think_time_s does nothing by rate, where {why}")
    if goal.by == "concurrency" and workload.max_in_flight is not None:
        why = "the load itself says how many are in flight: remove it, or search by rate"
        problem("max_in_flight", f"max_in_flight does nothing by concurrency, where {why}")
    elif workload.max_in_flight is not None and (goal.load_workers or 1) > 1:
        problem("max_in_flight", ONE_WORKER)
