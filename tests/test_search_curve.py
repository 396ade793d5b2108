"""A list of loads that is found: where it begins and ends, and that it is the same whenever one looks again."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

import made
import virtual
from redline.model import Answer, Failed, Goal, Measured, Probe, Stop
from redline.search import answer_now, is_look, listed_loads, next_job, next_step
from redline.search.curve import FAR, STEP, Point, list_of, next_look
from redline.simulate.session import VirtualSession
from redline.sla import parse_sla
from redline.verdict import watcher

RATE = Goal(by="rate", curve=True)
USERS = Goal(by="concurrency", curve=True, min_load=1, max_load=8192)


def looked(server, goal: Goal) -> list[Point]:
    """The looks at a server that is this function of the load."""
    points: list[Point] = []
    while (load := next_look(points, goal)) is not None:
        points.append(server(load))
        assert len(points) < 30
    return points


def measured(server, goal: Goal) -> tuple[list[Point], tuple[float, ...]]:
    looks, points = looked(server, goal), []
    while left := [load for load in list_of(looks, points, goal) if load not in {p.load for p in points}]:
        points.append(server(left[0]))
    return looks, list_of(looks, points, goal)


def with_rate(capacity: float, **more):
    return lambda load: Point(load=load, throughput=min(load, capacity), window_s=1e4, **more)


def with_slots(slots: int):
    return lambda load: Point(load=load, throughput=min(load, slots) * 2.0, window_s=100.0)


@pytest.mark.parametrize("capacity", [0.05, 0.9, 7.3, 460.0])
def test_a_rate_goes_from_a_light_load_to_the_first_that_is_not_answered(capacity):
    _, loads = measured(with_rate(capacity), RATE)

    assert 6 <= len(loads) <= 12
    assert loads[0] <= max(0.01, capacity / 6)
    assert loads[-2] < capacity / 0.85
    assert capacity < loads[-1] < 2 * capacity
    assert all(b / a == pytest.approx(STEP, rel=0.01) for a, b in pairwise(loads[1:]))


@pytest.mark.parametrize("slots", [1, 5, 64, 700])
def test_concurrency_goes_to_where_more_in_flight_brings_no_more(slots):
    _, loads = measured(with_slots(slots), USERS)

    assert all(load.is_integer() for load in loads)
    assert list(loads) == sorted(set(loads))
    assert slots < loads[-1] <= 3 * slots + 1
    assert loads[0] <= max(1, slots / 4)


def test_no_load_beyond_those_allowed_is_tried():
    looks, loads = measured(with_rate(100.0), replace(RATE, min_load=2.0, max_load=9.0))

    assert {2.0, 9.0} == {min(loads), max(loads)}
    assert all(2.0 <= point.load <= 9.0 for point in looks)


def test_an_end_of_the_range_is_not_measured_twice():
    looks = [Point(load=12.0, throughput=12.0, window_s=9.0), Point(load=96.0, full=True)]

    assert (12.0, 18.96, 28.44) == list_of(looks, [], replace(RATE, min_load=12.0))[:3]  # 12.64 is dropped


def test_a_server_that_fails_ends_the_list():
    def server(load: float) -> Point:
        return Point(load=load, throughput=load, window_s=100.0, full=load > 20)

    assert 20 < measured(server, RATE)[1][-1] < 20 * STEP * 1.01


def test_looks_that_were_too_hopeful_are_overruled_by_the_list():
    looks = [Point(load=load, throughput=load, window_s=9.0) for load in (1.0, 4.0)] + [Point(load=8.0, full=True)]

    assert 8.0 == list_of(looks, [], RATE)[-1]
    first = list_of(looks, [], RATE)
    assert first[:4] == list_of(looks, [Point(load=first[3], full=True)], RATE)


def test_a_list_that_does_not_fill_the_server_goes_on():
    looks = [Point(load=1.0, throughput=1.0), Point(load=2.0, full=True)]
    well = [Point(load=load, throughput=load, window_s=99.0) for load in list_of(looks, [], RATE)]

    assert pytest.approx(2.0 * STEP) == list_of(looks, well, RATE)[-1]


def test_few_requests_are_not_taken_for_a_server_that_is_full():
    goal = replace(RATE, max_load=1.0)

    assert next_look([Point(load=1.0, throughput=0.6, window_s=5.0)], goal) is None  # 3 of 5: chance
    assert next_look([Point(load=1.0, throughput=0.6, window_s=500.0)], goal) == 1 / FAR


# ---- on the simulated server -----------------------------------------------------------------------------------------


def driven(goal: Goal, sla=virtual.SLA, seed: int = 1) -> tuple[list[Answer], list]:
    session, evidence = VirtualSession(virtual.demo(), virtual.WORKLOAD), []
    while not isinstance(job := next_job(evidence, [sla], goal), list):
        asking, probe = job
        outcome = session.measure(probe, watcher(probe, asking, evidence), 1000 * seed + len(evidence))
        evidence.append(made.trial(outcome, probe, len(evidence)))
        assert len(evidence) < 40
    return job, evidence


@pytest.fixture(scope="module")
def curve():
    return driven(RATE)


def test_the_demo_server_is_measured_from_light_to_full(curve):
    (answer,), evidence = curve
    loads = listed_loads(evidence, RATE)
    capacity = 43.0  # about what its 16 slots answer at most

    assert "all listed loads are measured" == answer.stop_reason
    assert list(loads) == [t.probe.load for t in evidence if t.probe.kind == "list"]
    assert loads[0] < capacity / 6
    assert capacity * 0.7 < loads[-1] < capacity * 2
    assert answer.capacity in [t.probe.load for t in evidence]
    assert 2 <= sum(map(is_look, evidence)) <= 6


def test_an_sla_that_nothing_meets_takes_nothing_from_the_list(curve):
    _, evidence = driven(RATE, parse_sla("p90_ttft_ms<=0.5, p90_tpot_ms<=0.5"))

    assert listed_loads(curve[1], RATE)[-1] == pytest.approx(listed_loads(evidence, RATE)[-1], rel=0.6)
    assert len(listed_loads(evidence, RATE)) >= 6


def test_going_on_after_any_trial_measures_the_same_list(curve):
    (answer,), evidence = curve
    copies = virtual.copied(evidence)

    for cut in range(len(evidence)):
        _, probe = next_job(copies[:cut], [virtual.SLA], RATE)
        assert evidence[cut].probe == probe
    assert answer == next_step(copies, virtual.SLA, RATE)


def test_in_flight_the_demo_server_is_full_at_its_slots():
    _, evidence = driven(replace(USERS, max_load=512.0), parse_sla("p90_e2el_ms<=60s"))
    loads = listed_loads(evidence, USERS)

    assert 16 < loads[-1] <= 64
    assert 1 <= loads[0] <= 4


def test_a_budget_ends_the_list_and_says_what_is_left():
    (answer,), evidence = driven(replace(RATE, max_time_s=60.0))

    assert "time budget" in answer.stop_reason
    assert "undecided" == answer.evidence
    assert sum(t.outcome.duration_s for t in evidence) < 180


def test_a_search_that_was_stored_before_does_not_change_the_list(curve):
    _, searched = virtual.search(virtual.demo(), virtual.WORKLOAD, virtual.SLA, virtual.RATE, 3)
    (_, evidence) = curve

    assert listed_loads(evidence, RATE) == listed_loads([*searched, *evidence], RATE)
    step = next_step(searched, virtual.SLA, RATE)
    assert isinstance(step, Probe)
    assert math.isclose(1.0, step.load)


def test_a_look_whose_client_was_too_busy_fills_no_server():
    probe = Probe(by="rate", load=1.0, kind="main", asked_by="--loads auto")
    busy = made.limited(replace(probe, load=64.0))  # its 10 requests/s are what the client could do
    well = [
        made.trial(made.full(load, sla=virtual.SLA).outcome, replace(probe, load=load)) for load in (1.0, 4.0, 16.0)
    ]

    again = next_step([*well, busy], virtual.SLA, RATE)
    assert isinstance(again, Probe)
    assert 64.0 == again.load
    assert "client_limited" == answer_now([*well, busy, busy], virtual.SLA, RATE, "").evidence


def test_the_totals_of_a_command_do_not_make_a_slow_answer_a_full_server():
    def look(load: float, requests: int, answer_s: float):
        lasted_s = requests / load + answer_s
        run = {"completed": requests, "failed": 0.0, "request_throughput": requests / lasted_s}
        outcome = Measured(
            stop=Stop(reason="ended", at_s=lasted_s),
            duration_s=lasted_s,
            aggregates=({**run, "mean_e2el_ms": 1e3 * answer_s, "p90_ttft_ms": 50.0},),
        )
        return made.trial(outcome, Probe(by="rate", load=load, kind="main", asked_by="--loads auto"))

    sla = parse_sla("p90_ttft_ms<=300")
    step = next_step([look(1.0, 72, 10.0), look(4.0, 72, 10.0)], sla, RATE)

    assert isinstance(step, Probe)
    assert 16.0 == step.load  # 72 requests are sent in 18 s, and the last one ends 10 s later


def test_a_server_that_dies_twice_ends_it():
    probe = Probe(by="rate", load=1.0, kind="main", asked_by="--loads auto")
    dead = made.trial(Failed(reason="gone", server_died=True), probe)

    assert "crashed" == answer_now([dead, dead], virtual.SLA, RATE, "").evidence
