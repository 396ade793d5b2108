"""A timer of the event loop that fires within microseconds of an absolute time, where Linux offers one."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable

_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1


class _Spec(ctypes.Structure):
    """struct itimerspec: no interval, so it fires once."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Timer:
    """Calls `fire` once the monotonic clock has reached the time that was set last.

    asyncio's own timers round to its clock's resolution and epoll's millisecond: 0.2-0.6 ms late in the median.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None], *, precise: bool = True) -> None:
        self._loop, self._fire = loop, fire
        self._handle: asyncio.TimerHandle | None = None
        self._fd = _create() if precise else -1
        if self._fd >= 0:
            loop.add_reader(self._fd, self._expired)

    def set(self, at_ns: int) -> None:
        """Fire at this monotonic time, or at once when it has passed; replaces what was set before."""
        if self._fd < 0:
            self.unset()
            self._handle = self._loop.call_at(at_ns / 1e9, self._fire)
            return
        spec = _Spec(0, 0, *divmod(max(at_ns, 1), 1_000_000_000))  # all zeros would disarm
        if _LIBC is None or _LIBC.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(spec), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def unset(self) -> None:
        """Fire no more, until set again."""
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0 and _LIBC is not None:
            _LIBC.timerfd_settime(self._fd, 0, ctypes.byref(_Spec()), None)

    def close(self) -> None:
        """Give the file descriptor back."""
        self.unset()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        with contextlib.suppress(BlockingIOError):  # set anew between epoll's report and this call
            os.read(self._fd, 8)
            self._fire()


def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "timerfd_create"):
        return None
    libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Spec), ctypes.c_void_p)
    return libc


def _create() -> int:
    """A timerfd, or -1 where there is none (os.timerfd_create needs Python 3.13)."""
    return -1 if _LIBC is None else int(_LIBC.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))


_LIBC = _libc()
