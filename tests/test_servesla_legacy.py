"""The search of vLLM's serve_sla, against examples that were worked by hand from its description."""

from collections.abc import Callable

import pytest

from redline.servesla.legacy import answer, next_load


def tried(margin: Callable[[int], float], known: dict[int, float] | None = None) -> tuple[list[int], int]:
    """The loads that it tries in order, and its answer."""
    margins, loads = dict(known or {}), []
    while (load := next_load(margins)) is not None and load not in margins:
        loads.append(load)
        margins[load] = margin(load)
    return loads, answer(margins)


@pytest.mark.parametrize(
    ("margin", "loads", "found"),
    [
        # The curve through points of a line is the line. Its root, 100.5, is cut to 100; once that was tried, 101.
        (lambda load: load - 100.5, [8192, 1, 100, 101], 100),
        # A root on a whole number: 100 passes with 0; then 101 fails.
        (lambda load: load - 100.0, [8192, 1, 100, 101], 100),
        (lambda load: -1.0, [8192], 8192),
        (lambda load: 5.0, [8192, 1], 1),  # nothing passes, and it says 1
        # 1 passes and 2 fails: root of the line 1.5 -> 1, tried -> 2.
        (lambda load: load - 1.5, [8192, 1, 2], 1),
        # 8191 is the last to pass: root 8191.5.
        (lambda load: load - 8191.5, [8192, 1, 8191], 8191),
    ],
)
def test_the_loads_and_the_answer_are_those_worked_by_hand(
    margin: Callable[[int], float], loads: list[int], found: int
) -> None:
    assert (loads, found) == tried(margin)


def test_a_step_is_the_root_of_the_monotone_cubic() -> None:
    # Widths 1000 and 7191, slopes of the chords 0.002 and 99/7191 = 0.013767. Slope at 1001, by the weighted harmonic
    # mean: 24573 / (15382/0.002 + 9191/0.013767) = 0.0029399. At 1, by the rule for ends: (9191 x 0.002 - 1000 x
    # 0.013767) / 8191 = 0.0005634. With s = (x - 1) / 1000: -1 + 0.5634 s + 1.9334 s^2 - 0.4968 s^3 = 0 at s = 0.6308.
    assert 631 == next_load({1: -1.0, 1001: 1.0, 8192: 100.0})  # a line would say 501


def test_what_is_on_disk_comes_first() -> None:
    assert 1 == next_load({100: 1.0, 8192: 4.0})
    assert 8192 == next_load({1: -1.0, 100: 1.0})
    assert next_load({10: -1.0, 11: 1.0}) is None
    assert 10 == answer({10: -1.0, 11: 1.0})


def test_a_load_that_passes_above_one_that_fails_ends_it() -> None:
    margins = {1: -1.0, 20: 1.0, 50: -1.0, 8192: 1.0}

    assert next_load(margins) is None
    assert 50 == answer(margins)


def test_it_would_go_round_for_ever_where_margins_are_zero() -> None:
    margins = {1: -1.0, 5: 0.0, 6: 0.0, 8192: 1.0}

    assert 6 == next_load(margins)  # the first root, 5, was tried; 6 too
