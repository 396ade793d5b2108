"""An asyncio loop that calls a socket's reader as soon as the kernel names it, where Linux's epoll is.

asyncio makes a task of each event and runs it in a context of its own: more than reading and parsing a token costs.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import selectors
import time
from collections.abc import Callable
from typing import Any

_MOST_EVENTS = 1_024
_NEVER_NS = 1 << 62
_PUNCTUAL_NS = 100_000  # a nap ends so long before something is due


class _Watched:
    """What is to be called for one file descriptor; emptied when it is no longer watched."""

    __slots__ = ("reader", "writer")

    def __init__(self) -> None:
        self.reader: Callable[[], object] | None = None
        self.writer: Callable[[], object] | None = None

    @property
    def mask(self) -> int:
        return (select.EPOLLIN if self.reader else 0) | (select.EPOLLOUT if self.writer else 0)


class PromptSelector(selectors.EpollSelector):
    """Hands asyncio only the events of what asyncio registered; the others are dealt with inside of `select`."""

    def __init__(self) -> None:
        super().__init__()
        self._events = select.epoll.fromfd(os.dup(self.fileno()))  # the same epoll; each end closes its own number
        self._watched: dict[int, _Watched] = {}
        self.nap_ns = 0  # from one look at the sockets to the next, at least
        self.due_ns = _NEVER_NS  # no nap lasts beyond this
        self._looked_ns = 0

    def watch(self, fd: int, reader: Callable[[], object] | None, writer: Callable[[], object] | None) -> None:
        """Call these from now on; neither: watch it no more."""
        watched = self._watched.get(fd)
        if watched is None:
            if reader is None and writer is None:
                return
            watched = self._watched[fd] = _Watched()
            watched.reader, watched.writer = reader, writer
            self._events.register(fd, watched.mask)
            return
        watched.reader, watched.writer = reader, writer
        if watched.mask:
            self._events.modify(fd, watched.mask)
        else:
            del self._watched[fd]
            self._events.unregister(fd)

    def watched(self, fd: int) -> tuple[Callable[[], object] | None, Callable[[], object] | None]:
        """Reader and writer."""
        found = self._watched.get(fd)
        return (found.reader, found.writer) if found is not None else (None, None)

    def close(self) -> None:
        self._events.close()
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wait_s = -1.0 if timeout is None else max(math.ceil(timeout * 1e3) * 1e-3, 0.0)
        if self.nap_ns and wait_s:
            self._nap()
        try:
            events = self._events.poll(wait_s, _MOST_EVENTS)
        except InterruptedError:
            return []
        known = self._watched
        # All are looked up first: what one reader closes, and opens anew under its number, has no event here.
        ready = [(known.get(fd), fd, mask) for fd, mask in events]
        others: list[tuple[selectors.SelectorKey, int]] = []
        for watched, fd, mask in ready:
            if watched is None:
                self._tell(fd, mask, others)
                continue
            if mask & ~select.EPOLLOUT and (reader := watched.reader) is not None:
                reader()
            if mask & ~select.EPOLLIN and (writer := watched.writer) is not None:
                writer()
        return others

    def _nap(self) -> None:
        now_ns = time.monotonic_ns()
        until_ns = min(self._looked_ns + self.nap_ns, self.due_ns - _PUNCTUAL_NS)
        if until_ns > now_ns:
            time.sleep((until_ns - now_ns) / 1e9)
            now_ns = until_ns
        self._looked_ns = now_ns

    def _tell(self, fd: int, mask: int, others: list[tuple[selectors.SelectorKey, int]]) -> None:
        key = self.get_map().get(fd)
        if key is not None:
            wanted = selectors.EVENT_WRITE if mask & ~select.EPOLLIN else 0
            wanted |= selectors.EVENT_READ if mask & ~select.EPOLLOUT else 0
            others.append((key, wanted & key.events))


class PromptLoop(asyncio.SelectorEventLoop):
    """What `add_reader` and `add_writer` name is called inside of the loop's wait; an exception there ends the loop."""

    def __init__(self) -> None:
        self._prompt = PromptSelector()
        super().__init__(self._prompt)

    def nap(self, nap_ns: int) -> None:
        """Look at sockets only so often: fewer wakings for the same bytes. For who has the kernel's stamps of them."""
        self._prompt.nap_ns = nap_ns

    def due(self, due_ns: int) -> None:
        """When something must be done in time."""
        self._prompt.due_ns = due_ns

    def add_reader(self, fd: Any, callback: Callable[[], object]) -> None:  # type: ignore[override]  # nobody has arguments
        self._prompt.watch(fd, callback, self._prompt.watched(fd)[1])

    def remove_reader(self, fd: Any) -> bool:
        reader, writer = self._prompt.watched(fd)
        self._prompt.watch(fd, None, writer)
        return reader is not None

    def add_writer(self, fd: Any, callback: Callable[[], object]) -> None:  # type: ignore[override]  # nobody has arguments
        self._prompt.watch(fd, self._prompt.watched(fd)[0], callback)

    def remove_writer(self, fd: Any) -> bool:
        reader, writer = self._prompt.watched(fd)
        self._prompt.watch(fd, reader, None)
        return writer is not None


def new_loop() -> asyncio.AbstractEventLoop:
    """The best loop that there is for many sockets."""
    return PromptLoop() if hasattr(select, "epoll") else asyncio.new_event_loop()
