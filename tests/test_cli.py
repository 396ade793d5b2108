import os
import pty
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from driving import ENVIRONMENT, called, read_until, redline, redline_here
from redline import api


def _cpu_s(argv: list[str], env: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *argv], stdout=subprocess.DEVNULL, env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_little_cpu(tmp_path: Path) -> None:
    compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    compiled.pop("PYTHONDONTWRITEBYTECODE", None)
    _cpu_s(["-m", "redline", "--help"], compiled)  # compiles

    pairs = [(_cpu_s(["-m", "redline", "--help"], compiled), _cpu_s(["-c", "pass"], compiled)) for _ in range(6)]

    assert min(ours for ours, _ in pairs) - min(bare for _, bare in pairs) <= 0.150


def test_help_loads_nothing_heavy() -> None:
    commands = ["", "find", "bench", "run", "plan", "show", "report", "demo", "import", "serve-sla", "sim-server"]
    code = (
        "import sys\n"
        "from redline.cli import main\n"
        f"for command in {commands}:\n"
        "    try: main([*command.split(), '--help'])\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
        "    heavy = {'numpy', 'scipy', 'pydantic', 'rich', 'httptools', 'orjson'} & set(sys.modules)\n"
        "    assert not heavy, (command, heavy)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)

    assert done.returncode == 0, done.stderr
    assert len(commands) == done.stdout.count("Usage: redline")


def test_the_package_offers_find_run_and_open_experiment_and_imports_light() -> None:
    code = (
        "import redline, sys; assert 'numpy' not in sys.modules; "
        "print(redline.find, redline.run, redline.open_experiment)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["find"], "Missing argument 'URL'"),
        (["find", "http://127.0.0.1:1", "--by", "load"], "'load' is not one of 'rate', 'concurrency'"),
        (["find", "http://127.0.0.1:1", "--max-trials", "0"], "--max-trials"),
        (["sim-server", "--port", "http"], "--port"),
        (["sim-server", "stray"], "stray"),
        (["sim-server", "--max-num-seqs"], "--max-num-seqs"),
        (["sim-server", "--max-num-sqs", "4"], "did you mean max_num_seqs"),
        (["sim-server", "--profile", "dmo"], "did you mean demo"),
    ],
)
def test_a_mistyped_command_line_ends_with_code_2_and_says_where_help_is(
    argv: list[str], words: str, tmp_path: Path
) -> None:
    done = called(argv, tmp_path)

    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_no_command_at_all_shows_the_help(tmp_path: Path) -> None:
    done = called((), tmp_path)

    assert done.returncode == 2
    assert "Usage: redline" in done.stderr


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert redline("--version", cwd=tmp_path).stdout.startswith("redline 0.")


def test_a_server_elsewhere_is_not_driven_without_a_yes(tmp_path: Path) -> None:
    done = called(("find", "http://192.0.2.1:8000", "--sla", "p99_ttft_ms<=200", "--max", "50"), tmp_path)

    assert done.returncode == 2
    assert "192.0.2.1" in done.stderr
    assert "beyond its limit" in done.stderr
    assert "50 requests/s" in done.stderr
    assert "--yes" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_question_on_the_terminal_can_be_answered_with_no(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command = ["find", "http://192.0.2.1:8000", "--sla", "p99_ttft_ms<=200", "--out", "kept"]
    with subprocess.Popen(
        [sys.executable, "-m", "redline", *command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env=ENVIRONMENT,
    ) as process:
        os.close(slave)
        asked = read_until(master, b"Go on? [y/N]")
        os.write(master, b"n\n")
        assert 130 == process.wait(20)
    os.close(master)

    assert b"beyond its limit" in asked
    assert [] == list(tmp_path.iterdir())


def test_a_bug_is_one_paragraph_and_its_traceback_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(directory: Path) -> None:
        raise ZeroDivisionError("no trials")

    monkeypatch.setattr(api, "open_experiment", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    code, out, err = redline_here(("show", "somewhere"), capsys)

    assert (1, "") == (code, out)
    assert "this is a bug in Redline: ZeroDivisionError: no trials; please report it" in err
    assert "Traceback" not in err
    (log,) = tmp_path.iterdir()
    assert str(log) in err
    assert "Traceback" in log.read_text()


def test_several_experiments_are_shown_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = '[server]\nurl = "http://h"\n[workload.chat]\npreset = "chat"\n[sla]\nNAME = ["p99_ttft_ms<=200"]\n'
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "experiment.toml").write_text(text.replace("NAME", f"sla-{name}"))

    code, out, _ = redline_here(("show", "one", "two"), capsys)
    json_code, _, err = redline_here(("show", "one", "two", "--json"), capsys)

    assert 4 == code
    assert ["one:", "two:"] == [line for line in out.splitlines() if line in ("one:", "two:")]
    assert 2 == out.count("nothing was measured yet")
    assert (2, True) == (json_code, "name one of the 2 directories" in err)


def test_an_interrupt_prints_the_command_that_continues_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "carry_out", interrupted)
    command = ("find", "localhost:1", "--sla", "p90_ttft_ms<=5", "--header", "Authorization: Bearer xyz")

    code, out, err = redline_here((*command, "--out", str(tmp_path)), capsys)

    assert (130, "") == (code, out)
    assert f"kept in {tmp_path}. To continue (put what is hidden as *** back in):" in err
    assert "xyz" not in err
    assert (
        f"  redline find localhost:1 --sla 'p90_ttft_ms<=5' --header 'Authorization: Bearer ***' --out {tmp_path}"
        in err
    )
