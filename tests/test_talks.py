"""Conversations: how long they are, whatever the server does, and what of them is remembered."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline import lengths, talks
from redline.model import Lengths, Workload
from redline.talks import Size, Talks, recent, turns_like

CHAT = Workload(name="w", prompt=Lengths(mean=50, cv=1.0), output=Lengths(mean=20, cv=0.5), turns=turns_like(4.0, 0.6))


@pytest.mark.parametrize(("mean", "cv"), [(4, 0.0), (1, 0.0), (4.0, 0.5), (1.2, 1.0), (8.0, 2.0)])
def test_the_mean_number_of_turns_is_known_exactly(mean, cv):
    turns = turns_like(mean, cv)
    drawn = lengths.sample(turns, 5, 0, 40_000, "turns")

    assert drawn.min() >= 1
    assert talks.mean_turns(turns) == pytest.approx(drawn.mean(), rel=0.02)
    assert talks.mean_turns(turns) == pytest.approx(mean, rel=0.25)


@given(st.integers(0, 2**31), st.integers(0, 10**6))
def test_the_sizes_of_a_conversation_are_fixed_by_the_seed_and_its_number(seed, conversation):
    sizes = talks.sizes(CHAT, seed, conversation)

    assert sizes == talks.sizes(CHAT, seed, conversation)
    assert len(sizes) == talks.turns_of(CHAT.turns, seed, conversation)
    assert len(sizes) <= CHAT.turns.high


def test_no_two_turns_have_a_number_in_common():
    numbers = [
        talks.number_of(CHAT.turns, conversation, turn)
        for conversation in range(50)
        for turn in range(talks.turns_of(CHAT.turns, 3, conversation))
    ]

    assert len(set(numbers)) == len(numbers)


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 60), st.one_of(st.none(), st.integers(1, 300)))
def test_the_latest_turns_that_fit_are_said_again(tokens, own, limit):
    said = [(None, each) for each in tokens]
    first = recent(said, own, limit)
    total = own + sum(tokens[first:])

    assert first == len(tokens) or limit is None or total <= limit
    assert first == 0 or total + tokens[first - 1] > limit


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 500), st.data())
def test_a_conversation_remembers_what_was_said_until_it_is_over(seed, conversation, data):
    begins = data.draw(st.integers(0, len(talks.sizes(CHAT, seed, conversation)) - 1))
    going_on = Talks(CHAT, seed, lambda number, size: f"made up {number}")
    sizes = talks.sizes(CHAT, seed, conversation)

    for turn in range(begins, len(sizes)):
        size, said = going_on.ask(conversation, turn)
        assert size == sizes[turn]
        assert [text for text, _ in said] == [
            f"made up {going_on.number_of(conversation, before)}" if before < begins else f"said {before}"
            for before in range(turn)
        ]
        assert going_on.goes_on(conversation, turn) == (turn + 1 < len(sizes))
        going_on.answered(conversation, turn, f"said {turn}", sum(size))
    assert len(going_on) == 0


def test_a_conversation_that_is_broken_off_is_forgotten():
    going_on = Talks(CHAT, 1, lambda number, size: size)
    going_on.ask(7, 0)
    going_on.end(7)

    assert len(going_on) == 0
    assert isinstance(going_on.ask(7, 0)[0], Size)


def test_prompts_of_different_turns_differ():
    prompts = np.array([size.prompt for c in range(200) for size in talks.sizes(CHAT, 3, c)])

    assert prompts.std() / prompts.mean() == pytest.approx(1.0, rel=0.25)
