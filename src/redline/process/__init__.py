"""Start, watch and reliably stop groups of processes."""

from redline.process.group import (
    MARK,
    Group,
    Marker,
    alive,
    exit_code,
    how_ended,
    installed,
    interruptible,
    new_marker,
    run,
    shielded,
    start,
    stop,
    stop_left_behind,
    tail,
    wait,
)

__all__ = [
    "MARK",
    "Group",
    "Marker",
    "alive",
    "exit_code",
    "how_ended",
    "installed",
    "interruptible",
    "new_marker",
    "run",
    "shielded",
    "start",
    "stop",
    "stop_left_behind",
    "tail",
    "wait",
]
