"""How to search, from settings named as the command line's options are."""

from __future__ import annotations

from collections.abc import Mapping

from redline.experiment import settings
from redline.experiment.settings import Path, Problem, Read
from redline.model import LOAD_LIMITS, Goal, Variable
from redline.units import parse_count, parse_duration, parse_load, parse_loads, parse_share, parse_whole

AUTO = "auto"  # for `loads`: find the list
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
    "loads": lambda value: AUTO if value == AUTO else parse_loads(value),
    "seed": parse_whole,
    "load_workers": lambda value: None if value == "auto" else parse_count(value),
}
BESIDE_LOADS = frozenset({"min", "max", "precision", "max_trials", "sustain"})  # what only a search has
_BESIDE_AUTO = BESIDE_LOADS - {"min", "max"}  # between which it finds them
_FIELDS = {"min": "min_load", "max": "max_load", "max_time": "max_time_s", "sustain": "sustain_s"}


def goal_of(section: object, path: Path, problems: list[Problem]) -> Goal:
    """How to search; more `problems` where settings are bad or contradict each other."""
    given = settings.read(section, SEARCH, path, problems)
    by: Variable = given.get("by", "rate")
    curve = given.get("loads") == AUTO
    listed = () if curve else given.get("loads", ())
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
        if any(not load.is_integer() for load in listed):
            problem("loads", "loads must be whole numbers: concurrency counts requests in flight")
    for key in ("min", "max"):
        if key in given and not lowest <= given[key] <= highest:
            problem(key, f"{key} {given[key]:g} lies outside what can be measured by {by}: {lowest:g} to {highest:g}")
    if any(not lowest <= load <= highest for load in listed):
        problem("loads", f"loads must lie within {lowest:g} and {highest:g} for {by}")
    if "loads" in given:
        for key in sorted(given.keys() & (_BESIDE_AUTO if curve else BESIDE_LOADS)):
            why = "the list says which loads are measured" if key in ("min", "max") else "no capacity is searched"
            problem(key, f"{key} does nothing beside loads: {why}; remove one of the two")
    return Goal(
        **{
            "min_load": lowest,
            "max_load": highest,
            **{_FIELDS.get(key, key): value for key, value in given.items()},
            "loads": listed,
            "curve": curve,
        }
    )


def replaced(options: Mapping[str, object], search: Mapping[str, object]) -> frozenset[str]:
    """Which of a file's settings options of the command line take the place of, besides those of the same name."""
    beside = _BESIDE_AUTO if options.get("loads", search.get("loads")) == AUTO else BESIDE_LOADS
    if "loads" in options:
        return beside
    return frozenset({"loads"}) if options.keys() & beside else frozenset()


def advice(goal: Goal) -> tuple[str, ...]:
    """What is allowed but seldom wise."""
    if goal.precision < 0.03 and not goal.lists:
        return (
            f"precision {100 * goal.precision:g}% is finer than is reliable: below 3% what differs from run to run "
            "outweighs what more measuring finds",
        )
    return ()
