"""`redline serve-sla` as people call it: the simulated server, and a benchmark that computes its result at once."""

import json
import operator
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from redline.api import open_experiment
from redline.server.address import free_port
from sweeping import Done, argv_for, benchmarks, environment, here, params, starts, sweep
from waiting import until

DATA = Path(__file__).parents[1] / "data" / "serve_sla"
Call = Callable[..., Done]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return partial(sweep, tmp_path)


def test_a_sweep_answers_writes_the_tree_and_is_not_repeated(call: Call, tmp_path: Path) -> None:
    bench = params(tmp_path, "bench.json", [{"slots": 4}, {"_benchmark_name": "eight", "slots": 8}])
    done = call("-e", "x", "--bench-params", bench)

    assert 0 == done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert ["[SLA START]", "BENCH--slots=4", "SLA criteria: p90_e2el_ms<=300.00"] == lines[:3]
    assert lines[3].startswith("Testing request_rate: ")
    assert lines[4].startswith("SLA criteria are met. (margin=-")
    assert any(line.startswith("SLA criteria are not met. (margin=") for line in lines)
    assert "[SLA END]" == lines[-1]
    carried = [float(line.split()[-2]) for line in lines if line.startswith("Maximum request_rate for SLA: ")]
    lone_s = 0.096  # what a request takes that is alone; of more at once each takes longer
    assert 20 < carried[0] < 4 / lone_s < carried[1] < 8 / lone_s
    assert ["1"] == [line.split()[0] for line in starts(tmp_path)]  # one server, in vLLM's development mode
    tree = tmp_path / "results" / "x"
    for slots in (4, 8):
        (file,) = (tree / f"BENCH--slots={slots}").glob("SLA--*")
        assert "SLA--p90_e2el_ms<=300.00.json" == file.name
        runs = json.loads(file.read_text())
        assert {slots} == {run["slots"] for run in runs}
        assert all("ttfts" not in run for run in runs)
        assert 3 == max(sum(r["request_rate"] == run["request_rate"] for r in runs) for run in runs)
    assert "eight" == json.loads(file.read_text())[0]["_benchmark_name"]
    assert all("--num-prompts 200" in words for words in benchmarks(tmp_path))
    assert all("--metric-percentiles 90,99" in words and "--save-detailed" in words for words in benchmarks(tmp_path))

    opened = open_experiment(tree / "redline")  # as `redline show` and `report` read it
    assert carried == [float(f"{a.capacity:.10g}") for a in opened.answers()]
    assert {"records"} == {answer.quality for answer in opened.answers()}

    before = {path: path.read_bytes() for path in tree.rglob("*.*") if "redline" not in path.parts and path.is_file()}
    assert tree / "summary.csv" in before
    count = len(benchmarks(tmp_path))
    again = call("-e", "x", "--bench-params", bench)
    assert 0 == again.returncode, again.stderr
    assert carried == [float(x.split()[-2]) for x in again.stdout.splitlines() if x.startswith("Maximum")]
    assert 1 == len(starts(tmp_path))
    assert count == len(benchmarks(tmp_path))
    assert before == {path: path.read_bytes() for path in before}
    assert not list((tree / "redline").rglob("summary.json"))  # plots read every one below the experiment's folder

    other = call("-e", "x", "--bench-params", bench, serve="--max-num-seqs 8")
    assert 2 == other.returncode
    assert "holds another experiment" in other.stderr
    assert "keep this one elsewhere with -e NAME" in " ".join(other.stderr.split())


def test_concurrency_is_searched_up_to_what_the_prompts_keep_in_flight(call: Call) -> None:
    done = call(
        "-e", "x", "--sla-variable", "max_concurrency", bench="--num-prompts 40", sla=[{"p90_e2el_ms": "<=3e3"}]
    )

    assert 0 == done.returncode, done.stderr
    assert "Maximum max_concurrency for SLA: 20 req/s." in done.stdout
    assert "40 prompts keep at most 20 requests in flight; raise --num-prompts" in done.stdout


def test_nothing_is_answered_where_nothing_passes(call: Call) -> None:
    done = call("-e", "x", sla=[{"p90_e2el_ms": "<=40"}])

    assert 3 == done.returncode, done.stderr
    assert "No request_rate for SLA: none." in done.stdout
    assert "Maximum" not in done.stdout


def test_failures_count_although_the_sla_does_not_name_them(call: Call) -> None:
    done = call("-e", "x", bench="--fail-share 0.2")

    assert 0 != done.returncode
    assert "% of the requests failed)" in done.stdout
    assert "Maximum" not in done.stdout


def test_a_dry_run_says_what_would_run_and_starts_nothing(call: Call, tmp_path: Path) -> None:
    serve = params(tmp_path, "serve.json", {"a": {"max_num_seqs": 8}, "b": {"max_num_seqs": 16}})
    bench = params(tmp_path, "bench.json", [{"slots": 8}, {"slots": 16}])
    records = ("--serve-params", serve, "--bench-params", bench, "--link-vars", "max_num_seqs=slots")

    done = call("-e", "x", "--dry-run", *records)

    assert 0 == done.returncode, done.stderr
    assert 2 == done.stdout.count("Server command: VLLM_SERVER_DEV_MODE=1 vllm serve --port")
    assert "Pair: SERVE--max_num_seqs=8-BENCH--slots=8" in done.stdout
    assert "SERVE--max_num_seqs=8-BENCH--slots=16 is left out by --link-vars" in done.stdout
    assert "--request-rate {rate}" in done.stdout.replace("'", "")
    assert not (tmp_path / "results").exists()
    assert [] == starts(tmp_path)


def test_the_users_command_runs_after_each_benchmark(call: Call, tmp_path: Path) -> None:
    script = tmp_path / "after.sh"
    script.write_text(f"#!/bin/sh\necho cleaned | tee -a {tmp_path / 'after'}\n")
    script.chmod(0o755)

    done = call("-e", "x", "--after-bench-cmd", str(script), "--max-trials", "1", "--show-stdout")

    assert len(benchmarks(tmp_path)) == len((tmp_path / "after").read_text().splitlines()) > 2
    assert "cleaned" in done.stdout.splitlines()


def test_a_place_that_holds_something_else_is_refused_in_words_of_its_own_flags(call: Call, tmp_path: Path) -> None:
    (own := tmp_path / "results" / "x" / "redline").mkdir(parents=True)
    (own / "notes.txt").touch()

    done = call("-e", "x")

    assert 2 == done.returncode
    assert "choose a new directory with -e" in " ".join(done.stderr.split())


def test_the_time_of_a_pair_is_that_of_its_benchmarks_by_the_clock(call: Call, tmp_path: Path) -> None:
    short = call("-e", "x", "--max-trials", "1", "--max-time", "10ms")
    count = len(benchmarks(tmp_path))
    done = call("-e", "x", "--max-trials", "1", "--max-time", "60s")  # the first file alone speaks of a minute

    assert (4, 1) == (short.returncode, count), short.stderr
    assert "the time budget of 0.01 s was used up" in short.stdout
    assert 4 == done.returncode, done.stderr
    assert "the budget of 1 trial was used up" in done.stdout
    assert 3 < len(benchmarks(tmp_path))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--resume",), "--resume: which experiment?"),
        (("--resume", "gone"), "--resume: there is no experiment"),
        (("--num-runs", "0"), "--num-runs"),
        (("--serve-params", "gone.json"), "--serve-params gone.json: No such file"),
    ],
)
def test_flags_that_cannot_be_used_are_refused_before_anything_starts(
    call: Call, tmp_path: Path, more: tuple[str, ...], why: str
) -> None:
    done = call(*more)

    assert 2 == done.returncode
    assert why in done.stderr
    assert [] == starts(tmp_path)


def test_no_records_run_nothing(call: Call, tmp_path: Path) -> None:
    done = call("--serve-params", params(tmp_path, "serve.json", []))

    assert 0 == done.returncode
    assert "nothing runs" in done.stderr
    assert [] == starts(tmp_path)


# ---- resuming --------------------------------------------------------------------------------------------------------


def earlier(tmp_path: Path, name: str) -> Path:
    """A tree that vLLM's own sweep wrote."""
    return Path(shutil.copytree(DATA / name, tmp_path / "results" / "old"))


def test_a_tree_of_vllms_is_evidence_once_it_is_resumed(call: Call, tmp_path: Path) -> None:
    folder = earlier(tmp_path, "complete")
    torn = folder / "max_concurrency=5" / "summary.json"
    torn.write_text(torn.read_text()[:300])
    foreign = folder / "max_concurrency=10" / "summary.json"
    foreign.write_text(foreign.read_text().replace('"num_prompts": 40', '"num_prompts": 80'))
    asked = ("--sla-variable", "max_concurrency")
    sla = [{"p99_e2el_ms": "<=400", "p99_ttft_ms": "<=150"}]

    refused = call("-e", "old", *asked, bench="--num-prompts 40", sla=sla)
    done = call("--resume", "old", *asked, bench="--num-prompts 40", sla=sla)

    assert 2 == refused.returncode
    assert "add --resume" in refused.stderr
    assert done.returncode in (0, 4), done.stderr
    assert "max_concurrency=5 is ignored: summary.json is torn" in done.stderr
    assert "max_concurrency=10 is not used: num_prompts is 80, not 40" in done.stderr
    assert "max_concurrency=8192 is not used: 40 requests cannot keep 8192 in flight" in done.stderr
    assert "took over 5 points of an earlier sweep, as totals" in done.stderr
    opened = open_experiment(folder / "redline")
    (trials,) = opened.trials.values()
    taken = [trial for trial in trials if "from" in trial.facts]
    assert [1, 12, 13, 14, 18] == [trial.probe.load for trial in taken]
    assert all(trial.outcome.records is None for trial in taken)  # type: ignore[union-attr]
    (answer,) = opened.answers()
    assert any("only totals are known" in warning for warning in answer.warnings)
    table = (folder / "summary.csv").read_text().splitlines()
    assert len(table) - 1 == sum(
        len(json.loads(path.read_text())) for path in folder.rglob("summary.json") if path != torn
    )

    count = len(benchmarks(tmp_path))
    again = call("-e", "old", "--resume", *asked, bench="--num-prompts 40", sla=sla)
    assert count == len(benchmarks(tmp_path))
    assert again.stdout.splitlines()[-1] == "[SLA END]"


def test_a_point_that_a_kill_kept_from_the_tree_is_in_it_after_the_next_call(call: Call, tmp_path: Path) -> None:
    call("-e", "x", "--max-trials", "2")
    tree, count = tmp_path / "results" / "x", len(benchmarks(tmp_path))
    unwritten, unfinished, *_ = sorted(tree.glob("request_rate=*"))
    before = {path: path.read_text() for path in tree.glob("request_rate=*/*.json")}
    (target,) = tree.glob("SLA--*.json")
    runs = json.loads(target.read_text())

    shutil.rmtree(unwritten)
    (unfinished / "summary.json").unlink()
    target.write_text(json.dumps([run for run in runs if f"request_rate={run['request_rate']:.10g}" != unwritten.name]))
    again = call("-e", "x", "--max-trials", "2")

    assert "wrote 2 points into the tree that a kill had kept from it" in again.stderr
    assert count == len(benchmarks(tmp_path))
    assert before == {path: path.read_text() for path in tree.glob("request_rate=*/*.json")}
    order = operator.itemgetter("request_rate", "run_number")
    assert sorted(runs, key=order) == sorted(json.loads(target.read_text()), key=order)
    assert len(runs) == len((tree / "summary.csv").read_text().splitlines()) - 1
    assert "wrote" not in call("-e", "x", "--max-trials", "2").stderr


def test_what_a_kill_kept_from_the_table_is_in_it_after_the_next_call(call: Call, tmp_path: Path) -> None:
    call("-e", "x", "--max-trials", "2")
    table = tmp_path / "results" / "x" / "summary.csv"
    whole = table.read_text()
    table.write_text("".join(whole.splitlines(keepends=True)[:-1]))

    call("-e", "x", "--max-trials", "2")

    assert sorted(_runs_in(whole)) == sorted(_runs_in(table.read_text()))


def _runs_in(table: str) -> list[str]:
    return [row.partition(",")[2] for row in table.splitlines()]


def test_a_point_that_was_completed_is_not_told_as_ignored(call: Call, tmp_path: Path) -> None:
    call("-e", "x", "--max-trials", "1")
    summary, *_ = (tmp_path / "results" / "x").glob("request_rate=*/summary.json")
    summary.unlink()

    again = call("-e", "x", "--max-trials", "1", "--resume")

    assert "wrote 1 point into the tree" in again.stderr
    assert "is ignored" not in again.stderr
    assert summary.is_file()


def test_logs_may_be_a_link_elsewhere(call: Call, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (own := tmp_path / "results" / "x" / "redline").mkdir(parents=True)
    (own / "logs").symlink_to(elsewhere)

    done = call("-e", "x", "--max-trials", "1")
    lost, *_ = own.parent.glob("request_rate=*")
    shutil.rmtree(lost)
    again = call("-e", "x", "--max-trials", "1")

    assert 4 == done.returncode, done.stderr
    assert [*elsewhere.rglob("result.json")]
    assert "wrote 1 point into the tree" in again.stderr
    assert lost.is_dir()


def test_a_point_whose_results_are_gone_is_named(call: Call, tmp_path: Path) -> None:
    call("-e", "x", "--max-trials", "1")
    tree = tmp_path / "results" / "x"
    lost, *_ = sorted(tree.glob("request_rate=*"))
    shutil.rmtree(lost)
    for result in (tree / "redline" / "logs").rglob("result.json"):
        result.unlink()

    again = call("-e", "x", "--max-trials", "1")

    assert f"{lost} lacks trial" in again.stderr.replace("results/x", str(tree))
    assert 4 == again.returncode


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sees processes of the group in /proc")
def test_a_sweep_that_is_ended_leaves_nothing_running_and_goes_on(tmp_path: Path) -> None:
    argv = argv_for(tmp_path, "-e", "x")
    driver = subprocess.Popen(
        argv, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    until(lambda: len(benchmarks(tmp_path)) >= 3, 60)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=30)

    assert 130 == driver.returncode
    assert b"redline serve-sla" in err
    port = int((tmp_path / "port").read_text())
    done = here(argv, tmp_path)
    assert 0 == done.returncode, f"{port}: {done.stderr}"
    assert "Maximum request_rate for SLA: " in done.stdout


# ---- the original search ---------------------------------------------------------------------------------------------


def test_the_legacy_search_tries_what_vllms_did_and_reads_its_tree_back(call: Call, tmp_path: Path) -> None:
    asked = ("--search", "legacy", "--sla-variable", "max_concurrency", "--num-runs", "1", "-e", "x")
    sla = [{"p90_e2el_ms": "<=300"}]

    done = call(*asked, sla=sla)

    assert 0 == done.returncode, done.stderr
    tested = [int(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("Testing")]
    assert [8192, 1] == tested[:2]
    (answer,) = [line for line in done.stdout.splitlines() if line.startswith("Maximum")]
    assert 5 < int(answer.split()[-2]) < 20
    refused = call(*asked, sla=sla)
    again = call(*asked, "--resume", sla=sla)
    assert 2 == refused.returncode
    assert answer in again.stdout
    assert len(tested) == len(benchmarks(tmp_path))
    assert 1 == len(starts(tmp_path))


def test_the_legacy_search_answers_1_where_nothing_passes_and_stops_where_it_would_go_round(call: Call) -> None:
    nothing = call("--search", "legacy", "--num-runs", "1", "-e", "a", sla=[{"completed": ">=201"}])
    plateau = call(
        "--search", "legacy", "--num-runs", "1", "-e", "b", sla=[{"p90_e2el_ms": "<=300", "completed": ">=200"}]
    )

    assert "Maximum request_rate for SLA: 1 req/s." in nothing.stdout
    assert "1 is what this search says" in nothing.stderr
    assert "for ever: the search stops here" in plateau.stderr
    assert "Maximum request_rate for SLA: " in plateau.stdout


# ---- the guide -------------------------------------------------------------------------------------------------------

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "migrate-from-serve-sla.md"


def test_the_guide_is_followed_from_its_first_command_to_a_tree_of_vllms(tmp_path: Path) -> None:
    commands = [line for line in GUIDE.read_text().splitlines() if line.startswith("redline serve-sla ")]
    first, resumed = (shlex.split(line) for line in commands)
    params(tmp_path, "serve.json", [{"max_num_seqs": 64}])
    params(tmp_path, "bench.json", [{"slots": 4}])
    params(tmp_path, "sla.json", [{"p90_e2el_ms": "<=300"}])
    port = free_port()

    def followed(words: list[str], *more: str) -> Done:
        known = {"vllm serve Qwen/Qwen3-8B": f"vllm serve Qwen/Qwen3-8B --port {port}"}
        known["vllm bench serve --model Qwen/Qwen3-8B --dataset-name random --num-prompts 1000"] = (
            "vllm bench serve --num-prompts 1000"  # what the stand-in takes
        )
        return here([sys.executable, "-m", *(known.get(word, word) for word in words), *more], tmp_path)

    planned = followed(first, "--dry-run")
    measured = followed(first, "--max-trials", "3")
    again = followed(first, "--max-trials", "3")

    assert 0 == planned.returncode, planned.stderr
    assert "Pair: SERVE--max_num_seqs=64-BENCH--slots=4" in planned.stdout
    assert measured.returncode in (0, 4), measured.stderr
    assert again.returncode == measured.returncode
    assert "nothing was left to measure" in again.stderr
    assert (tmp_path / "results" / "first" / "summary.csv").is_file()
    assert ["--resume", "20251124_200733"] == resumed[-2:]
    looks = re.findall(r"`(redline (?:show|report) [^`]+)`", GUIDE.read_text())
    assert 2 == len(looks)
    assert all(followed(shlex.split(look)).returncode in (0, 4) for look in looks)
