"""What the loop needs from the world, so that tests and virtual servers can stand in for it."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from redline.model import (
    Answer,
    Case,
    Endpoint,
    Goal,
    Measured,
    Probe,
    ServerConfig,
    Session,
    Sla,
    Trial,
    Watch,
)

Step: TypeAlias = "tuple[Sla, Probe] | list[Answer]"


class Subject(Protocol):
    """A server that is ready to be measured."""

    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def start_id(self) -> str:
        """Which start of the server this is; empty where it cannot be known."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What was odd about it so far, in words for the user."""
        ...

    def alive(self) -> bool: ...
    def log_tail(self) -> str: ...
    def settle(self, limit_s: float) -> str | None:
        """Wait until it is idle; a warning where it is not within `limit_s`."""
        ...

    def warm_up(self, session: Session) -> None: ...
    def reset_caches(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Still:
    """A server that needs no care: a simulated one in virtual time."""

    endpoint: Endpoint = field(default_factory=lambda: Endpoint(url="virtual:", model="virtual"))
    start_id: str = ""
    warnings: Sequence[str] = ()

    def alive(self) -> bool:
        return True

    def log_tail(self) -> str:
        return ""

    def settle(self, limit_s: float) -> str | None:  # noqa: ARG002 - the protocol's signature
        return None

    def warm_up(self, session: Session) -> None: ...

    def reset_caches(self) -> None: ...


def seeds(fixed: int | None = None) -> Callable[[int], int]:
    """Seed of the n-th trial of a case: drawn anew, or from a fixed stream, the same for every case."""
    if fixed is None:
        return lambda number: secrets.randbits(31)  # noqa: ARG005 - the number does not matter here
    return lambda number: random.Random(f"{fixed}:{number}").getrandbits(31)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lab:
    """How servers are reached and measured, and who decides what to measure."""

    connect: Callable[[ServerConfig], AbstractContextManager[Subject]]
    open_session: Callable[[Endpoint, Case], AbstractContextManager[Session]]
    next_id: Callable[[], str]
    next_job: Callable[[Sequence[Trial], Sequence[Sla], Goal], Step]
    answer_now: Callable[[Sequence[Trial], Sla, Goal, str], Answer]
    watcher: Callable[[Probe, Sla, Sequence[Trial]], Watch]
    summary: Callable[[Measured], Mapping[str, float]]
    budget_note: Callable[[Sequence[Trial], Sla, Goal], str | None] = field(default=lambda *_: None)
    seed: Callable[[int], int] = field(default_factory=seeds)
    shown: Sequence[str] = ()  # metrics that are shown while a trial runs, besides those of its SLA
