import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made import died, drive, full, limited, records, search, shares, total, trial
from redline.model import (
    Answer,
    ClientEvidence,
    Failed,
    Goal,
    Invalid,
    Lengths,
    Measured,
    Probe,
    Stop,
    Trial,
    Workload,
)
from redline.search import answer_now, budget_note, next_job, next_step
from redline.search.belief import Belief
from redline.search.evidence import readings
from redline.search.state import state_of
from redline.simulate.profiles import PROFILES, Faults
from redline.simulate.session import VirtualSession
from redline.sla import parse_sla
from redline.verdict import judge, watcher

SLA = parse_sla("p90_ttft_ms<=300, p90_tpot_ms<=40")
RATE = Goal(precision=0.10)
CLOSED = Goal(by="concurrency", precision=0.10, min_load=1, max_load=8192)
SHORT = Workload(name="short", prompt=Lengths(mean=128), output=Lengths(mean=24))
DEMO_RATE, DEMO_CONCURRENCY = 55.2, 46  # what very long runs of the demo profile carry under SLA


def demo(workload: Workload = SHORT, **changes) -> VirtualSession:
    return VirtualSession(replace(PROFILES["demo"], **changes), workload)


@pytest.fixture(scope="module")
def searched() -> tuple[Answer, list[Trial]]:
    return search(demo(), SLA, RATE, seed=1)


# ---- whole searches on a simulated server ----------------------------------------------------------------------------


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    answers = [search(demo(), SLA, RATE, seed=seed)[0] for seed in range(20)]
    held = sum(1 for a in answers if a.low <= DEMO_RATE <= a.high)
    high = sum(1 for a in answers if a.capacity > 1.10 * DEMO_RATE)

    assert {"edge"} == {a.evidence for a in answers}
    assert 14 <= held
    assert 2 >= high


def test_in_closed_loop_too():
    answers = [search(demo(), SLA, CLOSED, seed=seed)[0] for seed in range(12)]
    held = sum(1 for a in answers if a.low <= DEMO_CONCURRENCY <= a.high)

    assert {"edge"} == {a.evidence for a in answers}
    assert all(a.capacity == int(a.capacity) for a in answers)
    assert all(0.9 * DEMO_CONCURRENCY <= a.capacity <= DEMO_CONCURRENCY for a in answers)
    assert 7 <= held  # a cliff between two numbers: the belief is smooth, and stays a little below


def test_an_edge_rests_on_a_trial_at_the_capacity_and_one_above(searched):
    answer, evidence = searched
    full_at = [t for t in evidence if t.outcome.stop.reason == "full" and t.probe.load >= 0.995 * answer.capacity]
    broken = [t for t in evidence if t.outcome.stop.reason in ("fail", "over") and t.probe.load > answer.capacity]

    assert "edge" == answer.evidence
    assert full_at
    assert broken
    assert answer.low <= answer.capacity <= answer.estimate <= answer.high
    assert ("precision reached", "p90_ttft_ms<=300", "rate") == (answer.stop_reason, answer.limiting, answer.variable)
    assert ["p90_tpot_ms<=40"] == list(answer.headroom)
    assert 300 >= answer.at_capacity["p90_ttft_ms"]
    assert (len(evidence), sum(len(t.outcome.records) for t in evidence)) == (answer.trials, answer.requests)


def test_resuming_from_any_prefix_gives_the_same_next_step(searched):
    answer, evidence = searched

    for number, measured in enumerate(evidence):
        again = [replace(t) for t in evidence[:number]]  # equal, but not the same objects: nothing is remembered
        assert measured.probe == next_step(again, SLA, RATE)
    assert answer == next_step([replace(t) for t in evidence], SLA, RATE)


def test_the_next_step_is_found_fast():
    trials = [full(float(x), 0.1 + (x - 50) / 100, n=2000, sla=SLA, seed=x) for x in range(45, 70)]
    began = time.process_time()
    next_step(trials, SLA, RATE)

    assert 1.0 > time.process_time() - began  # about .1 s; a slow machine is no failure


def test_a_server_that_holds_at_the_highest_load_allowed_is_a_floor():
    answer, _ = search(demo(), SLA, replace(RATE, max_load=30))

    assert ("floor", 30, 30, None) == (answer.evidence, answer.capacity, answer.low, answer.high)
    assert answer.estimate is None
    assert "highest load allowed" in answer.stop_reason


def test_a_bound_that_no_lone_request_keeps_ends_at_once_with_none():
    answer, evidence = search(demo(), parse_sla("p90_ttft_ms<=5"), RATE)

    assert ("none", None, 0, 0.01) == (answer.evidence, answer.capacity, answer.low, answer.high)
    assert "p90_ttft_ms<=5" == answer.limiting
    assert 6 >= len(evidence)


def test_in_closed_loop_a_bound_that_one_user_breaks_gives_none():
    answer, _ = search(demo(), parse_sla("p90_ttft_ms<=5"), CLOSED)

    assert ("none", None, 0, 1) == (answer.evidence, answer.capacity, answer.low, answer.high)


def test_a_server_that_carries_less_than_one_request_per_second_is_found():
    slow = demo(step_ms=2000.0, decode_us=0.0, prefill_us=0.0)
    answer, _ = search(slow, parse_sla("p90_ttft_ms<=6s"), replace(RATE, precision=0.15))

    assert "edge" == answer.evidence
    assert 0.4 < answer.capacity < 1.0


def test_times_per_token_alone_are_limited_by_the_queue_in_open_loop():
    answer, _ = search(demo(), parse_sla("p90_tpot_ms<=40"), RATE)

    assert "edge" == answer.evidence
    assert 50 < answer.capacity < 66
    assert "error_rate<=0.01" == answer.limiting


def test_times_per_token_alone_never_limit_a_closed_loop_of_enough_slots():
    answer, _ = search(demo(), parse_sla("p90_tpot_ms<=40"), replace(CLOSED, max_load=128))

    assert ("floor", 128) == (answer.evidence, answer.capacity)


def test_a_server_that_refuses_half_of_all_requests_is_told_in_its_own_words():
    answer, evidence = search(demo(faults=Faults(reject_every=2)), SLA, RATE)

    assert "none" == answer.evidence
    assert "error_rate<=0.01" == answer.limiting
    assert "requests failed" in answer.error
    assert "429" in answer.error
    assert 8 >= len(evidence)


def test_a_load_that_was_seen_to_hold_and_is_likely_to_is_given_when_the_time_is_over():
    goal = replace(RATE, max_time_s=45, precision=0.03)
    answer, evidence = search(demo(), SLA, goal)
    state = state_of(evidence, SLA, goal)

    assert "undecided" == answer.evidence
    assert answer.capacity is None or answer.capacity <= state.relied_on(state.belief)
    assert "time budget" in answer.stop_reason
    assert 45 + 1 >= sum(t.outcome.duration_s for t in evidence)
    assert answer.capacity is None or answer.capacity <= answer.high


@pytest.mark.parametrize(("limit", "words"), [({"max_trials": 3}, "3 trials"), ({"max_requests": 900}, "900 requests")])
def test_a_budget_ends_a_search_and_is_named(limit, words):
    answer, evidence = search(demo(), SLA, replace(RATE, precision=0.02, **limit))
    after = [t for t in evidence if t.probe.kind != "scout"]

    assert "undecided" == answer.evidence
    assert words in answer.stop_reason
    assert any("finer than a server repeats itself" in warning for warning in answer.warnings)
    assert 3 >= len(after) or "trials" not in words
    assert 900 >= sum(len(t.outcome.records) for t in after) or "requests" not in words


def test_a_budget_of_one_is_told_as_one():
    stopped = [
        search(demo(), SLA, replace(RATE, max_trials=1))[0],
        search(demo(), SLA, replace(RATE, max_requests=1))[0],
    ]

    trials, requests = (answer.stop_reason for answer in stopped)
    assert trials.startswith("the budget of 1 trial was used up (first looks not counted): the capacity is known to ±")
    assert trials.endswith("%, not to ±10%; raise --max-trials, or --precision")
    assert requests.startswith("the budget of 1 request leaves ")


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"max_time_s": 30}, "the time budget of 30 s leaves 30 s, and a load of 4 needs about "),
        ({"max_requests": 50}, "the budget of 50 requests leaves 50, and a load of 4 needs about "),
    ],
)
def test_a_listed_load_that_the_whole_budget_cannot_hold_says_what_it_needs(limit, words):
    answer = next_step([], parse_sla("p99_ttft_ms<=200"), Goal(loads=(4.0,), **limit))

    assert isinstance(answer, Answer)
    assert answer.stop_reason.startswith(words)
    assert answer.stop_reason.endswith("; not measured: 4")


def test_a_sustained_load_buys_an_exact_verdict():
    answer, evidence = search(demo(), SLA, replace(RATE, sustain_s=120))
    holds = [t for t in evidence if t.probe.kind == "hold"]

    assert "edge" == answer.evidence
    assert 119 <= holds[-1].outcome.duration_s
    assert holds[-1].probe.load >= 0.995 * answer.capacity
    assert "pass" == answer.verdict_at_capacity


def test_a_list_of_loads_is_measured_and_nothing_else():
    goal = replace(RATE, loads=(10.0, 30.0, 90.0))
    answer, evidence = search(demo(), SLA, goal)

    assert [("list", 10), ("list", 30), ("list", 90)] == [(t.probe.kind, t.probe.load) for t in evidence]
    assert ("undecided", 30) == (answer.evidence, answer.capacity)
    assert "all listed loads" in answer.stop_reason


def test_a_throughput_is_promised_together_with_a_latency():
    both = parse_sla("p90_ttft_ms<=300, request_throughput>=20")
    answer, _ = search(demo(), both, RATE)
    much = parse_sla("p90_ttft_ms<=300, request_throughput>=200")
    missed, _ = search(demo(), much, RATE)

    assert "edge" == answer.evidence
    assert 20 == pytest.approx(answer.feasible_from, rel=0.3)
    assert ("none", "request_throughput>=200") == (missed.evidence, missed.limiting)
    assert "short of 200" in missed.stop_reason


# ---- several SLAs ----------------------------------------------------------------------------------------------------


def test_a_capacity_rests_on_no_trial_of_another_sla_that_is_far_shorter_than_its_own():
    strict, loose = parse_sla("strict: p99_ttft_ms<=200"), parse_sla("loose: p90_ttft_ms<=200")
    short, long, own = (full(20, n=n, sla=sla, seed=n) for n, sla in ((401, loose), (900, loose), (400, strict)))

    assert [long, own] == [r.trial for r in state_of([short, long, own], strict, RATE).supported()]


def test_several_slas_share_what_was_measured():
    strict, loose = parse_sla("strict: p90_ttft_ms<=150"), parse_sla("loose: p90_ttft_ms<=1s")
    evidence: list[Trial] = []
    for number in range(80):
        job = next_job(evidence, [strict, loose], RATE)
        if isinstance(job, list):
            break
        sla, probe = job
        outcome = demo().measure(probe, watcher(probe, sla, evidence), number)
        evidence.append(trial(outcome, probe, number))
    scouts = [t for t in evidence if t.probe.kind == "scout"]
    alone = [search(demo(), sla, RATE)[1] for sla in (strict, loose)]

    assert ["strict", "loose"] == [a.sla for a in job]
    assert {"edge"} == {a.evidence for a in job}
    assert job[0].capacity < job[1].capacity
    assert len(scouts) < sum(1 for trials in alone for t in trials if t.probe.kind == "scout")


def test_another_sla_is_answered_from_what_is_stored(searched):
    _, evidence = searched
    answer = answer_now(evidence, parse_sla("p90_ttft_ms<=250"), RATE, "not measured further")

    assert answer.evidence in ("edge", "undecided")
    assert answer.low < DEMO_RATE


def test_nothing_measured_is_nothing_known():
    answer = answer_now([], SLA, RATE, "nothing is measured yet")

    assert ("undecided", None, None, None) == (answer.evidence, answer.capacity, answer.low, answer.high)
    assert "nothing is measured yet" == answer.stop_reason


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_server_that_died_once_is_tried_again():
    first = next_step([], SLA, RATE)

    assert first == next_step([died(first)], SLA, RATE)


def test_a_server_that_died_twice_is_crashed_below_that_load(searched):
    _, evidence = searched
    scouts = [t for t in evidence if t.probe.kind == "scout" or t.outcome.stop.reason == "full"]
    answer = next_step([*scouts, died(scouts[-1].probe, 90), died(scouts[-1].probe, 91)], SLA, RATE)

    assert isinstance(answer, Answer)
    assert ("crashed", scouts[-1].probe.load, "server exited") == (answer.evidence, answer.high, answer.limiting)
    assert answer.capacity is None or answer.capacity < scouts[-1].probe.load
    assert "exited with code 1" in answer.error


def test_a_server_that_dies_under_load_ends_as_crashed():
    answer, evidence = search(demo(faults=Faults(crash_above=20)), SLA, RATE)

    assert "crashed" == answer.evidence
    assert 2 == sum(isinstance(t.outcome, Failed) for t in evidence)


def test_a_client_that_gave_out_twice_is_the_limit(searched):
    _, evidence = searched
    known = [t for t in evidence if t.probe.kind == "scout"]
    probe = next_step(known, SLA, RATE)
    once = next_step([*known, limited(probe, 50)], SLA, RATE)
    answer = next_step([*known, limited(probe, 50), limited(probe, 51)], SLA, RATE)

    assert isinstance(once, Probe)
    assert isinstance(answer, Answer)
    assert ("client_limited", None) == (answer.evidence, answer.high)
    assert "client" in answer.stop_reason


def test_invalid_trials_count_against_the_client():
    probe = next_step([], SLA, RATE)
    dead = [trial(Invalid(reason="the load worker died"), probe, i) for i in range(2)]

    assert probe == next_step(dead[:1], SLA, RATE)
    assert "client_limited" == next_step(dead, SLA, RATE).evidence


def test_a_measurement_that_keeps_breaking_says_what_broke():
    probe = next_step([], SLA, RATE)
    broken = trial(Failed(reason="the command exited with code 2", log_tail="no such model"), probe)
    answer = next_step([broken, broken], SLA, RATE)

    assert probe == next_step([broken], SLA, RATE)
    assert isinstance(answer, Answer)
    assert "undecided" == answer.evidence
    assert ["code 2", "no such model"] == [w for w in ("code 2", "no such model") if w in answer.error]


def test_a_metric_that_the_command_does_not_report_is_named():
    answer = next_step([total(1.0, SLA, [{"mean_ttft_ms": 3.0, "completed": 12.0}], kind="scout")], SLA, RATE)

    assert isinstance(answer, Answer)
    assert "p90_ttft_ms" in answer.stop_reason
    assert "--metric-percentiles" in answer.error


def test_failures_that_the_command_does_not_count_are_no_matter_of_percentiles():
    sla = parse_sla("error_rate<=5%")
    answer = next_step([total(1.0, sla, [{"mean_ttft_ms": 3.0, "completed": 12.0}], kind="scout")], sla, RATE)

    assert isinstance(answer, Answer)
    assert "error_rate could not be measured" == answer.stop_reason
    assert "count the requests that failed" in answer.error
    assert "percentiles" not in answer.error


def test_the_totals_of_a_command_lead_to_an_answer_too():
    sla = parse_sla("p99_ttft_ms<=200")

    def command(probe, evidence, number):
        noise = math.exp(0.07 * np.random.default_rng(number).standard_normal())
        run = {
            "p99_ttft_ms": 200 * (probe.load / 60) ** 3 * noise,
            "mean_e2el_ms": 500.0,
            "completed": 1000.0,
            "failed": 0.0,
        }
        return Measured(stop=Stop(reason="ended", at_s=30), duration_s=30, aggregates=(run,))

    answer, _ = drive(command, sla, Goal(precision=0.1))

    assert ("edge", "aggregates", "undecided") == (answer.evidence, answer.quality, answer.verdict_at_capacity)
    assert answer.low < 60 < answer.high


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), by=st.sampled_from(["rate", "concurrency"]), slas=st.sampled_from(["p90", "p99"]))
def test_a_search_ends_on_contradictory_evidence(seed, by, slas):
    rng = np.random.default_rng(seed)
    sla = parse_sla(f"{slas}_ttft_ms<=200")
    goal = replace(RATE if by == "rate" else CLOSED, precision=0.05)

    def whatever(probe, evidence, number):
        reason = rng.choice(["full", "fail", "over", "budget"])
        found = records(int(rng.integers(1, 600)), min(probe.load, 1e3), after_s=float(rng.uniform(0, 20)))
        found = records(len(found), min(probe.load, 1e3), shares(len(found), rng.uniform(0, 1)))
        if probe.kind == "scout" and reason == "full":
            reason = "scouted"
        criterion = sla.criteria[0].text if reason == "fail" else None
        stop = Stop(reason=str(reason), at_s=found.observed_s, window_start_s=0.5, criterion=criterion)
        return Measured(stop=stop, duration_s=found.observed_s, records=found)

    answer, evidence = drive(whatever, sla, goal)

    assert answer.evidence in ("edge", "floor", "none", "undecided")
    assert 60 >= len(evidence)


@settings(max_examples=15, deadline=None)
@given(loads=st.lists(st.floats(0.5, 200), min_size=1, max_size=8), over=st.floats(0, 0.5), by=st.booleans())
def test_a_probe_stays_within_what_is_allowed(loads, over, by):
    goal = replace(CLOSED, min_load=2, max_load=50) if by else replace(RATE, min_load=2, max_load=50)
    trials = [
        full(round(x) or 1 if by else x, over, n=300, sla=SLA, seed=i, by=goal.by) for i, x in enumerate(sorted(loads))
    ]
    step = next_step(trials, SLA, goal)

    if isinstance(step, Probe):
        assert 2 <= step.load <= 50
        assert not by or step.load == int(step.load)
    else:
        assert step.low is None or step.low >= 0


# ---- words -----------------------------------------------------------------------------------------------------------


def test_a_budget_that_holds_no_two_trials_is_said_before_they_start():
    sla = parse_sla("p99_ttft_ms<=300")
    goal = replace(RATE, max_time_s=60)
    evidence = []
    step = next_step(evidence, sla, goal)
    while isinstance(step, Probe) and step.kind == "scout":
        evidence.append(trial(demo().measure(step, watcher(step, sla, evidence), len(evidence)), step, len(evidence)))
        step = next_step(evidence, sla, goal)

    assert budget_note(evidence, sla, replace(goal, max_time_s=600)) is None
    note = budget_note(evidence, sla, replace(goal, max_time_s=sum(t.outcome.duration_s for t in evidence) + 12))
    assert note is not None
    assert "percentiles up to about p9" in note
    assert "raise it" in budget_note(evidence, sla, replace(goal, max_requests=50))


def test_warnings_tell_what_an_answer_cannot_promise():
    measured = full(50.0, sla=SLA)
    found = replace(measured.outcome.records, tokens_out=np.full(2000, 15, np.int32))
    outcome = replace(measured.outcome, records=found, client=ClientEvidence(tokens_from_usage=False))
    short = replace(measured, outcome=outcome, warnings=("the server was busy before the first trial",))
    answer = answer_now([short, short], SLA, replace(RATE, precision=0.02), "stopped")

    assert [
        "a precision of 2% is finer than a server repeats itself: the interval may be too narrow",
        "outputs were 29% shorter than the workload asks for",
        "the server reports no usage: tokens were counted as one for each event",
        "the server was busy before the first trial",
    ] == list(answer.warnings)


# ---- what once went wrong --------------------------------------------------------------------------------------------


def test_one_slow_request_of_a_dozen_is_looked_at_again_before_the_server_is_given_up():
    sla = parse_sla("p95_ttft_ms<=300")
    probe = next_step([], sla, RATE)
    ttft_ms = np.full(12, 20.0)
    ttft_ms[5] = 450.0
    looks = [records(12, 1.0, ttft_ms, e2e_s=0.05), records(12, 1.0, e2e_s=0.05)]
    scouted = Stop(reason="scouted", at_s=12.0)
    slow, fine = (
        trial(Measured(stop=scouted, duration_s=12.0, records=look), probe, i) for i, look in enumerate(looks)
    )

    assert ("scout", 1.0) == ((again := next_step([slow], sla, RATE)).kind, again.load)
    assert next_step([slow, fine], sla, RATE).load > 1.0
    assert "none" == next_step([slow, slow, slow], sla, RATE).evidence


def test_limits_of_many_digits_are_kept_to():
    session = demo()
    top = search(session, SLA, replace(RATE, max_load=12.3456789), seed=1)[0]
    tight = parse_sla("p90_ttft_ms<=11")

    assert ("floor", 12.3456789) == (top.evidence, top.capacity)
    assert "none" == search(session, tight, replace(RATE, min_load=1.23456789), seed=1)[0].evidence


def test_a_budget_of_requests_does_not_cut_first_looks_short():
    answer, evidence = search(demo(), parse_sla("p90_e2el_ms<=20s"), replace(RATE, max_requests=600), seed=1)

    assert all(t.probe.max_requests is None for t in evidence if t.probe.kind == "scout")
    assert "undecided" == answer.evidence
    assert answer.low <= 75


def test_an_answer_stands_whatever_another_sla_measured_since(searched):
    found, evidence = searched
    lax = Probe(by="rate", load=300.0, kind="main", need={"p90_e2el_ms<=20000": 150}, asked_by="lax")
    deaths = [died(lax, 100 + i) for i in range(2)]

    again = next_step([*evidence, *deaths], SLA, RATE)

    assert found == replace(again, trials=found.trials, benchmark_s=found.benchmark_s)


def test_throughputs_alone_can_be_asked_of_what_another_sla_measured(searched):
    _, evidence = searched

    assert answer_now(evidence, parse_sla("request_throughput>=5"), RATE, "-").sla == "request_throughput>=5"


def test_gaps_that_were_not_kept_are_no_error():
    bare = replace(records(200, 10.0), gaps_us=np.zeros(0, np.int32), gap_offsets=np.zeros(0, np.int64))
    probe = Probe(by="rate", load=10.0, kind="main")
    seen = trial(Measured(stop=Stop(reason="ended", at_s=30.0), duration_s=30.0, records=bare), probe, 0)

    assert "undecided" == judge(seen, parse_sla("mean_itl_ms<=30"), 0.9).verdict


def test_a_listed_load_that_cannot_be_read_is_not_tried_for_ever():
    probe = Probe(by="rate", load=5.0, kind="list")
    empty = [trial(Measured(stop=Stop(reason="ended", at_s=1.0), duration_s=1.0), probe, i) for i in range(5)]

    assert isinstance(next_step(empty, SLA, replace(RATE, loads=(5.0,))), Answer)


@pytest.mark.parametrize("seed", range(4))
def test_a_load_that_was_sustained_is_the_answer(seed):
    answer, evidence = search(demo(max_num_seqs=4), SLA, replace(RATE, sustain_s=60), seed=seed)
    holds = [t for t in evidence if t.probe.kind == "hold"]

    assert "edge" == answer.evidence
    assert 1 <= len(holds) <= 3
    assert answer.capacity <= max(t.probe.load for t in holds)


def test_the_highest_load_allowed_is_sustained_too():
    answer, evidence = search(demo(), SLA, replace(RATE, max_load=20.0, sustain_s=30), seed=1)

    assert ("floor", 20.0) == (answer.evidence, answer.capacity)
    assert ["hold"] == [t.probe.kind for t in evidence if t.probe.kind == "hold"]


def test_users_who_pause_are_known_to_send_less():
    users, per_s = 20.0, 2.0  # an answer takes each of them one second, and then nine go by
    probe = Probe(by="concurrency", load=users, kind="main", need={c.text: 200 for c in SLA.criteria}, spread_s=5.0)
    found = records(200, per_s)
    seen = trial(Measured(stop=Stop(reason="full", at_s=found.observed_s), duration_s=found.observed_s,
                          client=ClientEvidence(), records=found), probe)  # fmt: skip

    state = state_of([seen], SLA, CLOSED)

    assert 200 / per_s < state.planned_s(probe) < 1.2 * 200 / per_s
    assert state.max_s(users, "main", probe.need) > 8 * 200 / per_s


@pytest.mark.parametrize(("at_80", "relied_on"), [(11.8, 11.0), (11.95, 12.0)])
def test_a_whole_load_is_relied_on_where_the_belief_reaches_it_all_but_a_tenth(at_80, relied_on):
    belief = Belief(grid=np.log([at_80 / 2, at_80, 2 * at_80]), cdf=np.array([0.0, 0.2, 1.0]), medians={})

    assert state_of([], SLA, CLOSED).relied_on(belief) == relied_on


def test_a_trial_that_was_hopeless_for_another_sla_tells_what_it_saw_of_this_one():
    other = parse_sla("p90_e2el_ms<=500")

    def read(over, kind):
        found = records(200, 20.0, shares(200, over), e2e_s=0.7)
        stop = Stop(reason="fail", at_s=found.observed_s, criterion="p90_e2el_ms<=500")
        probe = Probe(by="rate", load=20.0, kind=kind, need={c.text: 1 for c in other.criteria}, asked_by=other.name)
        return readings([trial(Measured(stop=stop, duration_s=found.observed_s, records=found), probe)], SLA)[0]

    broken = read(0.3, "main")

    assert [broken.role, broken.failed] == ["fail", "p90_ttft_ms<=300"]
    assert broken.tallies["p90_ttft_ms<=300"].k == 60
    assert read(0.02, "main").role == "silent"  # it was ended too early to speak well of anything
    assert read(0.3, "scout").role == "silent"
