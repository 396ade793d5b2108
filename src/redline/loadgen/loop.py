"""An asyncio loop that calls a socket's reader as soon as the kernel names it, where Linux's epoll is.

asyncio makes a task of each event and runs it in a context of its own: more than reading and parsing a token costs.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import selectors
from collections.abc import Callable
from typing import Any

_MOST_EVENTS = 1_024


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
