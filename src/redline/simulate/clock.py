"""The engine against an event loop's clock: tokens come when their step has ended."""

from __future__ import annotations

import asyncio
from typing import Protocol

from redline.simulate.engine import Engine, Request, Step
from redline.simulate.profiles import Profile

_TOO_LATE_S = 1.0  # behind its schedule by more (a suspended machine), the engine starts a new one


class Listener(Protocol):
    """Who waits for the tokens of a request."""

    def token(self) -> None: ...


class Clock:
    """Runs the engine in real time.

    The schedule is absolute: a step begins when the one before was to end, not when its end was noticed, so that the
    loop's delays do not add up.
    """

    def __init__(self, profile: Profile, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = Engine(profile, profile.seed)
        self._loop = loop
        self._zero_s = loop.time()
        self._listeners: dict[int, Listener] = {}
        self._step: Step | None = None
        self._hung = False

    @property
    def in_flight(self) -> int:
        return len(self._listeners)

    @property
    def age_s(self) -> float:
        return self._loop.time() - self._zero_s

    def submit(self, request: Request, listener: Listener) -> None:
        """Queue a request; its listener hears of every token, until `abort`."""
        self._listeners[request.number] = listener
        self.engine.submit(request, self.age_s)
        if self._step is None:
            self._begin()

    def abort(self, request: Request) -> None:
        if self._listeners.pop(request.number, None):
            self.engine.abort(request)

    def hang(self) -> None:
        """End no step any more."""
        self._hung = True

    def _begin(self) -> None:
        self._step = self.engine.step()
        if self._step is not None:
            self._loop.call_at(self._zero_s + self.engine.now_s, self._end, self._step)

    def _end(self, step: Step) -> None:
        if self._hung:
            return
        if self.age_s - self.engine.now_s > _TOO_LATE_S:
            self.engine.now_s = self.age_s
        heard = [listener for request in step.tokens if (listener := self._listeners.get(request.number))]
        for request in step.finished:
            self._listeners.pop(request.number, None)
        self._begin()
        for listener in heard:
            listener.token()
