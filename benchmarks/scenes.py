"""What the pictures of the documentation show: runs and searches on simulated servers of known capacity."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from cells import Cell, cells

from redline import stats
from redline.model import Answer, Measured, Probe, Trial
from redline.records import Floats, Records
from redline.search.state import state_of
from redline.simulate.find import search_on
from redline.simulate.profiles import Profile
from redline.simulate.session import Run, VirtualSession
from redline.simulate.truth import true_capacity
from redline.verdict.tally import Tally, lag_s, tally, window_of

FIRST_SEED = 7_000  # seeds that no constant was tuned on
SHORT_S, LONG_S = 20.0, 120.0
LOADS = (0.97, 1.0, 1.03)  # times what the server can serve
SHORT_COUNT, LONG_COUNT, BATCH = 600, 4_800, 100  # requests
FORGOTTEN_S = 20.0  # by then the start from idle plays no part
USERS = 64


def cell_of(profile: str, sla_set: str, by: str = "rate") -> Cell:
    return next(cell for cell in cells((profile,)) if cell.sla_set == sla_set and cell.by == by)


# ---- one load --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """The number in flight at one load over time, and how much it seems to grow early and late."""

    counts: Floats  # each second
    short_z: float
    long_z: float


def served_per_s(cell: Cell) -> float:
    """What the server serves with all slots taken."""
    run = Run(cell.server, cell.load, Probe(by="concurrency", load=cell.server.max_num_seqs, kind="main"), FIRST_SEED)
    run.advance(LONG_S)
    return stats.between(run.records(LONG_S, gaps=False).end_s, 10.0, LONG_S) / (LONG_S - 10.0)


def backlog(cell: Cell, task: tuple[float, int]) -> Backlog:
    """From idle at so many requests/s."""
    rate, seed = task
    run = Run(cell.server, cell.load, Probe(by="rate", load=rate, kind="main"), FIRST_SEED + seed)
    run.advance(LONG_S)
    records = run.records(LONG_S, gaps=False)
    return Backlog(
        counts=stats.in_flight(records, np.arange(LONG_S + 1)),
        short_z=stats.growth(records, 3.0, SHORT_S).z,
        long_z=stats.growth(records, 3.0, LONG_S).z,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """One trial's requests over a bound: the share in each batch, and what a short and a long window say."""

    batches: Floats
    short: Tally
    long: Tally


def holds(found: Tally, share: float, phi: float) -> bool:
    """Does the 80% interval of requests that are worth n/phi hold this share?"""
    low, high = stats.share_bounds(found.k / phi, found.n / phi, 0.9)
    return low <= share <= high


def shares(cell: Cell, rate: float, seed: int) -> Shares:
    """A trial at this rate, long after its start, judged on the cell's one criterion, a time to first token."""
    (criterion,) = [c for c in cell.bounds.criteria if not c.default]
    run = Run(cell.server, cell.load, Probe(by="rate", load=rate, kind="main"), FIRST_SEED + seed)
    end_s = FORGOTTEN_S + 1.2 * LONG_COUNT / rate
    run.advance(end_s)
    records = run.records(end_s, gaps=False)
    window = window_of(records, FORGOTTEN_S)
    due_s = records.scheduled_s[records.scheduled_s >= FORGOTTEN_S]
    short, long = (
        tally(criterion, records, replace(window, end_s=due_s[count - 1] + lag_s(criterion, window)))
        for count in (SHORT_COUNT, LONG_COUNT)
    )
    late = records.scheduled_s >= FORGOTTEN_S
    over = ~(records.ttft_ms()[late][:LONG_COUNT] <= criterion.bound)
    return Shares(batches=over.reshape(-1, BATCH).mean(axis=1), short=short, long=long)


def first_wave(cell: Cell, spread_s: float) -> Records:
    """A closed loop of USERS, who start within this time."""
    probe = Probe(by="concurrency", load=USERS, kind="main", spread_s=spread_s)
    run = Run(cell.server, cell.load, probe, FIRST_SEED)
    run.advance(60.0)
    return run.records(60.0, gaps=False)


# ---- searches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One trial as its search saw it."""

    load: float
    standing: str  # scout, met, missed, early, unused
    middle_s: float  # since the search began


@dataclass(frozen=True, kw_only=True, slots=True)
class Belief:
    """The belief after some trials: its 80% interval and its density."""

    trials: int
    low: float
    high: float
    loads: Floats
    density: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    answer: Answer
    trials: tuple[Trial, ...]

    def seen(self, cell: Cell) -> list[Seen]:
        state = state_of(self.trials, cell.bounds, cell.goal())
        by_id = {reading.trial.id: reading for reading in state.readings}
        told, began_s = [], 0.0
        for trial in self.trials:
            reading, standing = by_id.get(trial.id), "unused"
            if trial.probe.kind == "scout":
                standing = "scout"
            elif reading and reading.role in ("over", "fail"):
                standing = "early"
            elif reading and reading.role == "full":
                standing = "met" if reading.supports(state.limits) else "missed"
            lasted_s = trial.outcome.duration_s
            told.append(Seen(load=trial.probe.load, standing=standing, middle_s=began_s + lasted_s / 2))
            began_s += lasted_s
        return told

    def beliefs(self, cell: Cell) -> list[Belief]:
        """After each trial from which on the range is known."""
        found = []
        for number in range(1, len(self.trials) + 1):
            belief = state_of(self.trials[:number], cell.bounds, cell.goal()).belief
            if belief is not None:
                low, high = belief.quantile(0.1), belief.quantile(0.9)
                density = np.gradient(belief.cdf, belief.grid)
                loads = np.exp(belief.grid)
                found.append(Belief(trials=number, low=low, high=high, loads=loads, density=density / loads))
        return found

    @property
    def drifted(self) -> str:
        """Its warning of a server that changed, if it has one."""
        return next((text for text in self.answer.warnings if text.startswith("the server became")), "")

    def holds(self, load: float) -> bool:
        low, high = self.answer.low, self.answer.high
        return (low or 0.0) <= load <= (math.inf if high is None else high)


def search(cell: Cell, seed: int) -> Search:
    session = VirtualSession(cell.server, cell.load)
    answer, trials = search_on(session, cell.bounds, cell.goal(), seed=FIRST_SEED + seed)
    return Search(answer=answer, trials=trials)


def answer_of(cell: Cell, seed: int) -> Search:
    """The same without its records, which are large."""
    found = search(cell, seed)
    return replace(found, trials=tuple(replace(t, outcome=_bare(t)) for t in found.trials))


def _bare(trial: Trial) -> Measured:
    outcome = trial.outcome
    assert isinstance(outcome, Measured)  # these servers do not crash
    return replace(outcome, records=None)


def capacity_after(cell: Cell, at_s: float) -> float:
    """Of a server that drifts, were it to stay as it is at this time."""
    return true_capacity(_slowed(cell.server, at_s), cell.load, cell.bounds, cell.by, precision=0.02).capacity


def _slowed(profile: Profile, at_s: float) -> Profile:
    factor = 1 + profile.drift_per_s * at_s
    return replace(
        profile,
        drift_per_s=0.0,
        step_ms=factor * profile.step_ms,
        prefill_us=factor * profile.prefill_us,
        decode_us=factor * profile.decode_us,
        kv_ns=factor * profile.kv_ns,
    )
