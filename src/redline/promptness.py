"""Ask the kernel to run this process as soon as it wakes: a stopwatch must not wait for what it times."""

from __future__ import annotations

import ctypes
import os
import platform

_SYSCALL = {"x86_64": 314, "aarch64": 274}  # sched_setattr(2)
_SLICE_NS = 100_000  # the shortest that the kernel accepts


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


def wake_promptly() -> bool:
    """Ask for a short time slice; whether the kernel took it (Linux 6.12 and later do, from anyone).

    A process with a shorter slice interrupts one with a longer slice when it wakes, and gets no more of the processor
    than before. Elsewhere nothing changes: late sends are recorded and judged.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None or platform.system() != "Linux":
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _Attributes(size=ctypes.sizeof(_Attributes), nice=nice, runtime_ns=_SLICE_NS)
    return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.byref(attributes), 0) == 0)
