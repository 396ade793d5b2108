"""Runs that a sweep left before, as evidence for Redline's search: totals only, and only where they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redline.bench import Reading, ResultError, read
from redline.bench.command import measured, not_offered, warm_up_s
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
        if why:
            notes.append(f"{point.folder} is not used: {why}")
            continue
        trials.append(_trial(point, readings, probe, case, earlier.slas, next_id()))
    return trials, notes


def _trial(
    point: Point, readings: Sequence[Reading], probe: Probe, case: str, slas: Sequence[Sla], number: str
) -> Trial:
    """Totals as a trial; few requests are a first look, that finds a range and bounds nothing."""
    requests = sum(reading.completed for reading in readings)
    full = all(requests >= least(criterion) for sla in slas for criterion in sla.criteria)
    duration_s = sum(reading.duration_s for reading in readings)
    return Trial(
        id=number,
        case=case,
        probe=Probe(by=probe.by, load=probe.load, kind="main" if full else "scout"),
        seed=0,
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        outcome=Measured(
            stop=Stop(reason="ended", at_s=duration_s),
            duration_s=duration_s,
            aggregates=tuple(_totals(probe, reading) for reading in readings),
        ),
        facts={"from": str(point.folder)},
        warnings=("some loads were measured by an earlier sweep, of which only totals are known",),
    )


def _totals(probe: Probe, reading: Reading) -> Mapping[str, float]:
    if reading.aggregates:
        return reading.aggregates
    counts = {"completed": float(reading.completed), "failed": float(reading.failed)}
    return {**summary(measured(probe, reading, warm_up_s(reading))), **counts}
