"""Trials made up for tests of the pure core: requests with the latencies that a test wants, and searches on them."""

from array import array
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from redline.model import (
    Answer,
    ClientEvidence,
    Failed,
    Goal,
    Measured,
    Outcome,
    Probe,
    Session,
    Sla,
    Stop,
    Trace,
    Trial,
)
from redline.records import Records, Status
from redline.search import next_step
from redline.verdict import watcher

E2E_S, TOKENS = 1.0, 21
TRACE = Trace(
    file="t",
    sha256="made",
    times_s=array("d", [0, 1, 2, 6, 6.5]),
    prompt_tokens=array("i", [20, 30, 40, 50, 60]),
    output_tokens=array("i", [1, 2, 3, 4, 5]),
)


def records(
    n: int,
    load: float,
    ttft_ms: float | np.ndarray = 50.0,
    *,
    e2e_s: float | np.ndarray = E2E_S,
    failed: Sequence[int] = (),
    after_s: float = 5.0,
) -> Records:
    """n requests, `load` per second, seen until `after_s` after the last; those not ended by then are running."""
    due = np.arange(n) / load
    first, end = due + np.broadcast_to(ttft_ms, n) / 1e3, due + np.broadcast_to(e2e_s, n)
    end = np.maximum(end, first)
    observed_s = float(due[-1]) + after_s if n else after_s
    status = np.full(n, Status.OK, np.uint8)
    status[end > observed_s] = Status.RUNNING
    status[list(failed)] = Status.FAILED
    return Records(
        observed_s=observed_s,
        scheduled_s=due,
        sent_s=due.copy(),
        first_s=np.where(first > observed_s, np.nan, first),
        end_s=np.where(end > observed_s, np.nan, end),
        tokens_in=np.full(n, 100, np.int32),
        tokens_out=np.full(n, TOKENS, np.int32),
        tokens_asked=np.full(n, TOKENS, np.int32),
        status=status,
    )


def shares(n: int, over: float, seed: int = 0, *, low_ms: float = 50.0, high_ms: float = 500.0) -> np.ndarray:
    """TTFTs of which a share `over`, at random places, is high."""
    place = np.random.default_rng(seed).permutation(n)
    return np.where(place < round(over * n), high_ms, low_ms)


def trial(outcome: Outcome, probe: Probe, number: int = 0) -> Trial:
    return Trial(id=str(number), case="case", probe=probe, seed=number, started="", outcome=outcome)


def full(
    load: float, over: float = 0.0, *, n: int = 2000, sla: Sla, seed: int = 0, by: str = "rate", e2e_s: float = E2E_S
) -> Trial:
    """A full trial in which this share of the requests had a high TTFT (500 ms, else 50)."""
    found = records(n, load, shares(n, over, seed), e2e_s=e2e_s)
    stop = Stop(reason="full", at_s=found.observed_s, window_start_s=2.0)
    probe = Probe(by=by, load=load, kind="main", need={c.text: 1 for c in sla.criteria}, asked_by=sla.name)
    return trial(Measured(stop=stop, duration_s=found.observed_s, records=found), probe, seed)


def total(load: float, sla: Sla, runs: Sequence[Mapping[str, float]], kind: str = "main", number: int = 0) -> Trial:
    """What a command without records leaves."""
    probe = Probe(by="rate", load=load, kind=kind, need={c.text: 1 for c in sla.criteria}, asked_by=sla.name)
    outcome = Measured(stop=Stop(reason="ended", at_s=30), duration_s=30.0, aggregates=tuple(runs))
    return trial(outcome, probe, number)


def died(probe: Probe, number: int = 0) -> Trial:
    return trial(Failed(reason="server exited with code 1", duration_s=5.0, server_died=True), probe, number)


def limited(probe: Probe, number: int = 0) -> Trial:
    """A trial whose client was too busy."""
    found = records(100, 10.0)
    client = ClientEvidence(due=100, sent=100, cpu_share=0.95)
    outcome = Measured(
        stop=Stop(reason="full", at_s=found.observed_s), duration_s=found.observed_s, records=found, client=client
    )
    return trial(outcome, probe, number)


def search(session: Session, sla: Sla, goal: Goal, seed: int = 0) -> tuple[Answer, list[Trial]]:
    """A whole search on one SLA, as the run loop does it."""

    def measure(probe: Probe, evidence: Sequence[Trial], number: int) -> Outcome:
        return session.measure(probe, watcher(probe, sla, evidence), 1000 * seed + number)

    return drive(measure, sla, goal)


def drive(
    measure: Callable[[Probe, Sequence[Trial], int], Outcome], sla: Sla, goal: Goal, *, most: int = 80
) -> tuple[Answer, list[Trial]]:
    """Ask, measure and ask again until there is an answer."""
    evidence: list[Trial] = []
    for number in range(most):
        step = next_step(evidence, sla, goal)
        if isinstance(step, Answer):
            return step, evidence
        evidence.append(trial(measure(step, evidence, number), step, number))
    raise AssertionError(f"no answer after {most} trials: {[(t.probe.kind, t.probe.load) for t in evidence]}")
