"""Repeated searches are counted as they are, also those without an interval."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from repeat import agreement, ends, table  # after the path is set


def found(low: float | None, high: float | None, evidence: str = "edge") -> dict[str, object]:
    return {
        "evidence": evidence,
        "capacity": low,
        "low": low,
        "high": high,
        "trials": 9,
        "requests": 1200,
        "benchmark_s": 61.4,
        "stop_reason": "precision reached",
    }


def test_pairs_of_intervals_that_meet_are_counted():
    answers = [found(9.0, 11.0), found(10.0, 12.0), found(11.5, 13.0), found(None, None, "undecided")]

    assert agreement(answers).startswith("2 of 3 pairs of intervals overlap")
    assert (10.0, 12.0) == ends(answers)


def test_every_search_has_a_line():
    lines = table([found(9.0, 11.0), found(None, None, "undecided")])

    assert "| 1 | edge | 9 | 9 | 11 | 9 | 1,200 | 61 | precision reached |" in lines
    assert "| 2 | undecided | - | - | - | 9 | 1,200 | 61 | precision reached |" in lines
    assert "No two intervals to compare." == lines[-1]
