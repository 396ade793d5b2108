"""Ask the kernel to run this process as soon as it wakes: a stopwatch must not wait for what it times."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

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


def run_first() -> bool:
    """Run before every ordinary process whenever there is something to do; whether the kernel allows that to us.

    Linux allows it to root, and to who has CAP_SYS_NICE or a limit of real-time priority; for children it ends.
    """
    if sys.platform != "linux":
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        return False
    return True


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
