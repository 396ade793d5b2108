import _thread
import json
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redline.bench import CommandSession
from redline.model import CommandWorkload, Endpoint, Failed, Invalid, Measured, Outcome, Probe, RedlineError, UsageError

DATA = Path(__file__).parents[1] / "data" / "vllm"
ENDPOINT = Endpoint(url="http://127.0.0.1:1234", model="a model; with $(signs)")

Measure = Callable[..., Outcome]


def never(records: object) -> None:
    raise AssertionError("watch is never called for a command")


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """Measure with a Python script as the benchmark command; `argv` follows it."""

    def measure(script: str, *argv: str, timeout_s: float = 20.0, probe: Probe | None = None) -> Outcome:
        path = tmp_path / "bench.py"
        path.write_text(textwrap.dedent(script))
        command = (sys.executable, str(path), *argv)
        workload = CommandWorkload(name="external", command=command, reader="vllm", timeout_s=timeout_s)
        session = CommandSession(ENDPOINT, workload, tmp_path / "logs")
        probe = probe or Probe(by="rate", load=16.0, kind="main", need={"p99_e2el_ms<=50": 60})
        return session.measure(probe, never, 7 + 2**40)

    return measure


COPY = f"import shutil, sys; shutil.copyfile({str(DATA / 'bench_rate16.json')!r}, sys.argv[1])"


def test_a_command_that_leaves_its_result_is_measured(measure: Measure) -> None:
    outcome = measure(COPY, "{result}")

    assert isinstance(outcome, Measured)
    assert outcome.records is not None
    assert 80 == len(outcome.records)
    assert "p99_ttft_ms" in outcome.aggregates[0]


def test_a_command_counts_against_budgets_by_the_clock(measure: Measure) -> None:
    began = time.monotonic()
    outcome = measure(COPY, "{result}")

    assert isinstance(outcome, Measured)
    assert 0 < outcome.duration_s <= time.monotonic() - began  # the file says how long its requests took: 5 s
    assert 4 < outcome.stop.at_s


def test_placeholders_are_filled_word_by_word_without_a_shell(measure: Measure, tmp_path: Path) -> None:
    words = ["{result}", "{url}", "--model={model}", "{rate}", "{requests}", "{seed}", "$HOME", "a b"]

    save = "import json, sys; json.dump(sys.argv[1:], open(sys.argv[1] + '.argv', 'w')); "

    outcome = measure(save + COPY, *words)

    assert isinstance(outcome, Measured)
    (saved,) = tmp_path.glob("logs/*/result.json.argv")
    result = str(saved).removesuffix(".argv")
    expected = [result, ENDPOINT.url, f"--model={ENDPOINT.model}", "16", "288", "7", "$HOME", "a b"]
    assert expected == json.loads(saved.read_text())


def test_concurrency_is_filled_as_a_whole_number(measure: Measure, tmp_path: Path) -> None:
    script = f"""
        import json, sys
        data = json.load(open({str(DATA / "bench_inf_concurrency8.json")!r}))
        assert sys.argv[2:] == ["8", "166"], sys.argv
        json.dump(data, open(sys.argv[1], "w"))
    """
    probe = Probe(by="concurrency", load=8.0, kind="main")

    assert isinstance(measure(script, "{result}", "{concurrency}", "{requests}", probe=probe), Measured)


def test_a_trial_never_takes_the_result_of_an_earlier_one_for_its_own(measure: Measure, tmp_path: Path) -> None:
    first = measure(COPY, "{result}")
    second = measure("print('wrote nothing')", "{result}")

    assert isinstance(first, Measured)
    assert isinstance(second, Failed)
    assert 1 == len(list(tmp_path.glob("logs/*/result.json")))


@pytest.mark.parametrize(
    ("script", "why", "tail"),
    [
        ("import sys; print('no such model'); sys.exit(3)", "exited with code 3", "no such model"),
        ("import os; print('bye', flush=True); os.kill(os.getpid(), 9)", "was ended by signal 9", "bye"),
        ("print('did nothing')", "wrote no result", "did nothing"),
        ("import sys; open(sys.argv[1], 'w').write('{\"completed\": 8')", "no complete JSON", ""),
        ("import sys; open(sys.argv[1], 'w').write('nonsense')", "no complete JSON", ""),
        (
            "import json, sys; json.dump({'completed': 9, 'failed': 0, 'duration': 1.0, 'request_rate': 16, "
            "'mean_ttft_ms': float('nan')}, open(sys.argv[1], 'w'))",
            "holds no number on any request",
            "",
        ),
    ],
)
def test_a_broken_command_is_a_failed_trial_with_the_end_of_its_log(
    measure: Measure, script: str, why: str, tail: str
) -> None:
    outcome = measure(script, "{result}")

    assert isinstance(outcome, Failed)
    assert why in outcome.reason
    assert tail in outcome.log_tail
    assert not outcome.server_died
    assert outcome.duration_s > 0


def test_a_result_without_the_needed_metric_says_how_to_get_it(measure: Measure) -> None:
    probe = Probe(by="rate", load=16.0, kind="main", need={"p99.9_ttft_ms<=50": 60})

    outcome = measure(COPY, "{result}", probe=probe)

    assert isinstance(outcome, Failed)
    assert "says nothing about p99.9_ttft_ms" in outcome.reason
    assert "--save-detailed" in outcome.reason


def test_a_command_that_ran_another_load_is_invalid(measure: Measure) -> None:
    outcome = measure(COPY, "{result}", probe=Probe(by="rate", load=32.0, kind="main"))

    assert isinstance(outcome, Invalid)
    assert "ran at 16 requests/s, not 32" in outcome.reason


def test_too_few_requests_for_the_concurrency_are_not_even_tried(measure: Measure, tmp_path: Path) -> None:
    probe = Probe(by="concurrency", load=100.0, kind="main", max_requests=150)

    assert isinstance(measure(COPY, "{result}", probe=probe), Invalid)
    assert not list(tmp_path.glob("logs/*"))


HANG = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(sys.argv[1] + ".pids", "w") as file:
        file.write(f"{os.getpid()} {child.pid}\\n")
    time.sleep(600)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_of(folder: Path, deadline_s: float = 20.0) -> list[int]:
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        for path in folder.glob("*/result.json.pids"):
            if text := path.read_text():
                return [int(pid) for pid in text.split()]
        time.sleep(0.01)
    raise AssertionError("the command did not start")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_command_that_hangs_is_stopped_with_all_its_processes(measure: Measure, tmp_path: Path) -> None:
    outcome = measure(HANG, "{result}", timeout_s=4.0)

    assert isinstance(outcome, Failed)
    assert "did not end within 4 s (the workload's timeout_s)" in outcome.reason
    assert not any(running(pid) for pid in pids_of(tmp_path / "logs"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_an_interrupt_stops_the_command_with_all_its_processes(measure: Measure, tmp_path: Path) -> None:
    def interrupt() -> None:
        pids_of(tmp_path / "logs")
        _thread.interrupt_main()

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        measure(HANG, "{result}", timeout_s=60.0)
    watcher.join()

    assert not any(running(pid) for pid in pids_of(tmp_path / "logs"))


def test_a_command_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path) -> None:
    workload = CommandWorkload(name="external", command=("no-such-command", "{result}"), reader="vllm")
    session = CommandSession(ENDPOINT, workload, tmp_path)

    with pytest.raises(RedlineError, match="no-such-command"):
        session.measure(Probe(by="rate", load=1.0, kind="main"), never, 1)


def test_an_unknown_reader_is_refused_before_anything_runs(tmp_path: Path) -> None:
    workload = CommandWorkload(name="external", command=("true",), reader="sglan")

    with pytest.raises(UsageError, match="sglan"):
        CommandSession(ENDPOINT, workload, tmp_path)


def test_the_environment_reaches_the_command(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from outside")
    check = "import os; assert os.environ['OPENAI_API_KEY'] == 'from outside'; "

    assert isinstance(measure(check + COPY, "{result}"), Measured)
