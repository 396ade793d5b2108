"""The output of servers and benchmarks on our own stdout while they run: --show-stdout."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_S = 0.2


@contextmanager
def echoing(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Say every line that is added to a log below the folder, until the body ends."""
    logs = _Logs(folder, say)
    stopped = threading.Event()

    def follow() -> None:
        while not stopped.wait(_LOOK_S):
            logs.look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        logs.look(to_end=True)


class _Logs:
    """How far each log was said."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._said = {path: path.stat().st_size for path in folder.rglob("*.log")}  # of earlier calls

    def look(self, *, to_end: bool = False) -> None:
        for path in sorted(self._folder.rglob("*.log")):
            with path.open("rb") as log:
                log.seek(self._said.get(path, 0))
                new = log.read()
            whole = new if to_end else new[: new.rfind(b"\n") + 1]
            self._said[path] = self._said.get(path, 0) + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                self._say(line)
