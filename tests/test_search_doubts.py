"""A server that changes while it is measured is told of; one that does not is left in peace."""

from dataclasses import replace

import numpy as np

from redline.experiment.workloads import parse_workload
from redline.model import Goal, Probe, Trial
from redline.search import next_step
from redline.search.doubts import doubts, stalls
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession
from redline.sla import parse_sla
from redline.verdict import watcher

WORKLOAD = parse_workload("chat")
SLA = parse_sla("p90_ttft_ms<=120, p90_tpot_ms<=18")
NONE = Probe(by="rate", load=1.0, kind="list", max_s=60.0)


def searched(profile: str, sla=SLA, seed: int = 7_000):  # type: ignore[no-untyped-def]  # the answer of a search
    session, evidence = VirtualSession(PROFILES[profile], WORKLOAD), list[Trial]()
    while isinstance(step := next_step(evidence, sla, Goal()), Probe):
        outcome = session.measure(step, watcher(step, sla, evidence), seed + len(evidence))
        evidence.append(Trial(id="", case="", probe=step, seed=0, started="", outcome=outcome))
    return step, evidence


def listed(session: VirtualSession) -> list[Trial]:
    loads = (10.0, 14.0, 12.0, 15.0, 9.0, 13.0, 11.0)
    probes = [replace(NONE, load=load) for load in loads]
    outcomes = [session.measure(probe, lambda _: None, 90 + i) for i, probe in enumerate(probes)]
    return [
        Trial(id="", case="", probe=probe, seed=0, started="", outcome=outcome)
        for probe, outcome in zip(probes, outcomes, strict=True)
    ]


def test_rare_stalls_are_told_of():
    answer, _ = searched("8b-stalls")

    assert any("stood still" in warning for warning in answer.warnings)


def test_a_server_that_gets_slower_is_told_of():
    drifting = VirtualSession(replace(PROFILES["8b-chat"], drift_per_s=2.5e-4), WORKLOAD)
    steady = VirtualSession(PROFILES["8b-chat"], WORKLOAD)

    (warning,) = doubts(listed(drifting), 12.0)

    assert "slower" in warning
    assert [] == doubts(listed(steady), 12.0)


def test_a_server_that_gets_slower_is_told_of_also_where_no_load_can_be_relied_on():
    answer, _ = searched("8b-drift", parse_sla("p99_ttft_ms<=190"), 20_000)

    assert ("undecided", None) == (answer.evidence, answer.capacity)
    assert any("slower" in warning for warning in answer.warnings)


def test_a_steady_server_is_not_doubted():
    answer, evidence = searched("8b-chat")

    assert "edge" == answer.evidence
    assert [] == doubts(evidence, answer.capacity)
    assert [] == doubts(evidence, None)


def test_a_stall_is_found_where_it_was():
    session = VirtualSession(replace(PROFILES["8b-chat"], stall_every_s=20.0, stall_s=0.8), WORKLOAD)
    steady = VirtualSession(PROFILES["8b-chat"], WORKLOAD)
    probe = replace(NONE, load=10.0)

    times_s, lasted_s = stalls(session.measure(probe, lambda _: None, 3).records)

    assert 1 <= len(times_s) <= 8
    assert np.all((lasted_s > 0.7) & (lasted_s < 1.0))
    assert 0 == len(stalls(steady.measure(probe, lambda _: None, 3).records)[0])
