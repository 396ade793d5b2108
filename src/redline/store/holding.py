"""Who works in a directory, and which server that one has up: what the next one must know after a kill."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from redline.model import RedlineError
from redline.process import Marker, shielded
from redline.store.durable import cannot_write, replace_file, write_all

LOCK, MARKER = "lock", "server.json"


@dataclass(frozen=True, slots=True)
class Held:
    """A directory that one process works in."""

    directory: Path

    def server_marker(self) -> Marker | None:
        """The server that was up when this directory was last written, if it was not seen to end."""
        path = self.directory / MARKER
        if not path.exists():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return Marker(**{**data, "stop": tuple(data["stop"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def note(self, marker: Marker | None) -> None:
        """The server that is up from now on; None: nothing is left of it.

        For the owner's eyes only: its stop command is kept word by word.
        """
        path = self.directory / MARKER
        if marker is not None:
            with shielded():
                replace_file(path, json.dumps(asdict(marker)).encode(), mode=0o600)
            return
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error


@contextmanager
def hold(directory: Path) -> Iterator[Held]:
    """Work in a directory alone; the lock goes with the process, however that ends.

    RedlineError where somebody else works in it, or nobody can.
    """
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "another process"
            who = f"process {holder}" if holder.isdecimal() else holder
            raise RedlineError(
                f"{directory} is in use by {who}; wait until it has ended, or choose another place with --out"
            ) from error
        except OSError as error:
            raise RedlineError(
                f"{directory} cannot be locked ({error.strerror}); choose a directory on a local disk with --out"
            ) from error
        try:
            os.ftruncate(handle, 0)
            write_all(handle, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise cannot_write(path, error) from error
        yield Held(directory)
    finally:
        os.close(handle)
