"""The load workers of one session: as many as are wanted, heard as one."""

from __future__ import annotations

import select
import time
from array import array
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from redline.loadgen import wire
from redline.loadgen.link import SILENCE_S, Link, WorkerGoneError
from redline.model import RedlineError

_START_S = 30.0


class Team:
    """Workers that measure one server. The first also asks it what preflight wants to know.

    Ends as a whole: a load of which a part is missing is no load.
    """

    def __init__(self, target: wire.Header, inputs: Mapping[str, bytes | array[Any]], log: Path | None) -> None:
        self._target, self._inputs, self._log = target, inputs, log
        self._links: list[Link] = []
        self._heard_s: list[float] = []  # when each last said something

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that there are."""
        return tuple(link.pid for link in self._links)

    def start(self, count: int) -> wire.Header:
        """Have at least so many that are connected; what the last one learnt of the way there. RedlineError if none."""
        new = [Link(self._log) for _ in range(len(self._links), count)]
        self._links += new
        for link in new:
            link.send("open", {"target": self._target}, self._inputs)
        learnt: wire.Header = {}
        for link in new:
            opened = link.receive(_START_S)
            if opened.kind == "error":
                self.kill()
                raise RedlineError(opened.header["text"])
            learnt = opened.header
        return learnt

    @property
    def first(self) -> Link:
        """The one that also asks."""
        return self._links[0]

    def send(self, kind: str, headers: Sequence[wire.Header]) -> None:
        """One header to each of the first workers."""
        for link, header in zip(self._links, headers, strict=False):
            link.send(kind, header)
        self._heard_s = [time.monotonic()] * len(self._links)

    def receive(self, among: Collection[int]) -> tuple[int, wire.Message]:
        """The next message of one of these, and whose it is. None may be silent for long."""
        while True:
            for number in among:
                if self._links[number].heard:
                    return number, self._links[number].receive(0.0)
            left_s = min(self._heard_s[number] for number in among) + SILENCE_S - time.monotonic()
            links = [self._links[number] for number in among]
            ready = select.select(links, [], [], max(left_s, 0.0))[0]
            if not ready:
                raise WorkerGoneError(f"it said nothing for {SILENCE_S:g} s")
            for number in among:
                if self._links[number] in ready:
                    self._links[number].hear(SILENCE_S)
                    self._heard_s[number] = time.monotonic()

    def has_more(self) -> bool:
        """Whether another message has begun to arrive."""
        return any(link.has_more() for link in self._links)

    def kill(self) -> None:
        """End all at once."""
        links, self._links = self._links, []
        for link in links:
            link.kill()
