"""The true capacity, against longer runs than it makes and against arithmetic."""

import math
import runpy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from redline.model import Goal, Lengths, Probe, ThinkTime, Workload
from redline.simulate.find import search_on
from redline.simulate.profiles import PROFILES
from redline.simulate.session import Run, VirtualSession
from redline.simulate.truth import Truth, true_capacity
from redline.sla import parse_sla

SMALL = replace(PROFILES["demo"], max_num_seqs=8)
CHAT = Workload(name="chat", prompt=Lengths(mean=128), output=Lengths(mean=24))
EXAMPLE = Path(__file__).parents[1] / "examples" / "own_simulator.py"


@cache
def truth_within_300ms() -> Truth:
    """Of the small server alone: two tests hold something against it."""
    return true_capacity(SMALL, CHAT, parse_sla("p90_ttft_ms<=300"), precision=0.05)


def share_over_300ms(load: float, seed: int) -> float:
    run = Run(SMALL, CHAT, Probe(by="rate", load=load, kind="main", max_requests=60_000), seed)
    run.advance(math.inf)
    return float(np.mean(run.records(run.over_s, gaps=False).ttft_ms()[1_000:] > 300))


def test_a_long_run_below_it_meets_the_sla_and_one_above_does_not():
    truth = true_capacity(SMALL, CHAT, parse_sla("p90_ttft_ms<=300, p90_tpot_ms<=40"))

    assert truth.limiting == "p90_ttft_ms<=300"
    assert 0 < truth.error <= 0.011
    assert share_over_300ms(0.975 * truth.capacity, seed=91) < 0.1 < share_over_300ms(1.025 * truth.capacity, seed=92)


def test_what_each_request_alone_decides_has_the_capacity_that_arithmetic_says():
    """As many users as slots never wait: their TPOT is the time of a step that decodes for all of them."""
    workload = Workload(name="long", prompt=Lengths(mean=1), output=Lengths(mean=400))
    batch_of = 14  # 10 ms + 0.3 ms x 14 = 14.2 ms
    truth = true_capacity(PROFILES["demo"], workload, parse_sla("mean_tpot_ms<=14.3"), "concurrency", precision=0.05)

    assert truth.capacity == batch_of


@pytest.mark.parametrize(
    ("sla", "capacity"),
    [("p90_ttft_ms<=5", 0.0), ("p90_tpot_ms<=1s", math.inf), ("p90_ttft_ms<=300, request_throughput>=900", 0.0)],
)
def test_what_no_load_or_every_load_meets(sla, capacity):
    assert true_capacity(SMALL, CHAT, parse_sla(sla), precision=0.2).capacity == capacity


@pytest.mark.parametrize("by", ["rate", "concurrency"])
def test_noise_from_run_to_run_and_drift_do_not_move_it(by):
    sla = parse_sla("mean_ttft_ms<=100")
    odd = replace(SMALL, run_noise=0.2, drift_per_s=0.01, cold_factor=2.0, cold_s=100.0)

    assert true_capacity(odd, CHAT, sla, by, precision=0.2) == true_capacity(SMALL, CHAT, sla, by, precision=0.2)


def test_the_search_finds_it():
    sla = parse_sla("p90_ttft_ms<=300")
    truth = truth_within_300ms()
    answer, trials = search_on(VirtualSession(SMALL, CHAT), sla, Goal(precision=0.1), seed=1)

    assert (answer.evidence, answer.trials) == ("edge", len(trials))
    assert answer.low <= truth.capacity <= answer.high
    assert search_on(VirtualSession(SMALL, CHAT), sla, Goal(precision=0.1), seed=1)[0] == answer


def test_the_search_finds_how_many_users_who_think_it_carries():
    sla = parse_sla("p90_ttft_ms<=300")
    thoughtful = replace(CHAT, think_time_s=ThinkTime(mean=2.0, cv=1.0))
    truth = true_capacity(SMALL, thoughtful, sla, "concurrency", precision=0.05)
    at_once = true_capacity(SMALL, CHAT, sla, "concurrency", precision=0.05)
    goal = Goal(by="concurrency", precision=0.1, min_load=1, max_load=8_192)
    answer, _ = search_on(VirtualSession(SMALL, thoughtful), sla, goal, seed=1)

    assert truth.capacity > 3 * at_once.capacity
    assert answer.evidence == "edge"
    assert answer.low <= truth.capacity <= answer.high


def test_a_queue_in_the_client_counts_as_one_in_the_server():
    """With a place for each slot nobody waits in the server, and the capacity is that of the server alone."""
    sla = parse_sla("p90_ttft_ms<=300")
    capped = replace(CHAT, max_in_flight=SMALL.max_num_seqs)
    truth = true_capacity(SMALL, capped, sla, precision=0.1)
    answer, _ = search_on(VirtualSession(SMALL, capped), sla, Goal(precision=0.1), seed=1)

    assert truth.capacity == pytest.approx(truth_within_300ms().capacity, rel=0.06)
    assert answer.evidence == "edge"
    assert answer.low <= truth.capacity <= answer.high


def test_a_stranger_s_simulator_is_searched_and_its_truth_is_found(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr().out

    assert said.startswith("edge: rely on ")
    assert "the truth is 7.70" in said


def test_the_stranger_s_answer_holds_the_truth_of_its_queue():
    queue = runpy.run_path(str(EXAMPLE))["OneServer"](0.1)
    held = 0
    for seed in range(8):
        answer, _ = search_on(queue, parse_sla("p90_e2el_ms<=1s"), Goal(precision=0.1), seed=seed)
        held += answer.low <= 10 - math.log(10) <= answer.high

    assert held >= 5  # of 8 at 90%: fewer happens once in 200
