"""Every command that the README shows, and every example, is run."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fake_clients
import fake_vllm
from driving import ENVIRONMENT, SimServer, called
from redline.codec import load_experiment

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
SHORT = ("--loads", "80", "--max-requests", "160")  # one measurement of two seconds
EXTENT = {"find": (*SHORT, "--max-requests", "600"), "run": SHORT}  # of the README's commands; a p99 needs more
FENCES = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run(command: str, cwd: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A command as a user types it, where `vllm`, `guidellm` and `aiperf` are stand-ins."""
    (cwd / "models" / "tiny-llama").mkdir(parents=True, exist_ok=True)
    if not (cwd / "examples").exists():
        (cwd / "examples").symlink_to(ROOT / "examples")
    path = f"{fake_vllm.install(cwd / 'bin')}{os.pathsep}{ENVIRONMENT['PATH']}"
    fake_clients.install(cwd / "bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        modules = os.pathsep.join(filter(None, [str(ROOT / "examples"), ENVIRONMENT.get("PYTHONPATH", "")]))
        return called([*shlex.split(command), *more], cwd, PATH=path, PYTHONPATH=modules)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_runs_on_the_simulated_server(example: Path, tmp_path: Path) -> None:
    done = run(f"run {example}", tmp_path, *SHORT, "--out", "out", "--json", "-q")

    assert done.returncode in (0, 4), done.stderr
    answers = json.loads(done.stdout)["answers"]
    assert len(load_experiment(example).servers) == len(answers)
    assert all(answer["requests"] >= 20 and answer["error"] is None for answer in answers)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_can_be_planned(example: Path, tmp_path: Path) -> None:
    done = run(f"plan {example}", tmp_path)

    assert done.returncode == 0, done.stderr
    for config in load_experiment(example).servers:
        assert config.name in done.stdout


def commands_of(document: Path) -> list[str]:
    """The commands in its code blocks."""
    lines = [line.removeprefix("$ ") for block in FENCES.findall(document.read_text()) for line in block.splitlines()]
    return [line for line in lines if re.match(r"(redline|make|pip) ", line)]


def test_every_command_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    seen = []
    with SimServer() as server:
        for command in commands_of(ROOT / "README.md"):
            tool, _, rest = command.partition(" ")
            if tool == "make":
                make = subprocess.run(["make", "-n", rest], cwd=ROOT, capture_output=True, text=True, check=True)
                assert ("redline demo" if rest == "demo" else "pytest") in make.stdout
            elif tool == "redline":
                rest = rest.replace("http://localhost:8000", server.url)
                done = run(rest, tmp_path, *EXTENT.get(rest.split()[0], ()))
                assert done.returncode in (0, 4), f"{command}\n{done.stderr}"
            seen.append(f"{tool} {rest.split()[0]}")
    assert {"make demo", "redline find", "redline run", "redline show", "redline report", "pip install"} <= set(seen)
    assert (tmp_path / "redline-results" / "vllm-cpu" / "report.html").is_file()


def test_every_command_on_measuring_one_load_works(tmp_path: Path) -> None:
    with SimServer() as server:
        for command in commands_of(ROOT / "docs" / "how-to" / "measure-one-load.md"):
            rest = command.removeprefix("redline ").replace("http://localhost:8000", server.url)
            done = run(rest, tmp_path, "--seed", "1", "--duration", "1s", "--workload", "random:in=16,out=8")
            assert done.returncode in (0, 4), f"{command}\n{done.stderr}"
    assert {"result.json", "requests.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_the_built_wheel_holds_what_the_program_needs(tmp_path: Path) -> None:
    build = ["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    subprocess.run([sys.executable, *build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, timeout=100)

    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src"
    needed = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert needed <= held
