import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made import full, total
from redline.model import Goal, Measured, Stop, Trial
from redline.records import Status
from redline.search.belief import SHARE_SLOPES, Range, active, believe, words_on
from redline.search.evidence import readings
from redline.search.scouts import scout_ratio
from redline.sla import parse_sla

P90 = parse_sla("p90_ttft_ms<=200")
BOTH = parse_sla("p90_ttft_ms<=200, p90_tpot_ms<=60")
GOAL = Goal()
WIDE = Range(ok=20.0, bad=200.0)


def belief_of(trials, sla=P90, scouted=WIDE, goal=GOAL):
    return believe(readings(trials, sla), sla, scouted, goal)


def stopped(load: float, reason: str, criterion: str | None = None, sla=P90) -> Trial:
    made = full(load, 0.9, n=300, sla=sla)
    assert isinstance(made.outcome, Measured)
    stop = Stop(reason=reason, at_s=6.0, criterion=criterion)
    return replace(made, outcome=replace(made.outcome, stop=stop))


def curve(load: float, capacity: float, slope: float = 12.0) -> float:
    """The share over at this load."""
    return 1 / (1 + math.exp(-(math.log(0.1 / 0.9) + slope * math.log(load / capacity))))


def test_before_any_trial_the_belief_is_the_scouted_range():
    belief = belief_of([])

    assert 10 < belief.quantile(0.1) < 30
    assert 130 < belief.quantile(0.9) < 300
    assert {} == belief.medians


def test_trials_on_both_sides_close_in_on_the_capacity():
    trials = [full(x, curve(x, 60), sla=P90, seed=i) for i, x in enumerate((40, 50, 55, 58, 60, 63, 66, 72))]
    belief = belief_of(trials)

    assert 60 == pytest.approx(belief.quantile(0.5), rel=0.04)
    assert belief.quantile(0.05) < 60 < belief.quantile(0.95)
    assert 0.1 > belief.half


@settings(max_examples=20, deadline=None)
@given(load=st.floats(30, 150), over=st.floats(0, 0.3), better=st.floats(0.01, 0.2))
def test_fewer_requests_over_never_lower_the_belief(load, over, better):
    worse = belief_of([full(load, over, sla=P90)])
    good = belief_of([full(load, max(0.0, over - better), sla=P90)])

    assert good.quantile(0.5) >= worse.quantile(0.5) - 1e-6 or over > 0.3


def test_an_early_end_says_that_the_load_is_too_high_but_can_be_overruled():
    fluke = [stopped(50.0, "fail", "p90_ttft_ms<=200")]
    later = [full(x, curve(x, 80), sla=P90, seed=i) for i, x in enumerate((50, 60, 65, 70, 75))]

    assert 50 > belief_of(fluke).quantile(0.8)
    assert 65 < belief_of(fluke + later).quantile(0.5)


def test_the_grid_moves_when_the_belief_piles_up_at_its_edge():
    high = belief_of(
        [full(x, 0.0, sla=P90, seed=i, e2e_s=0.1) for i, x in enumerate(range(350, 400, 5))],
        scouted=Range(ok=5, bad=20),
    )
    low = belief_of([full(x, 0.6, sla=P90, seed=i) for i, x in enumerate((3, 4))], scouted=Range(ok=20, bad=40))

    assert 40 < high.quantile(0.5)
    assert 7 > low.quantile(0.5)


def test_calm_trials_say_the_less_the_more_requests_are_in_flight_until_some_were_over():
    def spread(over, e2e_s):
        belief = belief_of([full(50, over, sla=P90, seed=i, e2e_s=e2e_s) for i in range(3)])
        return math.log(belief.quantile(0.9) / belief.quantile(0.1)), belief.quantile(0.1)

    few, many = spread(0.0, 0.2), spread(0.0, 4.0)
    assert many[1] < 0.9 * few[1]
    few, many = spread(0.09, 0.2), spread(0.09, 4.0)
    assert few[0] < many[0] < 2 * few[0]


def test_of_other_slas_trials_by_rate_many_count_for_no_more_than_some():
    other, mine = parse_sla("other: p90_ttft_ms<=500"), parse_sla("mine: p90_ttft_ms<=200")

    def weights(by):
        trials = [full(50 + i, 0.02, sla=other, seed=i, by=by) for i in range(28)] + [full(60, 0.02, sla=mine, by=by)]
        return [word.weight for word in words_on(mine.criteria[0], readings(trials, mine), mine)]

    assert [0.5] * 28 + [1.0] == weights("rate")
    assert [1.0] * 29 == weights("concurrency")


def test_requests_over_the_bound_in_one_go_count_for_less_than_those_that_come_one_by_one():
    def made(bunched):
        trial = full(50, 0.08, n=1000, sla=P90)
        records = trial.outcome.records
        if bunched:
            records = replace(records, first_s=records.scheduled_s + np.sort(records.first_s - records.scheduled_s))
        return replace(trial, outcome=replace(trial.outcome, records=records))

    phi = {bunched: words_on(P90.criteria[0], readings([made(bunched)], P90), P90)[0].phi for bunched in (True, False)}
    assert phi[False] < 40
    assert phi[True] > 60


def test_the_belief_stays_near_the_loads_allowed():
    belief = belief_of([full(50, 0.0, sla=P90)], scouted=Range(ok=50, bad=None), goal=Goal(max_load=50))

    assert math.log(50) + 0.7 == pytest.approx(belief.grid[-1])
    assert 0.5 < belief.above(50)


def test_a_queue_that_grows_speaks_to_all_but_times_per_token():
    seen = readings([stopped(80.0, "over", sla=BOTH)], BOTH)

    assert ["beyond"] == [w.kind for w in words_on(BOTH.criteria[0], seen, BOTH)]
    assert [] == words_on(BOTH.criteria[1], seen, BOTH)


def test_an_early_fail_speaks_to_its_own_criterion_only():
    seen = readings([stopped(80.0, "fail", "p90_tpot_ms<=60", BOTH)], BOTH)

    assert [] == words_on(BOTH.criteria[0], seen, BOTH)
    assert [True] == [w.failed for w in words_on(BOTH.criteria[1], seen, BOTH)]


def test_an_early_fail_says_how_many_of_how_many_were_over_by_then():
    (word,) = words_on(P90.criteria[0], readings([hopeless(80.0, 0.5, 300, 0)], P90), P90)
    (far,) = words_on(P90.criteria[0], readings([hopeless(80.0, 0.9, 300, 0)], P90), P90)

    assert ("share", 300.0, 150.0) == (word.kind, word.n, word.k)
    assert "beyond" == far.kind  # so far off that only the sign counts


def test_a_mean_that_was_hopeless_counts_as_just_hopeless():
    mean = parse_sla("mean_ttft_ms<=100")
    made = [stopped(80.0, "fail", "mean_ttft_ms<=100", mean), full(80.0, 1.0, n=300, sla=mean)]
    assert isinstance(made[1].outcome, Measured)
    stop = Stop(reason="fail", at_s=6.0, criterion="mean_ttft_ms<=100")
    made[1] = replace(made[1], outcome=replace(made[1].outcome, stop=stop))
    words = words_on(mean.criteria[0], readings(made, mean), mean)

    assert [math.log(1.6)] * 2 == pytest.approx([w.distance for w in words])


def hopeless(load: float, over: float, n: int, seed: int) -> Trial:
    made = full(load, over, n=n, sla=P90, seed=seed)
    assert isinstance(made.outcome, Measured)
    stop = Stop(reason="fail", at_s=6.0, criterion="p90_ttft_ms<=200")
    return replace(made, outcome=replace(made.outcome, stop=stop))


def test_trials_that_were_hopeless_among_calm_ones_take_the_belief_down():
    calm = [full(50.0 + i, 0.05, n=300, sla=P90, seed=i) for i in range(6)]
    torn = belief_of([*calm, *(hopeless(52.0 + i, 0.9, 150, i) for i in range(2))])

    assert torn.quantile(0.5) < 0.9 * belief_of(calm).quantile(0.5)
    assert 53 > torn.quantile(0.05)


def test_trials_that_differ_more_than_each_does_within_widen_the_belief(monkeypatch):
    trials = [full(60.0, 0.2 * (i % 2), n=1000, sla=P90, seed=i) for i in range(6)]
    widened = belief_of(trials).half
    monkeypatch.setattr("redline.search.belief.TIMES", np.array([1.0]))
    monkeypatch.setattr("redline.search.belief.TIMES_PRIOR", np.array([1.0]))

    assert belief_of(trials).half < widened


def test_a_bound_that_the_load_hardly_moves_leaves_the_capacity_open():
    loads = (30, 45, 60, 80, 120)
    flat = belief_of([full(x, curve(x, 60, 0.7), n=4000, sla=P90, seed=i) for i, x in enumerate(loads)])

    assert 0.07 < flat.half
    assert flat.quantile(0.05) < 60 < flat.quantile(0.95)
    assert 0.7 == pytest.approx(SHARE_SLOPES[:2].mean(), abs=0.2)  # such a slope is one of those that it thinks of


def test_an_early_fail_speaks_to_another_sla_of_the_bounds_that_it_broke_and_not_of_those_it_kept():
    measured = stopped(80.0, "fail", "p90_ttft_ms<=200")
    roles = [
        readings([measured], parse_sla(text))[0].role
        for text in ("p90_ttft_ms<=100", "p90_ttft_ms<=600", "p99_ttft_ms<=200")
    ]

    assert ["fail", "silent", "fail"] == roles


def test_scouts_that_pass_or_pile_up_say_nothing_on_the_capacity():
    made = full(50.0, 0.0, n=12, sla=P90)
    passing = replace(made, probe=replace(made.probe, kind="scout"))
    queued = stopped(80.0, "over")
    queued = replace(queued, probe=replace(queued.probe, kind="scout"))

    assert [] == words_on(P90.criteria[0], readings([passing, queued], P90), P90)


def test_a_burst_at_the_end_of_a_first_look_is_no_queue_that_grows():
    calm = full(1.0, 0.0, n=21, sla=P90)
    assert isinstance(calm.outcome, Measured)
    due = np.concatenate([np.linspace(0, 4.5, 8), np.linspace(8.5, 9.9, 13)])
    found = calm.outcome.records
    assert found is not None
    late = due + 1.0 > 10.0
    found = replace(
        found,
        observed_s=10.0,
        scheduled_s=due,
        sent_s=due,
        first_s=due + 0.05,
        end_s=np.where(late, np.nan, due + 1.0),
        status=np.where(late, Status.RUNNING, Status.OK).astype(np.uint8),
    )
    scout = replace(
        calm,
        probe=replace(calm.probe, kind="scout"),
        outcome=replace(calm.outcome, records=found, stop=Stop(reason="scouted", at_s=10.0)),
    )
    (reading,) = readings([scout], P90)

    assert 1.0 > scout_ratio(reading, P90)


def test_the_error_rate_joins_when_something_fails_or_nothing_else_hears_the_queue():
    tokens = parse_sla("p90_tpot_ms<=60")
    names = {
        "good": [c.metric for c in active(readings([full(50, sla=P90)], P90), P90, GOAL)],
        "deaf": [c.metric for c in active([], tokens, GOAL)],
        "closed": [c.metric for c in active([], tokens, Goal(by="concurrency", min_load=1, max_load=8192))],
        "throughput": [c.metric for c in active([], parse_sla("request_throughput>=3"), GOAL)],
    }

    assert {
        "good": ["p90_ttft_ms"],
        "deaf": ["p90_tpot_ms", "error_rate"],
        "closed": ["p90_tpot_ms"],
        "throughput": ["error_rate"],
    } == names


def test_the_capacity_is_the_smallest_of_the_criterias():
    trials = [full(x, curve(x, 60), sla=BOTH, seed=i) for i, x in enumerate((45, 52, 60, 66))]
    belief = belief_of(trials, BOTH)

    assert "p90_ttft_ms<=200" == min(belief.medians, key=lambda text: belief.medians[text])


def test_totals_speak_as_far_as_a_command_lets_them():
    sla = parse_sla("p99_ttft_ms<=200")
    trials = [
        total(x, sla, [{"p99_ttft_ms": 200 * (x / 60) ** 3, "completed": 1000.0, "failed": 0.0}], number=i)
        for i, x in enumerate((40, 50, 55, 65, 70))
    ]
    belief = belief_of(trials, sla)

    assert 60 == pytest.approx(belief.quantile(0.5), rel=0.08)
    assert np.isfinite(belief.cdf).all()


def test_a_scout_ratio_is_infinite_where_it_was_hopeless():
    made = full(50.0, 0.9, n=30, sla=P90)
    scouting = replace(made, probe=replace(made.probe, kind="scout"))
    over = stopped(80.0, "over")

    assert [math.inf, math.inf] == [scout_ratio(r, P90) for r in readings([scouting, over], P90)]
