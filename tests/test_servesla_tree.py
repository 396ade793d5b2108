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
RESULT = {
    "num_prompts": 40,
    "request_rate": 1.0,
    "completed": 40,
    "output_throughput": 160.0,
    "ttfts": [0.1],
    "errors": [""],
    "latencies": [0.2],
}


def read_as_vllms_plots_do(folder: Path, *group_by: str) -> list[tuple[float, float]]:
    """(tokens/s, users) of every run below a folder, by the rules of `vllm bench sweep plot` and `plot_pareto`.

    Every summary.json is a list of objects, each with whatever the figures are grouped by and a number of tokens per
    second. Users are max_concurrency, else request_rate, else max_concurrent_requests; the first that is there counts,
    unless it is null; a text must be a number.
    """
    found = []
    for run in [run for path in folder.rglob("**/summary.json") for run in json.loads(path.read_bytes())]:
        assert [] == [key for key in group_by if key not in run]
        asked = [run[key] for key in ("max_concurrency", "request_rate") if key in run][:1]
        users = [value for value in (*asked, run.get("max_concurrent_requests")) if value is not None]
        found.append((float(run["output_throughput"]), float(users[0])))
    return found


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


def test_vllms_plots_read_it_as_they_read_their_own(tmp_path: Path) -> None:
    made(tmp_path)

    assert {12, 0.75} == {users for _, users in read_as_vllms_plots_do(tmp_path, *PAIR.serve, *PAIR.bench)}
    assert 11 == len(read_as_vllms_plots_do(DATA / "complete", "max_concurrency"))


AXES = ("request_throughput", "p99_e2el_ms", "total_token_throughput", "median_ttft_ms")  # of 0.16 and 0.32, by default


@pytest.mark.parametrize(
    ("name", "variable", "load", "users"),
    [("bench_rate4", "request_rate", 4.0, 7.0), ("bench_inf_concurrency8", "max_concurrency", 8.0, 8.0)],
)
def test_vllms_plots_find_their_axes_and_the_users_in_what_vllm_measured(
    tmp_path: Path, name: str, variable: str, load: float, users: float
) -> None:
    """By rate max_concurrency is there and null, so that the most requests in flight are the users."""
    tree = Tree(folder=tmp_path, variable=variable)
    result = json.loads((DATA.parent / "vllm" / f"{name}.json").read_text())
    tree.finish(PAIR, load, [tree.run_object(result, PAIR, load, 0)])

    found = read_as_vllms_plots_do(tmp_path, *AXES, *PAIR.serve, *PAIR.bench)

    assert [(result["output_throughput"], users)] == found


def test_pandas_reads_the_table_as_it_reads_vllms_own(tmp_path: Path) -> None:
    """By its rules: an unnamed first column is the index; a cell is a number, else a text; an empty one is missing."""
    made(tmp_path)

    (names, *rows) = csv.reader((tmp_path / "summary.csv").read_text().splitlines())
    (theirs, *others) = csv.reader((DATA / "complete" / "summary.csv").read_text().splitlines())

    assert ["", "date", "num_prompts"] == names[:3]
    assert [str(number) for number in range(4)] == [row[0] for row in rows]
    assert {len(names)} == {len(row) for row in rows}
    assert (theirs[0], others[0][0]) == (names[0], rows[0][0])
    assert {12.0, 0.75} == {float(row[names.index("request_rate")]) for row in rows}


def test_a_table_of_vllms_runs_is_written_as_vllm_wrote_it() -> None:
    table = (DATA / "complete" / "summary.csv").read_text()
    runs = json.loads(next((DATA / "complete").glob("SLA--*.json")).read_text())

    assert table == table_of(runs)


def test_the_table_has_its_columns_in_order_of_first_appearance_and_empty_cells() -> None:
    assert ',a,b,c\n0,1,,\n1,,"[1, 2]",inf\n' == table_of([{"a": 1, "b": None}, {"b": [1, 2], "c": "inf"}])


NAMED = Pair(serve={"_benchmark_name": "s", "max_num_seqs": 4}, bench={"_benchmark_name": "b", "random_output_len": 16})


@pytest.mark.parametrize(
    ("pair", "folder"),
    [
        (NAMED, "SERVE--s-BENCH--b"),
        (PAIR, "SERVE--s-BENCH--random_output_len=16"),
        (Pair(serve={"_benchmark_name": "a/../b"}), "SERVE--a____b"),
        (Pair(bench={"b": 1}), "BENCH--b=1"),
        (Pair(), ""),
    ],
)
def test_later_versions_of_vllms_sweeps_name_a_folder_by_the_names_of_the_records(pair: Pair, folder: str) -> None:
    assert folder == pair.named_folder


def test_a_folder_by_name_is_read_too_and_what_is_new_goes_into_the_one_by_text(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / PAIR.folder).rename(tmp_path / PAIR.named_folder)
    tree = Tree(folder=tmp_path, variable="request_rate")

    points, notes = tree.read([PAIR])

    assert ([0.75, 12.0], ()) == ([point.load for point in points[PAIR.folder]], notes)
    assert "" == foreign(points[PAIR.folder][0], PAIR, "request_rate", {"num_prompts": 40})
    tree.finish(PAIR, 12.0, [tree.run_object(RESULT, PAIR, 12.0, 0)])
    assert (tmp_path / PAIR.folder / "request_rate=12" / "run=0.json").is_file()
    assert 5 == len(tree.runs_of(PAIR)) == len((tmp_path / "summary.csv").read_text().splitlines()) - 1


def test_a_name_that_is_the_text_of_another_pair_is_not_read_for_it(tmp_path: Path) -> None:
    other = Pair(serve={"_benchmark_name": "max_num_seqs=4"}, bench={"random_output_len": 16})
    made(tmp_path)
    tree = Tree(folder=tmp_path, variable="request_rate")

    points, _ = tree.read([PAIR, other])

    assert other.named_folder == PAIR.folder
    assert [2, 0] == [len(points[pair.folder]) for pair in (PAIR, other)]
    assert [] == tree.runs_of(other)


def test_a_point_that_is_measured_again_keeps_its_runs(tmp_path: Path) -> None:
    tree = made(tmp_path)
    again = Tree(folder=tmp_path, variable="request_rate")
    again.read([PAIR])

    assert 2 == len(again.runs_at(PAIR, 12.0))
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
