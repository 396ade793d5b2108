import json
import math
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

import fake_sweep
from redline.bench import Reading, read
from redline.model import Goal, Invalid, Measured, Probe, Trial
from redline.search.evidence import readings
from redline.servesla.parameters import Pair
from redline.servesla.runs import Benchmark, Runs, burst, hopeless, pooled, says_enough, too_few, with_first_load
from redline.servesla.tree import Tree
from redline.sla import parse_criterion, parse_sla

SLA = parse_sla("p90_e2el_ms<=300")
CRITERIA = SLA.criteria


def result(
    tmp_path: Path, rate: float, prompts: int, *, run: int = 1, detailed: bool = True, users: int | None = None
) -> Reading:
    """What one run of the computed queue, which carries 40 requests/s, says."""
    given = Namespace(
        request_rate=rate,
        max_concurrency=users,
        num_prompts=prompts,
        slots=4,
        fail_share=0.0,
        save_detailed=detailed,
        metric_percentiles="90,99",
        result_dir=f"run-{run}",
    )
    path = tmp_path / f"{rate}-{run}.json"
    path.write_text(json.dumps(fake_sweep.result(given)))
    return read("vllm", path)


def probe(rate: float, kind: str = "main") -> Probe:
    return Probe(by="rate", load=rate, kind=kind, need={c.text: 90 for c in CRITERIA}, asked_by=SLA.name)  # type: ignore[arg-type]


def test_several_runs_are_one_steady_row_of_requests(tmp_path: Path) -> None:
    runs = [result(tmp_path, 20.0, 200, run=run) for run in (1, 2, 3)]

    outcome = pooled(probe(20.0), runs)

    records = outcome.records
    assert records is not None
    assert 200 < len(records) < 600  # the second and third without their warm-up
    assert (np.diff(records.scheduled_s) >= 0).all()
    assert records.gap_offsets[-1] == len(records.gaps_us) == 9 * len(records)
    arrivals = len(records) / (records.scheduled_s[-1] - records.scheduled_s[0])
    assert abs(arrivals / 20.0 - 1) < 0.15
    assert 600 == outcome.client.sent
    assert (runs[0].duration_s + runs[1].duration_s + runs[2].duration_s) == outcome.duration_s


def test_the_pooled_runs_can_support_an_answer_that_one_cannot(tmp_path: Path) -> None:
    one = pooled(probe(20.0), [result(tmp_path, 20.0, 60)])
    three = pooled(probe(20.0), [result(tmp_path, 20.0, 60, run=run) for run in (1, 2, 3)])

    assert [False, True] == [says_enough(outcome, CRITERIA) for outcome in (one, three)]
    assert [False, True] == [supports(outcome) for outcome in (one, three)]


def supports(outcome: Measured) -> bool:
    trial = Trial(id="1", case="c", probe=probe(20.0), seed=0, started="", outcome=outcome)
    (reading,) = readings([trial], SLA)
    assert Goal().by == trial.probe.by
    return reading.supports(CRITERIA)


def test_totals_are_kept_run_by_run(tmp_path: Path) -> None:
    outcome = pooled(probe(20.0), [result(tmp_path, 20.0, 60, run=run, detailed=False) for run in (1, 2)])

    assert outcome.records is None
    assert 2 == len(outcome.aggregates)
    assert not says_enough(outcome, [parse_criterion("p99_e2el_ms<=300")])
    assert says_enough(outcome, CRITERIA)


def test_a_queue_that_grows_to_the_end_of_a_run_is_over(tmp_path: Path) -> None:
    assert "over" == pooled(probe(48.0), [result(tmp_path, 48.0, 5000)]).stop.reason
    assert "ended" == pooled(probe(20.0), [result(tmp_path, 20.0, 2000)]).stop.reason


def test_a_load_that_is_hopeless_is_run_once(tmp_path: Path) -> None:
    assert hopeless(probe(60.0), pooled(probe(60.0), [result(tmp_path, 60.0, 400)]), CRITERIA)
    assert not hopeless(probe(20.0), pooled(probe(20.0), [result(tmp_path, 20.0, 400)]), CRITERIA)
    totals = [result(tmp_path, 60.0, 400, detailed=False)]
    assert hopeless(probe(60.0), pooled(probe(60.0), totals), CRITERIA)


def test_a_burst_that_keeps_the_sla_is_no_evidence_and_one_that_breaks_it_is(tmp_path: Path) -> None:
    lax = [parse_criterion("p90_e2el_ms<=3000")]
    few = [result(tmp_path, 400.0, 20)]
    many = [result(tmp_path, 20.0, 200)]

    assert "that is a burst, and no load" in burst(probe(400.0), few, pooled(probe(400.0), few), lax)
    assert "" == burst(probe(400.0), few, pooled(probe(400.0), few), [parse_criterion("p90_e2el_ms<=100")])
    assert "" == burst(probe(20.0), many, pooled(probe(20.0), many), lax)


def test_twice_as_many_prompts_as_users_leave_half_of_them_to_judge(tmp_path: Path) -> None:
    users = Probe(by="concurrency", load=20.0, kind="main", need={c.text: 90 for c in CRITERIA})
    runs = [result(tmp_path, math.inf, 40, run=run, users=20) for run in range(5)]

    outcome = pooled(users, runs)

    assert outcome.records is not None
    assert 40 + 4 * 20 == len(outcome.records)
    assert says_enough(outcome, CRITERIA)


def test_runs_that_keep_the_criteria_but_are_too_few_are_no_evidence(tmp_path: Path) -> None:
    runs = [result(tmp_path, 20.0, 20, run=run) for run in (1, 2)]
    outcome = pooled(probe(20.0), runs)

    assert "2 runs of 20 prompts are too few for p90_e2el_ms<=300" in too_few(probe(20.0), runs, outcome, CRITERIA)
    assert "" == too_few(probe(20.0, "scout"), runs, outcome, CRITERIA)
    assert "" == too_few(probe(20.0), runs, outcome, [parse_criterion("p90_e2el_ms<=20")])


def test_the_first_look_lasts_about_a_minute() -> None:
    scout = Probe(by="rate", load=1.0, kind="scout")

    assert 16.67 == with_first_load(scout, 1000, 1e5).load
    assert 1.0 == with_first_load(scout, 40, 1e5).load
    assert 4.0 == with_first_load(scout, 1000, 4.0).load
    assert 1.0 == with_first_load(scout, None, 1e5).load
    assert 16.0 == with_first_load(Probe(by="concurrency", load=1.0, kind="scout"), 1000, 500).load


def running(tmp_path: Path, prompts: int, num_runs: int) -> Runs:
    words = f"{fake_sweep.SCRIPT} bench serve --num-prompts {prompts} --request-rate {{rate}}"
    return Runs(
        benchmark=Benchmark(
            pair=Pair(serve={}, bench={}),
            command=(sys.executable, *words.split()),
            percentiles=("90",),
            num_runs=num_runs,
        ),
        tree=Tree(folder=tmp_path / "tree", variable="request_rate"),
        directory=tmp_path,
        log_dir=tmp_path / "logs",
        between=lambda: None,
    )


def test_a_trial_lasts_as_long_as_its_runs_do_by_the_clock(tmp_path: Path) -> None:
    runs = running(tmp_path, 200, 2)

    began = time.monotonic()
    outcome = runs.measure(probe(20.0), lambda records: None, 1)

    assert isinstance(outcome, Measured)
    assert 2 == len(runs.objects)
    assert 0 < outcome.duration_s <= time.monotonic() - began  # the files speak of twenty seconds
    assert 15 < outcome.stop.at_s


def test_no_run_begins_once_the_time_is_over(tmp_path: Path) -> None:
    outcome = running(tmp_path, 400, 9).measure(replace(probe(20.0), max_s=0.0), lambda records: None, 1)
    few = running(tmp_path, 20, 9).measure(replace(probe(20.0), max_s=0.0), lambda records: None, 1)

    assert isinstance(outcome, Measured)
    assert 1 == len(outcome.aggregates)
    assert isinstance(few, Invalid)
    assert "1 runs of 20 prompts are too few" in few.reason
    assert "--max-time" in few.cure
