"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from redline.model import RedlineError

TEMPORARY = ".tmp"


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file under a temporary name, sync it, rename it; RedlineError, and no trace of it, where that fails."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise cannot_write(path, error) from error


def append_line(path: Path, line: str) -> None:
    """Add a line and sync it; where that fails, cut off what came of it and raise RedlineError."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        before, whole = os.fstat(handle).st_size, False
        try:
            write_all(handle, line.encode() + b"\n")
            os.fsync(handle)
            whole = True
        finally:
            if not whole:  # a full disk, or an interrupt: the next line must not be added to half of this one
                with suppress(OSError):
                    os.ftruncate(handle, before)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        os.close(handle)


def cut(path: Path, size: int) -> None:
    """Shorten a file."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(handle, size)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def sync_directory(path: Path) -> None:
    """Make a rename last; some file systems cannot, and then need not."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cannot_write(path: Path, error: OSError) -> RedlineError:
    return RedlineError(
        f"cannot write {path}: {error.strerror or error}; "
        "make room or give it the right to write there, or choose another place with --out"
    )
