"""What happens while an experiment runs, for who shows or keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from redline.model import Answer, Case, Endpoint, Probe, ServerConfig, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStarting:
    server: ServerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerReady:
    server: ServerConfig
    endpoint: Endpoint
    took_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStopped:
    server: ServerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStarted:
    case: Case
    probe: Probe
    number: int  # of this case, from 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Each second of a running trial."""

    case: Case
    probe: Probe
    now_s: float
    sent: int
    finished: int
    failed: int
    stats: Mapping[str, float] = field(default_factory=dict)  # criterion metric -> value so far


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEnded:
    case: Case
    trial: Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    case: Case
    answer: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned:
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """Something good to know that is nothing to worry about."""

    text: str


Event: TypeAlias = (
    ServerStarting | ServerReady | ServerStopped | TrialStarted | Progress | TrialEnded | Answered | Warned | Noted
)
Emit: TypeAlias = Callable[[Event], None]
