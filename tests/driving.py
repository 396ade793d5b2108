"""Redline driven as a user drives it: its command line in a process of its own or in this one, and a server for it."""

import io
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import TracebackType

import pytest

from redline.cli import main

BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}  # with `redline` on it


def redline(
    *argv: str, cwd: Path, timeout_s: float = 90.0, largest_file: int | None = None
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; `largest_file` limits what it can write."""
    limit = None if largest_file is None else (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file,) * 2))
    return subprocess.run(
        [sys.executable, "-m", "redline", *argv],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env={**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1"},  # Python would keep half a module where a file is limited
        preexec_fn=limit,
        timeout=timeout_s,
        check=False,
    )


def called(argv: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, called in this directory."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        for name, text in {"PATH": ENVIRONMENT["PATH"], **environment}.items():
            patch.setenv(name, text)
        with pytest.raises(SystemExit) as end:
            main(list(argv))
    assert isinstance(end.value.code, int)
    return subprocess.CompletedProcess(list(argv), end.value.code, out.getvalue(), err.getvalue())


def redline_here(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The command in this process: exit code, stdout, stderr."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", ENVIRONMENT["PATH"])
        with pytest.raises(SystemExit) as end:
            main(list(argv))
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


def read_until(descriptor: int, text: bytes, deadline_s: float = 20.0) -> bytes:
    """What a terminal shows, up to this text."""
    seen, deadline = b"", time.monotonic() + deadline_s
    while text not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, seen.decode(errors="replace")
        seen += os.read(descriptor, 65536)
    return seen


class SimServer:
    """A simulated server that runs for the length of a `with`."""

    def __init__(self, *options: str) -> None:
        self._options = options

    def __enter__(self) -> "SimServer":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "redline", "sim-server", "--port", "0", *self._options],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "listens on" in line
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def answers(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
            return bool(reply.status == 200)

    def in_flight(self) -> int:
        """Requests that run or wait in it."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as reply:
            rows = [line.split() for line in reply.read().decode().splitlines() if not line.startswith("#")]
        return sum(int(float(row[-1])) for row in rows if "num_requests" in row[0])

    @contextmanager
    def busy(self, tokens: int) -> Iterator[None]:
        """A request of somebody else is being answered, for so many tokens."""
        body = {"model": "simulated", "prompt": "a", "max_tokens": tokens, "ignore_eos": True, "stream": True}
        request = urllib.request.Request(
            f"{self.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        reply = urllib.request.urlopen(request, timeout=30)  # returns with the first token
        reader = threading.Thread(target=reply.read)
        reader.start()
        try:
            yield
        finally:
            reader.join(30)
            reply.close()
