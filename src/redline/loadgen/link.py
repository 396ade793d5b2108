"""The driver's end of a load worker: starts the process, exchanges messages with it, ends it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from redline.loadgen import wire
from redline.loadgen.learning import Reply

SILENCE_S = 30.0  # a worker that reports each second and says nothing for so long is stuck
_LOOK_S, _ASK_S = 10.0, 120.0  # for a GET and a POST of preflight: a cold server may compile first
_EXIT_S = 5.0
_TAIL_BYTES = 2_000


class WorkerGoneError(Exception):
    """The worker died or hangs; the text says what is known."""


class Link:
    """The worker process: messages there and back, and its end."""

    def __init__(self, log: Path | None) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._decoder = wire.Decoder()
        self._received: list[wire.Message] = []
        self._log: IO[bytes] = (
            log.open("ab+") if log is not None else tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "redline.loadgen.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the driver's to handle
            )

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self._process.pid

    def send(self, kind: str, header: wire.Header, columns: wire.Columns | None = None) -> None:
        try:
            self._socket.settimeout(SILENCE_S)
            self._socket.sendall(wire.encode(kind, header, columns))
        except OSError as error:
            raise WorkerGoneError(self._last_words()) from error

    def fileno(self) -> int:
        """Of our end, to wait for several workers at once."""
        return self._socket.fileno()

    @property
    def heard(self) -> bool:
        """Whether a whole message is here."""
        return bool(self._received)

    def receive(self, within_s: float) -> wire.Message:
        """The next message."""
        deadline = time.monotonic() + within_s
        while not self._received:
            try:
                self.hear(max(deadline - time.monotonic(), 0.01))
            except TimeoutError as error:
                raise WorkerGoneError(f"it said nothing for {within_s:g} s") from error
        return self._received.pop(0)

    def hear(self, within_s: float) -> None:
        """Take the bytes that come next. TimeoutError where none do."""
        try:
            self._socket.settimeout(within_s)
            data = self._socket.recv(1 << 20)
        except TimeoutError:
            raise
        except OSError as error:
            raise WorkerGoneError(self._last_words()) from error
        if not data:
            raise WorkerGoneError(self._last_words())
        self._received += self._decoder.feed(data)

    def has_more(self) -> bool:
        """Whether another message has begun to arrive."""
        return bool(self._received or select.select([self._socket], [], [], 0)[0])

    def ask(self, method: str, path: str, body: bytes | None) -> Reply:
        """One request outside of any trial, sent by the worker."""
        timeout_s = _LOOK_S if body is None else _ASK_S
        facts = {"method": method, "path": path, "timeout_s": timeout_s}
        self.send("ask", facts, {"body": body} if body is not None else None)
        answer = self.receive(timeout_s + SILENCE_S)
        return Reply(**answer.header, body=answer.columns.get("body", b""))

    def kill(self) -> None:
        """End it at once; its connections close with it."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it ends when that lets it
            self._process.wait(_EXIT_S)
        self._socket.close()
        self._log.close()

    def _last_words(self) -> str:
        try:
            code: int | str = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            code = "unknown"
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log.tell() - _TAIL_BYTES, 0))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        killed = f"signal {-code}" if isinstance(code, int) and code < 0 else f"exit code {code}"
        return f"{killed}{': ' + lines[-1] if lines else ''}"
