"""The examples with other clients, each with the real client, against the simulated server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from driving import BIN

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("REDLINE_REAL", Path.home() / ".cache" / "redline-real"))


@pytest.mark.parametrize("client", ["guidellm", "aiperf", "inference-perf"])
def test_the_example_of_a_client_measures_with_it(client: str, tmp_path: Path) -> None:
    if not (REAL / client / "bin" / client).exists():
        pytest.skip(f"{REAL / client} does not hold {client}")
    (tmp_path / "models").symlink_to(REAL / "models")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(REAL / client / "bin"), str(BIN), os.environ["PATH"]])

    done = subprocess.run(
        [sys.executable, "-m", "redline", "run", f"examples/{client}.toml", "--loads", "8", "--out", "out", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    (answer,) = json.loads(done.stdout)["answers"]
    assert (8, "records", None) == (answer["capacity"], answer["quality"], answer["error"])
    assert answer["requests"] >= 100
