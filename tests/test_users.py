"""Who sends next: users who think, and come back in the order of their own times."""

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline import arrivals
from redline.model import Lengths, ThinkTime, Workload
from redline.talks import turns_like, turns_of
from redline.users import Users, pause_s

TURNS = st.sampled_from([None, turns_like(1, 0.0), turns_like(3, 0.0), turns_like(4.0, 0.7)])
THINKS = st.builds(ThinkTime, mean=st.floats(0.01, 100), cv=st.sampled_from([0.0, 0.3, 1.0, 2.0]))


def workload(**changes: object) -> Workload:
    return Workload(name="w", prompt=Lengths(mean=10), output=Lengths(mean=10), **changes)


def run(users: Users, response_s, until_s: float) -> list[tuple[float, float, int, int]]:
    """(due, answered, user, turn) of what is due until then, where request i takes response_s(i)."""
    pending: list[tuple[float, object]] = []
    sent: list[tuple[float, float, int, int]] = []
    while True:
        answered_s, turn = min(pending, default=(math.inf, None))
        if min(answered_s, users.due_s) > until_s:
            return sent
        if answered_s <= users.due_s:
            pending.remove((answered_s, turn))
            users.answered(turn, answered_s)
        else:
            turn = users.take()
            pending.append((turn.due_s + response_s(len(sent)), turn))
            sent.append((turn.due_s, pending[-1][0], turn.user, turn.number))


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 2.0])
def test_pauses_have_the_mean_and_the_variation_that_was_asked_for(cv):
    pauses = np.array([pause_s(ThinkTime(mean=2.0, cv=cv), 7, user, turn) for user in range(500) for turn in range(20)])

    assert pauses.mean() == pytest.approx(2.0, rel=0.06)
    assert pauses.std() / pauses.mean() == pytest.approx(cv, rel=0.08, abs=1e-9)


@settings(deadline=None)
@given(THINKS.filter(lambda think: think.cv > 0), st.integers(-5, 2**31), st.integers(0, 8000), st.integers(0, 60))
def test_a_pause_is_fixed_by_the_seed_the_user_and_the_turn(think, seed, user, turn):
    pause = pause_s(think, seed, user, turn)

    assert pause == pause_s(think, seed, user, turn)
    assert pause != pause_s(think, seed, user + 1, turn)
    assert pause != pause_s(think, seed, user, turn + 1)


@settings(deadline=None)
@given(THINKS, TURNS, st.integers(0, 99), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_order_of_the_answers_changes_no_pause_and_no_first_request(think, turns, seed, count, random):
    def trial(response_s):
        users = Users(workload(think_time_s=think, turns=turns), "concurrency", count, seed, 1.0)
        sent = run(users, response_s, 5 * think.mean + 5)
        ends = {(user, turn): end for _, end, user, turn in sent}
        return {(user, turn): due - ends.get(before(user, turn), 0.0) for due, _, user, turn in sent}

    def before(user, turn):
        return (user - count, turns_of(turns, seed, user - count) - 1) if turns and not turn else (user, turn - 1)

    fast, slow = trial(lambda i: 0.01), trial(lambda i: random.uniform(0.01, think.mean))

    common = fast.keys() & slow.keys()
    assert len(common) >= min(count, len(fast))
    for key in common:
        assert fast[key] == pytest.approx(slow[key], rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(
    st.one_of(st.none(), THINKS),
    TURNS,
    st.sampled_from(["rate", "concurrency"]),
    st.integers(0, 99),
    st.floats(0.02, 3),
)
def test_requests_are_due_in_ascending_order_whenever_answers_come(think, turns, by, seed, response_s):
    users = Users(workload(think_time_s=think, turns=turns), by, 6, seed, 2.0)
    due = [turn[0] for turn in run(users, lambda i: response_s * (1 + i % 3), 5.0)]

    assert due == sorted(due)


@given(st.integers(1, 30), st.integers(0, 99))
def test_a_user_who_waits_for_an_answer_is_not_due(count, seed):
    users = Users(workload(), "concurrency", count, seed, 1.0)
    turns = [users.take() for _ in range(count)]

    assert sorted(turn.user for turn in turns) == list(range(count))
    assert users.due_s == math.inf
    users.answered(turns[0], 9.0)
    assert users.take() == (9.0, turns[0].user, 1)


@pytest.mark.parametrize("cv", [0.0, 1.0, 2.0])
def test_users_who_think_come_at_a_steady_rate_from_the_beginning(cv):
    think, response_s, count = ThinkTime(mean=10.0, cv=cv), 0.1, 4000
    sent = run(Users(workload(think_time_s=think), "concurrency", count, 3, 0.1), lambda i: response_s, 30.0)
    per_s = np.histogram([due for due, *_ in sent], bins=15, range=(0, 30))[0] / 2

    assert per_s[1:] == pytest.approx(count / (think.mean + response_s), rel=0.12)


def test_users_who_do_not_think_start_spread_out():
    users = Users(workload(), "concurrency", 40, 9, 8.0)

    np.testing.assert_array_equal(arrivals.user_starts(40, 8.0, 9), [users.take().due_s for _ in range(40)])


@given(st.integers(1, 50), st.floats(0.1, 60), st.integers(0, 99))
def test_users_come_in_one_after_another_over_a_ramp_that_ends_at_0(count, ramp_s, seed):
    users = Users(workload(ramp_s=ramp_s), "concurrency", count, seed, 1.0)
    due = np.array([users.take().due_s for _ in range(count)])

    assert ((due >= -ramp_s) & (due <= 0)).all()
    np.testing.assert_array_equal(np.arange(count), np.floor((due + ramp_s) * count / ramp_s))


def test_an_open_loop_has_the_schedule_and_nobody_comes_back():
    users = Users(workload(), "rate", 20.0, 5)
    turns = []
    for _ in range(2000):
        turns.append(users.take())
        users.answered(turns[-1], turns[-1].due_s)

    due = np.concatenate(list(islice(arrivals.times(workload(), 20.0, 5), 2)))[:2000]
    np.testing.assert_array_equal(due, [turn.due_s for turn in turns])
    assert [(i, 0) for i in range(2000)] == [(turn.user, turn.number) for turn in turns]


# ---- conversations ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(TURNS.filter(bool), st.sampled_from(["rate", "concurrency"]), st.integers(0, 99), st.floats(0, 5))
def test_turns_follow_each_other_to_the_last_one(turns, by, seed, ramp_s):
    think = ThinkTime(mean=1.0, cv=1.0)
    users = Users(workload(think_time_s=think, turns=turns, ramp_s=ramp_s), by, 5, seed, 1.0)
    ends, last = {}, {}
    for due, end, user, turn in run(users, lambda i: 0.1, 20.0):
        assert turn < turns_of(turns, seed, user)
        if user in last:
            assert turn == last[user] + 1
            assert due == pytest.approx(ends[user] + pause_s(think, seed, user, turn - 1))
        else:
            assert turn == 0 or due <= 10.0  # met in its midst
        ends[user], last[user] = end, turn


def test_a_user_of_a_closed_loop_begins_the_next_conversation_after_the_last_turn():
    users = Users(workload(turns=turns_like(3, 0.0)), "concurrency", 2, 4, 1.0)
    seen = []
    for at in range(40):
        turn = users.take()
        seen.append((turn.user, turn.number))
        users.answered(turn, float(at))
    mine = [(user, number) for user, number in seen if user % 2 == 0]

    first = mine[0][1]
    assert [(2 * (i // 3), i % 3) for i in range(first, first + len(mine))] == mine


def test_a_conversation_whose_answer_fails_is_broken_off():
    turns = turns_like(5, 0.0)
    closed = Users(workload(turns=turns), "concurrency", 1, 4, 1.0)
    closed.answered(closed.take(), 7.0, ok=False)
    opened = Users(workload(turns=turns), "rate", 10.0, 4)
    first = opened.take()
    due_s = opened.due_s
    opened.answered(first, first.due_s, ok=False)

    assert (7.0, 1, 0) == closed.take()
    assert due_s == opened.due_s


@pytest.mark.parametrize("turns", [turns_like(4, 0.0), turns_like(3.0, 0.8)], ids=["alike", "various"])
@pytest.mark.parametrize("cv", [0.0, 1.0])
def test_requests_of_conversations_come_at_the_rate_from_the_beginning(turns, cv):
    load = workload(think_time_s=ThinkTime(mean=5.0, cv=cv), turns=turns)
    sent = run(Users(load, "rate", 40.0, 3), lambda i: 0.01, 120.0)
    per_s = np.histogram([due for due, *_ in sent], bins=6, range=(0, 120))[0] / 20

    assert per_s == pytest.approx(40.0, rel=0.25)
    assert per_s.mean() == pytest.approx(40.0, rel=0.08)


def test_a_ramp_of_conversations_grows_evenly_to_the_rate():
    load = workload(think_time_s=ThinkTime(mean=5.0, cv=1.0), turns=turns_like(4, 0.0), ramp_s=40.0)
    sent = run(Users(load, "rate", 100.0, 3), lambda i: 0.01, 40.0)
    per_s = np.histogram([due for due, *_ in sent], bins=8, range=(-40, 40))[0] / 10

    assert per_s[:4] == pytest.approx(100 * (np.arange(4) + 0.5) / 4, rel=0.3, abs=6)
    assert per_s[4:] == pytest.approx(100.0, rel=0.15)


@settings(deadline=None)
@given(TURNS, st.sampled_from(["rate", "concurrency"]), st.integers(1, 4), st.integers(0, 99), st.floats(0, 5))
def test_several_processes_share_the_users_among_them(turns, by, processes, seed, ramp_s):
    load = workload(think_time_s=ThinkTime(mean=1.0, cv=1.0), turns=turns, ramp_s=ramp_s)

    def sent(first, step):
        return run(Users(load, by, 7, seed, 1.0, (first, step)), lambda i: 0.1, 6.0)

    shares = [sent(process, processes) for process in range(processes)]
    assert sorted(sent(0, 1)) == sorted(row for share in shares for row in share)
    for process, share in enumerate(shares):
        assert {user % 7 % processes if by == "concurrency" else user % processes for _, _, user, _ in share} <= {
            process
        }
