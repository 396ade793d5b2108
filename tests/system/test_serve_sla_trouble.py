"""`redline serve-sla` when something breaks: benchmarks, servers, and the sweep itself."""

import re
import subprocess
from pathlib import Path

import pytest

from redline.process import table
from sweeping import argv_for, benchmarks, environment, here, params, starts, sweep
from waiting import gone, until

SEARCHES = ["redline", "legacy"]
BROKEN = {
    "exit": "exited with code 1",
    "nothing": "wrote no result|left no whole JSON",
    "empty": "no complete JSON|left no whole JSON",
    "half": "no complete JSON|left no whole JSON",
    "list": "holds a JSON list|left a list, not an object",
    "nan": "holds no number|says nothing about|have no number p90_e2el_ms",
}


def blocks(said: str) -> dict[str, str]:
    """What was said of each pair, by its folder."""
    found = re.findall(r"^\[SLA START\]\n(.*?)\n(.*?)^\[SLA END\]", said, re.DOTALL | re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_benchmark_that_breaks_is_a_failed_trial_and_the_sweep_goes_on(search: str, tmp_path: Path) -> None:
    records = [*({"broken": kind} for kind in BROKEN), {"slots": 4}]
    bench = params(tmp_path, "bench.json", records)

    done = sweep(tmp_path, "-e", "x", "--search", search, "--num-runs", "1", "--bench-params", bench)

    assert 1 == done.returncode, done.stderr
    said = blocks(done.stdout)
    assert len(records) == len(said)
    for kind, why in BROKEN.items():
        broken = said[f"BENCH--broken={kind}"]
        assert re.search(rf"^No result: .*({why})", broken, re.MULTILINE), broken
        assert "Maximum" not in broken
    assert "no such dataset" in said["BENCH--broken=exit"]  # the end of its log
    assert "Maximum request_rate for SLA: " in said["BENCH--slots=4"]
    assert 1 == len(starts(tmp_path))
    assert "bug" not in done.stderr


@pytest.mark.parametrize("search", SEARCHES)
def test_a_benchmark_that_hangs_is_ended(search: str, tmp_path: Path) -> None:
    limits = ("--sla-variable", "max_concurrency", "--bench-timeout", "1")

    done = sweep(tmp_path, "-e", "x", "--search", search, *limits, bench="--broken hang")

    assert 1 == done.returncode
    assert "did not end within 1 s (--bench-timeout)" in done.stdout


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("serve", "timeout_s", "why"),
    [
        ("--max-num-seqs many", "300", "server exited with code 2 before"),
        ("--faults.never-ready=true", "1", "not ready after 1 s"),
    ],
)
def test_a_server_that_is_never_ready_is_told(
    search: str, serve: str, timeout_s: str, why: str, tmp_path: Path
) -> None:
    done = sweep(tmp_path, "-e", "x", "--search", search, "--server-ready-timeout", timeout_s, serve=serve)

    assert 1 == done.returncode
    assert why in done.stdout
    assert "Maximum" not in done.stdout
    assert [] == benchmarks(tmp_path)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_server_that_does_not_start_costs_its_own_pairs_only(search: str, tmp_path: Path) -> None:
    serve = params(tmp_path, "serve.json", [{"max_num_seqs": "many"}, {"max_num_seqs": 16}])

    done = sweep(tmp_path, "-e", "x", "--search", search, "--num-runs", "1", "--serve-params", serve)

    said = blocks(done.stdout)
    assert 1 == done.returncode
    assert "exited with code 2" in said["SERVE--max_num_seqs=many"]
    assert "Maximum request_rate for SLA: " in said["SERVE--max_num_seqs=16"]
    assert ["many", "16"] == [line.split()[-1] for line in starts(tmp_path)]


RESETS = {"POST /reset_prefix_cache", "POST /reset_mm_cache", "POST /reset_encoder_cache"}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("more", "server", "resets"),
    [((), "vllm", True), (("--after-bench-cmd", "true"), "vllm", False), ((), "other", False)],
)
def test_caches_are_reset_between_benchmarks_of_vllm_unless_a_command_does_that(
    search: str, more: tuple[str, ...], server: str, resets: bool, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    (folder := tmp_path / "bin").mkdir()
    (folder / "other").symlink_to(folder / "vllm")
    flags = ("-e", "x", "--search", search, "--num-runs", "2", *more)
    argv = argv_for(tmp_path, *flags, serve=f"--seen {seen}", sla=[{"p90_e2el_ms": "<=40"}])  # soon found out
    at = argv.index("--serve-cmd") + 1
    argv[at] = argv[at].replace("vllm", server, 1)

    here(argv, tmp_path)

    asked = [line for line in seen.read_text().splitlines() if line.startswith("POST /reset")]
    assert (RESETS if resets else set()) == set(asked)
    assert len(asked) == len(benchmarks(tmp_path)) * len(RESETS) * resets
    assert len(benchmarks(tmp_path)) >= 2


def running(*words: str) -> list[int]:
    """The processes with one of these words in their command."""
    commands = {process.pid: table.command_line(process.pid) for process in table.table()}
    return [pid for pid, command in commands.items() if any(word in command for word in words)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads command lines in /proc")
@pytest.mark.parametrize("search", SEARCHES)
def test_what_a_killed_sweep_left_running_is_ended_by_the_next(search: str, tmp_path: Path) -> None:
    (hang := tmp_path / "hang").touch()
    asked = ("-e", "x", "--search", search, "--num-runs", "1")
    bench = f"--hang-while {hang}"
    driver = subprocess.Popen(
        argv_for(tmp_path, *asked, bench=bench),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: benchmarks(tmp_path), 60)
    driver.kill()
    driver.wait()
    left = running(f"--port {(tmp_path / 'port').read_text()} --max", str(tmp_path / "called"))
    assert 2 == len(left)  # the server and the benchmark
    hang.unlink()

    done = sweep(tmp_path, *asked, "--resume", bench=bench)

    assert 0 == done.returncode, done.stderr
    assert "stopped the server that an earlier run had left behind" in done.stderr
    assert all(str(pid) in done.stderr for pid in left)
    assert all(gone(pid) for pid in left)
    assert "Maximum request_rate for SLA: " in done.stdout


def test_two_sweeps_do_not_work_in_one_folder(tmp_path: Path) -> None:
    (hang := tmp_path / "hang").touch()
    asked = ("-e", "x", "--search", "legacy", "--num-runs", "1")
    driver = subprocess.Popen(
        argv_for(tmp_path, *asked, bench=f"--hang-while {hang}"),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: benchmarks(tmp_path), 60)
        done = sweep(tmp_path, *asked, "--resume", bench=f"--hang-while {hang}")
    finally:
        driver.terminate()
        driver.wait()

    assert 1 == done.returncode
    assert f"is in use by process {driver.pid}" in done.stderr
    assert 1 == len(starts(tmp_path))
