"""When is the client the limit: two unusable trials in a row, or a third of many."""

import pytest

from redline.model import Failed, Goal, Invalid, Measured, Outcome, Probe, Stop, Trial
from redline.search.state import client_limits, state_of
from redline.sla import parse_sla

SLA = parse_sla("p90_ttft_ms<=200")
GOOD = Measured(stop=Stop(reason="full", at_s=1), duration_s=1, aggregates=({"completed": 100.0},))
BAD = Invalid(reason="the client slept")
OUTCOMES: dict[str, Outcome] = {
    "g": GOOD,
    "b": BAD,
    "f": Failed(reason="x"),
    "s": Invalid(reason="stopped by the user"),
}


@pytest.mark.parametrize(
    ("course", "limited"),
    [("b", False), ("bb", True), ("bgb", False), ("bgbgg", False), ("gggbb", True), ("bfb", True), ("bsb", True)],
)
def test_two_unusable_trials_in_a_row_are_no_accident(course: str, limited: bool) -> None:
    assert limited is (len(limits(course)) >= 2)


def test_many_unusable_trials_are_no_accident_either() -> None:
    assert len(limits("gbgbgbgb")) >= 2
    assert len(limits("gbggggbggggbggggbgggg")) < 2


def limits(course: str) -> list[str]:
    trials = [
        Trial(
            id=str(n),
            case="c",
            probe=Probe(by="rate", load=1, kind="main"),
            seed=n,
            started="",
            outcome=OUTCOMES[letter],
        )
        for n, letter in enumerate(course)
    ]
    return client_limits(state_of(trials, SLA, Goal()))
