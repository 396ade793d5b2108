"""`redline serve-sla` as people call it: on the simulated server, with a benchmark that computes its result at once."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import fake_sweep
from driving import ENVIRONMENT, called
from redline.server.address import free_port

Done = subprocess.CompletedProcess[str]


def argv_for(folder: Path, *more: str, bench: str = "", serve: str = "", sla: object = None) -> list[str]:
    (folder / "sla.json").write_text(json.dumps(sla or [{"p90_e2el_ms": "<=300"}]))
    port = folder / "port"
    if not port.exists():
        port.write_text(str(free_port()))
    started, called = folder / "started", folder / "called"
    server = f"vllm serve --port {port.read_text()} --started {started} {serve}"
    client = f"vllm bench serve --num-prompts 200 --called {called} {bench}"
    words = ["--serve-cmd", server, "--bench-cmd", client, "--sla-params", str(folder / "sla.json")]
    return [sys.executable, "-m", "redline", "serve-sla", *words, "-o", str(folder / "results"), *more]


def environment(folder: Path) -> dict[str, str]:
    return {**ENVIRONMENT, "PATH": f"{fake_sweep.install(folder / 'bin')}{os.pathsep}{ENVIRONMENT['PATH']}"}


def params(folder: Path, name: str, data: object) -> str:
    (folder / name).write_text(json.dumps(data))
    return str(folder / name)


def starts(folder: Path) -> list[str]:
    return (folder / "started").read_text().splitlines() if (folder / "started").exists() else []


def benchmarks(folder: Path) -> list[str]:
    return (folder / "called").read_text().splitlines() if (folder / "called").exists() else []


def sweep(folder: Path, *more: str, **commands: object) -> Done:
    """One call, to its end, in this process."""
    argv = argv_for(folder, *more, **commands)  # type: ignore[arg-type]  # the parts of the commands
    return here(argv, folder)


def here(argv: Sequence[str], folder: Path) -> Done:
    """What `python -m redline` and these words would do in this folder, without a process for it."""
    return called(argv[3:], folder, PATH=environment(folder)["PATH"])
