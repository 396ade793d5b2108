"""Searches and single trials on the simulated demo server in virtual time, and copies of what they left."""

from collections.abc import Sequence
from dataclasses import replace

import made
from redline.experiment.workloads import parse_workload
from redline.model import Answer, Goal, Measured, Probe, Sla, Trial, Workload
from redline.search import next_job
from redline.simulate.profiles import PROFILES, Profile
from redline.simulate.session import VirtualSession
from redline.sla import parse_sla
from redline.verdict import watcher

WORKLOAD = parse_workload("random:in=128,out=24")
SLA = parse_sla("p90_ttft_ms<=300, p90_tpot_ms<=20")
RATE = Goal(by="rate", precision=0.10)
USERS = Goal(by="concurrency", precision=0.10, min_load=1, max_load=8192)


def demo(slots: int = 16) -> Profile:
    """The demo server with so many sequences at a time."""
    return replace(PROFILES["demo"], max_num_seqs=slots)


def measured(profile: Profile, probe: Probe, sla: Sla, seed: int, history: Sequence[Trial] = ()) -> Trial:
    """One watched trial on an idle server."""
    outcome = VirtualSession(profile, WORKLOAD).measure(probe, watcher(probe, sla, history), seed)
    return made.trial(outcome, probe, seed)


def search(profile: Profile, workload: Workload, sla: Sla, goal: Goal, seed: int) -> tuple[Answer, list[Trial]]:
    """A whole search on one SLA."""
    return made.search(VirtualSession(profile, workload), sla, goal, seed)


def search_all(profile: Profile, slas: Sequence[Sla], goal: Goal, seed: int) -> tuple[list[Answer], list[Trial]]:
    """Several SLAs on one server, each trial seen by all."""
    evidence: list[Trial] = []
    while not isinstance(job := next_job(evidence, slas, goal), list):
        sla, probe = job
        evidence.append(measured(profile, probe, sla, 1000 * seed + len(evidence), evidence))
    return job, evidence


def copied(evidence: Sequence[Trial]) -> list[Trial]:
    """Equal trials of which no object, and no array, is the one that was measured: as if read from disk."""
    return [replace(t, outcome=_copied(t)) for t in evidence]


def _copied(trial: Trial) -> object:
    outcome = trial.outcome
    if not isinstance(outcome, Measured) or outcome.records is None:
        return replace(outcome)
    columns = {name: column.copy() for name, column in outcome.records.columns().items()}
    return replace(outcome, records=type(outcome.records).from_columns(columns))
