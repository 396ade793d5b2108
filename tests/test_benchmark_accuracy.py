"""The accuracy suite: its questions have their answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from cells import TRUTHS, cells, truth  # after the path is set


def test_every_question_has_its_truth_in_the_file_and_no_other_is_there():
    known = json.loads(TRUTHS.read_text())

    assert {cell.key for cell in cells()} == set(known)


def test_no_load_meets_a_bound_that_more_requests_break_in_stalls_than_it_allows():
    stalled = [cell for cell in cells(("8b-stalls",)) if (cell.by, cell.sla_set) == ("rate", "ttft99")]

    assert [truth(cell).capacity for cell in stalled] == [0.0]  # 190 ms, and 1 s in 50 nothing moves
