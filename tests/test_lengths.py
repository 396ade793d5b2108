"""Token counts: the asked distribution, and the same for request i however they are drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline import lengths
from redline.model import Lengths

CHAT = Lengths(mean=200, cv=0.8, low=4, high=4096)


@given(
    seed=st.integers(0, 2**64 - 1), start=st.integers(0, 10_000), first=st.integers(0, 50), second=st.integers(0, 50)
)
def test_any_split_into_calls_gives_the_same_numbers(seed, start, first, second):
    whole = lengths.sample(CHAT, seed, start, first + second, "output")
    parts = [
        lengths.sample(CHAT, seed, start, first, "output"),
        lengths.sample(CHAT, seed, start + first, second, "output"),
    ]

    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_the_mean_and_the_variation_are_those_asked_for():
    tokens = lengths.sample(CHAT, 7, 0, 200_000)

    assert tokens.mean() == pytest.approx(200, rel=0.01)
    assert tokens.std() / tokens.mean() == pytest.approx(0.8, rel=0.02)


def test_prompts_and_outputs_are_independent():
    prompt = lengths.sample(CHAT, 7, 0, 50_000, "prompt")
    output = lengths.sample(CHAT, 7, 0, 50_000, "output")

    assert abs(np.corrcoef(prompt, output)[0, 1]) < 0.02


def test_seeds_and_their_neighbours_are_independent():
    one, two = (lengths.sample(CHAT, seed, 0, 50_000) for seed in (1, 2))

    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02


def test_all_counts_lie_within_the_cut():
    tokens = lengths.sample(Lengths(mean=100, cv=3, low=20, high=300), 1, 0, 10_000)

    assert (tokens.min(), tokens.max()) == (20, 300)


def test_no_variation_gives_the_mean_every_time():
    assert lengths.sample(Lengths(mean=24), 1, 5, 3).tolist() == [24, 24, 24]
