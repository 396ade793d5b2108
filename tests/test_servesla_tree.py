import csv
import json
import os
from pathlib import Path

import pytest

from redline.servesla.parameters import Pair
from redline.servesla.targets import targets_of
from redline.servesla.tree import Tree, foreign, read_points, table_of

DATA = Path(__file__).parent / "data" / "serve_sla"
PAIR = Pair(serve={"_benchmark_name": "s", "max_num_seqs": 4}, bench={"random_output_len": 16})
RESULT = {"num_prompts": 40, "request_rate": 1.0, "completed": 40, "ttfts": [0.1], "errors": [""], "latencies": [0.2]}


def read_as_vllms_plot_does(folder: Path) -> list[dict[str, object]]:
    """Every run object of every summary.json below a folder: what `vllm bench sweep plot` and `plot_pareto` read."""
    return [run for path in folder.rglob("**/summary.json") for run in json.loads(path.read_bytes())]


def made(folder: Path) -> Tree:
    tree = Tree(folder=folder, variable="request_rate")
    for load, date in ((12.0, "b"), (0.75, "a")):
        runs = [tree.run_object({"date": date, **RESULT}, PAIR, load, number) for number in range(2)]
        tree.finish(PAIR, load, runs)
    return tree


def test_the_tree_stands_as_vllms_sweep_made_it(tmp_path: Path) -> None:
    tree = made(tmp_path)
    (target,) = targets_of([{"p99_e2el_ms": "<=500"}])
    tree.write_target(PAIR, target)

    inside = "SERVE--max_num_seqs=4-BENCH--random_output_len=16"
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    points = {f"{inside}/request_rate={x}/{f}" for x in ("12", "0.75") for f in ("run=0.json", "run=1.json")}
    points |= {f"{inside}/request_rate={x}/summary.json" for x in ("12", "0.75")}
    assert points | {f"{inside}/SLA--p99_e2el_ms<=500.00.json", "summary.csv"} == names


def test_a_run_object_looks_as_people_know_it(tmp_path: Path) -> None:
    made(tmp_path)
    path = tmp_path / PAIR.folder / "request_rate=12" / "run=1.json"
    run = json.loads(path.read_text())

    assert path.read_text().startswith('{\n    "date"')
    assert {"ttfts", "errors"}.isdisjoint(run)
    assert [0.2] == run["latencies"]  # plain results have them too
    expected = {"run_number": 1, "_benchmark_name": "s", "max_num_seqs": 4, "random_output_len": 16, "request_rate": 12}
    assert expected == {key: run[key] for key in expected}
    assert isinstance(run["request_rate"], int)
    assert "ttfts" in Tree(folder=tmp_path, variable="request_rate").run_object(RESULT, PAIR, 1.0, 0, detailed=True)


def test_vllms_plots_and_pandas_read_it(tmp_path: Path) -> None:
    made(tmp_path)

    assert {12, 0.75} == {run["request_rate"] for run in read_as_vllms_plot_does(tmp_path)}
    rows = list(csv.reader((tmp_path / "summary.csv").read_text().splitlines()))
    assert ["", "date", "num_prompts"] == rows[0][:3]
    assert ["0", "1", "2", "3"] == [row[0] for row in rows[1:]]


def test_the_table_has_its_columns_in_order_of_first_appearance_and_empty_cells() -> None:
    assert ',a,b,c\n0,1,,\n1,,"[1, 2]",inf\n' == table_of([{"a": 1, "b": None}, {"b": [1, 2], "c": "inf"}])


def test_a_point_that_is_measured_again_keeps_its_runs(tmp_path: Path) -> None:
    tree = made(tmp_path)
    again = Tree(folder=tmp_path, variable="request_rate")
    again.read([PAIR])

    assert 2 == again.count(PAIR, 12.0)
    again.finish(PAIR, 12.0, [again.run_object(RESULT, PAIR, 12.0, 2)])
    assert [0, 1, 2] == [run["run_number"] for run in again.runs[tree.point_folder(PAIR, 12.0)]]


def test_a_target_or_table_is_never_emptied(tmp_path: Path) -> None:
    (target,) = targets_of([{"p99_e2el_ms": "<=500"}])
    tree = Tree(folder=tmp_path, variable="request_rate")
    (tmp_path / target.file_name).write_text("[1]")
    (tmp_path / "summary.csv").write_text("kept")
    tree.write_target(Pair(), target)
    tree.write_table()

    assert "[1]" == (tmp_path / target.file_name).read_text()
    assert "kept" == (tmp_path / "summary.csv").read_text()


def test_a_complete_tree_of_vllms_is_read() -> None:
    points, notes = read_points(DATA / "complete", "max_concurrency")

    assert [1, 5, 10, 12, 13, 14, 18, 66, 782, 3565, 8192] == [point.load for point in points]
    assert () == notes
    assert "" == foreign(points[0], Pair(), "max_concurrency", {"num_prompts": 40})


def test_of_an_interrupted_tree_a_run_without_a_summary_is_no_point() -> None:
    pair = Pair(serve={"max_num_seqs": 16}, bench={"random_output_len": 16})
    points, notes = read_points(DATA / "interrupted" / pair.folder, "max_concurrency")

    assert 8190 not in [point.load for point in points]
    assert 7 == len(points)
    (note,) = notes
    assert "max_concurrency=8190 is ignored: run=0.json, run=1.json without a summary.json" in note


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[{"run_number": 0', "torn or unreadable"),
        ("{}", "no list of run objects"),
        ("[]", "no list of run objects"),
        ("[1]", "no list of run objects"),
    ],
)
def test_a_file_that_is_no_summary_is_ignored_and_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "request_rate=3").mkdir()
    (tmp_path / "request_rate=3" / "summary.json").write_text(text)
    (tmp_path / "request_rate=fast").mkdir()

    points, notes = read_points(tmp_path, "request_rate")

    assert () == points
    assert why in notes[0]
    assert "fast is no load" in notes[1]


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ({}, ""),
        ({"max_num_seqs": 8}, "max_num_seqs is 8, not 4"),
        ({"num_prompts": 20}, "num_prompts is 20, not 40"),
        ({"request_rate": 13}, "request_rate is 13, not 12"),
        ({"run_number": None}, "no run_number"),
        ({"random_output_len": None}, "has no random_output_len"),
    ],
)
def test_runs_of_another_command_are_told_apart(tmp_path: Path, run: dict[str, object], why: str) -> None:
    changed = {**made(tmp_path).run_object(RESULT, PAIR, 12.0, 0), **run}
    left = {key: value for key, value in changed.items() if value is not None}
    (tmp_path / PAIR.folder / "request_rate=12" / "summary.json").write_text(json.dumps([left]))
    point = read_points(tmp_path / PAIR.folder, "request_rate")[0][-1]

    found = foreign(point, PAIR, "request_rate", {"num_prompts": 40})

    assert why in found
    assert bool(why) == bool(found)


def test_a_name_that_no_file_can_have_is_an_error_in_words(tmp_path: Path) -> None:
    long = Pair(serve={"x": "y" * (os.pathconf("/", "PC_NAME_MAX") + 1)})

    with pytest.raises(Exception, match="cannot write"):
        Tree(folder=tmp_path, variable="request_rate").finish(long, 1.0, [{"run_number": 0}])
