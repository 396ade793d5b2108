"""What the totals of a command say on an error rate."""

import math

import pytest

from made import total
from redline.model import Goal
from redline.search.evidence import readings
from redline.search.state import state_of
from redline.sla import DEFAULT_ERROR_RATE, parse_sla

COUNTED = {"completed": 190.0, "failed": 10.0}
SILENT = {"completed": 200.0}


@pytest.mark.parametrize(
    ("runs", "n", "stat"),
    [
        ([COUNTED], 200, 0.05),
        ([COUNTED, COUNTED], 400, 0.05),
        ([COUNTED, SILENT], 200, 0.05),  # those that do not count say nothing, and least of all that none failed
        ([SILENT], 0, math.nan),
        ([SILENT, SILENT], 0, math.nan),
    ],
)
def test_an_error_rate_rests_on_the_runs_that_count_their_failures(
    runs: list[dict[str, float]], n: float, stat: float
) -> None:
    sla = parse_sla("error_rate<=6%")
    (reading,) = readings([total(8.0, sla, runs)], sla)
    (found,) = reading.tallies.values()

    assert (n, pytest.approx(stat, nan_ok=True)) == (found.n, found.stat)
    assert bool(n) == found.met
    assert bool(n) == reading.supports(sla.criteria)
    assert not reading.breaks(sla.criteria)


def test_the_error_rate_that_nobody_asked_for_is_unknown_and_stands_in_nobodys_way() -> None:
    sla = parse_sla("p90_ttft_ms<=300")
    (reading,) = readings([total(8.0, sla, [{**SILENT, "p90_ttft_ms": 100.0}])], sla)
    found = reading.tallies[DEFAULT_ERROR_RATE.text]

    assert math.isnan(found.stat)
    assert 0 == found.requests
    assert reading.supports(sla.criteria)


def test_totals_that_another_sla_asked_for_support_this_one_though_they_count_no_failures() -> None:
    sla, other = parse_sla("p90_ttft_ms<=300"), parse_sla("other: p90_ttft_ms<=200")
    seen = total(8.0, other, [{"completed": 500.0, "p90_ttft_ms": 100.0}])

    assert [seen] == [reading.trial for reading in state_of([seen], sla, Goal()).supported()]
