"""Scripts that stand in for commands."""

import shlex
import stat
import sys
from pathlib import Path


def install(folder: Path, name: str, *words: object) -> Path:
    """Put a command of this name into the folder, which calls Python with these words; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / name
    command.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *map(str, words)])} "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return folder
