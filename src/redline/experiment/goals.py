"""How to search, from settings named as the command line's options are."""

from __future__ import annotations

from collections.abc import Mapping

from redline.experiment import settings
from redline.experiment.settings import Path, Problem, Read
from redline.model import LOAD_LIMITS, Goal, Variable
from redline.units import parse_count, parse_duration, parse_load, parse_loads, parse_share, parse_whole

SEARCH: Mapping[str, Read] = {
    "by": settings.choice("rate", "concurrency"),
    "precision": parse_share,
    "confidence": parse_share,
    "min": parse_load,
    "max": parse_load,
    "max_time": parse_duration,
    "max_requests": parse_count,
    "max_trials": parse_count,
    "sustain": parse_duration,
    "loads": parse_loads,
    "seed": parse_whole,
    "load_workers": lambda value: None if value == "auto" else parse_count(value),
}
BESIDE_LOADS = frozenset({"min", "max", "precision", "max_trials", "sustain"})  # what only a search has
_FIELDS = {"min": "min_load", "max": "max_load", "max_time": "max_time_s", "sustain": "sustain_s"}


def goal_of(section: object, path: Path, problems: list[Problem]) -> Goal:
    """How to search; more `problems` where settings are bad or contradict each other."""
    given = settings.read(section, SEARCH, path, problems)
    by: Variable = given.get("by", "rate")
    lowest, highest = LOAD_LIMITS[by]
    low, high = given.get("min", lowest), given.get("max", highest)

    def problem(key: str, text: str) -> None:
        problems.append(Problem(path=(*path, key), text=text))

    if low > high:
        key = "min" if "min" in given else "max"
        limits = "" if {"min", "max"} <= given.keys() else f" (the default for {by})"
        problem(key, f"min {low:g} is above max {high:g}{limits}; no load lies between them")
    if by == "concurrency":
        for key in ("min", "max"):
            if not float(given.get(key, 1)).is_integer():
                problem(key, f"{key} must be a whole number: concurrency counts requests in flight")
        if any(not load.is_integer() for load in given.get("loads", ())):
            problem("loads", "loads must be whole numbers: concurrency counts requests in flight")
    for key in ("min", "max"):
        if key in given and not lowest <= given[key] <= highest:
            problem(key, f"{key} {given[key]:g} lies outside what can be measured by {by}: {lowest:g} to {highest:g}")
    if any(not lowest <= load <= highest for load in given.get("loads", ())):
        problem("loads", f"loads must lie within {lowest:g} and {highest:g} for {by}")
    if "loads" in given:
        for key in sorted(given.keys() & BESIDE_LOADS):
            why = "the list says which loads are measured" if key in ("min", "max") else "no capacity is searched"
            problem(key, f"{key} does nothing beside loads: {why}; remove one of the two")
    return Goal(
        **{
            "min_load": lowest,
            "max_load": highest,
            **{_FIELDS.get(key, key): value for key, value in given.items()},
        }
    )


def advice(goal: Goal) -> tuple[str, ...]:
    """What is allowed but seldom wise."""
    if goal.precision < 0.03 and not goal.loads:
        return (
            f"precision {100 * goal.precision:g}% is finer than is reliable: below 3% what differs from run to run "
            "outweighs what more measuring finds",
        )
    return ()
