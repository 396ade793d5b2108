"""The main job on a real vLLM: needs the folder that CONTRIBUTING.md describes, and several quiet minutes.

These tests check that whole answers come out, not how large they are: nobody knows the true capacity here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from driving import BIN

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("REDLINE_REAL", Path.home() / ".cache" / "redline-real"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    if not (REAL / "vllm" / "bin" / "vllm").exists() or not (REAL / "models" / "tiny-llama").exists():
        pytest.fail(f"{REAL} does not hold vllm/bin/vllm and models/tiny-llama: see CONTRIBUTING.md")
    (tmp_path / "models").symlink_to(REAL / "models")
    return tmp_path


def answers(place: Path, *argv: str) -> list[dict[str, Any]]:
    path = os.pathsep.join([str(REAL / "vllm" / "bin"), str(BIN), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "redline", *argv, "--json"],
        cwd=place,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1_800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["answers"]
    return found


@pytest.mark.parametrize("by", ["rate", "concurrency"])
def test_two_configurations_are_launched_searched_and_compared(place: Path, by: str) -> None:
    two, sixteen = answers(place, "run", str(ROOT / "examples" / "vllm-cpu.toml"), "--by", by, "--max", "400")

    for answer in (two, sixteen):
        assert answer["evidence"] == "edge"
        assert answer["low"] <= answer["capacity"] <= answer["high"]
    assert two["capacity"] < sixteen["capacity"]


def test_vllm_bench_serve_drives_the_search(place: Path) -> None:
    example = (ROOT / "examples" / "vllm-bench.toml").read_text()
    if os.geteuid() == 0:  # as the example advises where server and client share a few cores
        example = example.replace('"vllm bench serve', '"chrt --fifo 1 vllm bench serve')
    (place / "bench.toml").write_text(example)
    (answer,) = answers(place, "run", "bench.toml")

    assert answer["evidence"] == "edge"
    assert answer["quality"] == "records"
