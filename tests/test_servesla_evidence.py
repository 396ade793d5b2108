import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from redline.model import Goal, Measured, Probe, Trial
from redline.search import next_step
from redline.servesla.evidence import Earlier, trials_from
from redline.servesla.parameters import Pair
from redline.servesla.tree import read_points
from redline.sla import parse_sla

COMPLETE = Path(__file__).parent / "data" / "serve_sla" / "complete"
Take = Callable[..., tuple[list[Trial], list[str]]]


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """What a tree of vLLM's with 40 prompts a run says to these SLAs; `change` is done to each run's file."""
    folder = shutil.copytree(COMPLETE, tmp_path / "tree")

    def take(*slas: str, change: Callable[[dict[str, object]], object] | None = None) -> tuple[list[Trial], list[str]]:
        for path in folder.rglob("run=*.json") if change else ():
            data = json.loads(path.read_text())
            change(data)
            path.write_text(json.dumps(data))
        points, _ = read_points(folder, "max_concurrency")
        earlier = Earlier(
            variable="max_concurrency", expected={"num_prompts": 40}, slas=[parse_sla(text) for text in slas]
        )
        numbers = itertools.count()
        return trials_from(points, Pair(), "case", earlier, lambda: str(next(numbers)))

    return take


def totals(trial: Trial) -> dict[str, float]:
    assert isinstance(trial.outcome, Measured)
    assert trial.outcome.records is None
    return dict(trial.outcome.aggregates[0])


def test_few_prompts_are_a_first_look_at_each_load_that_was_offered(take: Take) -> None:
    trials, notes = take("p99_ttft_ms<=150")

    assert [1, 5, 10, 12, 13, 14, 18] == [trial.probe.load for trial in trials]
    assert {"scout"} == {trial.probe.kind for trial in trials}
    assert 4 == len(notes)
    assert all("a load that was not offered is no evidence" in note for note in notes)


def test_what_an_earlier_sweep_measured_takes_nothing_from_the_time_budget(take: Take) -> None:
    trials, _ = take("p99_ttft_ms<=150")
    lasted_s = sum(trial.outcome.stop.at_s for trial in trials if isinstance(trial.outcome, Measured))

    step = next_step(
        trials, parse_sla("p99_ttft_ms<=150"), Goal(by="concurrency", min_load=1, max_load=20, max_time_s=lasted_s)
    )

    assert isinstance(step, Probe)


@pytest.mark.parametrize(
    ("slas", "missing"),
    [
        (("p90_ttft_ms<=150",), "p90_ttft_ms"),
        (("p99_ttft_ms<=150", "p90_tpot_ms<=20"), "p90_tpot_ms"),
        (("p90_e2el_ms<=400",), ""),  # the end-to-end latency of each request is in the file
        (("error_rate<=1%",), ""),
    ],
)
def test_a_first_look_that_does_not_tell_a_metric_is_named_and_not_taken_for_a_bad_one(
    take: Take, slas: tuple[str, ...], missing: str
) -> None:
    trials, notes = take(*slas)

    assert bool(missing) != bool(trials)
    assert (7 if missing else 0) == sum("say nothing about" in note and missing in note for note in notes)


def test_failures_that_a_file_does_not_count_are_not_known(take: Take) -> None:
    def forget(run: dict[str, object]) -> None:
        for key in ("failed", "num_prompts", "latencies"):
            run.pop(key, None)

    known, _ = take("p99_ttft_ms<=150")
    unknown, _ = take("p99_ttft_ms<=150", change=forget)
    undecided, notes = take("error_rate<=1%")

    assert 0 == totals(known[0])["error_rate"]
    assert "error_rate" not in totals(unknown[0])
    assert not undecided
    assert any("say nothing about error_rate" in note for note in notes)
