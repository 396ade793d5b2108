"""Waiting on a condition, never for a time."""

import time
from collections.abc import Callable
from pathlib import Path

from redline.process import table


def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Return as soon as the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {condition}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Has the process ended? A zombie has."""
    process = table.look(pid)
    return process is None or process.zombie


def number_in(file: Path) -> int:
    """The number that another process writes, once it is there."""
    until(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())
