"""Runs that a sweep left before, as evidence for Redline's search: totals only, and only where they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from redline.bench import Reading, ResultError, read
from redline.bench.command import measured, not_offered, warm_up_s
from redline.bench.requests import counts
from redline.model import Measured, Probe, Sla, Stop, Trial
from redline.search.evidence import least
from redline.servesla.parameters import VARIABLES, Pair
from redline.servesla.tree import Point, foreign
from redline.verdict import summary


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """What is known of the sweep that the points must belong to."""

    variable: str
    expected: Mapping[str, object]  # key of a run object -> what this sweep's command makes of it
    slas: Sequence[Sla]


def trials_from(
    points: Sequence[Point], pair: Pair, case: str, earlier: Earlier, next_id: Callable[[], str]
) -> tuple[list[Trial], list[str]]:
    """The points that say something about this case, as trials; and why the others do not."""
    trials, notes = [], []
    for point in points:
        probe = Probe(by=VARIABLES[earlier.variable], load=point.load, kind="main")
        why = foreign(point, pair, earlier.variable, earlier.expected)
        readings: list[Reading] = []
        for run in point.runs if not why else ():
            try:
                readings.append(read("vllm", point.folder / f"run={run['run_number']}.json"))
            except ResultError as error:
                why = str(error)
                break
            if refusal := not_offered(probe, readings[-1]):
                why = f"{refusal[0]}: a load that was not offered is no evidence"
                break
        if not why and not _full(readings, earlier.slas):
            probe = replace(probe, kind="scout")
        totals = [_totals(probe, reading) for reading in readings] if not why else []
        if why := why or _silent(totals, probe, earlier.slas):
            notes.append(f"{point.folder} is not used: {why}")
            continue
        lasted_s = sum(reading.duration_s for reading in readings)
        stop = Stop(reason="ended", at_s=lasted_s)
        outcome = Measured(stop=stop, duration_s=0.0, aggregates=tuple(totals))  # it takes no time of this experiment
        trials.append(_trial(point, outcome, probe, case, next_id()))
    return trials, notes


def _full(readings: Sequence[Reading], slas: Sequence[Sla]) -> bool:
    """Few requests are a first look, that finds a range and bounds nothing."""
    requests = sum(reading.completed for reading in readings)
    return all(requests >= least(criterion) for sla in slas for criterion in sla.criteria)


def _silent(totals: Sequence[Mapping[str, float]], probe: Probe, slas: Sequence[Sla]) -> str:
    """Which metrics these runs do not tell; a first look must tell all of them, or it would pass for a bad one."""
    asked = dict.fromkeys(c.metric for sla in slas for c in sla.criteria if not c.default)
    missing = [name for name in asked if not all(name in run for run in totals)]
    if missing and (probe.kind == "scout" or len(missing) == len(asked)):
        return f"its files say nothing about {', '.join(missing)}"
    return ""


def _trial(point: Point, outcome: Measured, probe: Probe, case: str, number: str) -> Trial:
    return Trial(
        id=number,
        case=case,
        probe=probe,
        seed=0,
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        outcome=outcome,
        facts={"from": str(point.folder)},
        warnings=("some loads were measured by an earlier sweep, of which only totals are known",),
    )


def _totals(probe: Probe, reading: Reading) -> Mapping[str, float]:
    """What the file says, and what its requests say where it has some."""
    own = summary(measured(probe, reading, warm_up_s(reading))) if reading.records is not None else {}
    return {**reading.aggregates, **own, **counts(reading.completed, reading.failed)}
