"""What shapes the requests of a workload: distributions, and what prompts have in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """A distribution of token counts: log-normal with this mean and coefficient of variation, cut to [low, high]."""

    mean: float
    cv: float = 0.0
    low: int = 1
    high: int = 131_072


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkTime:
    """How long a user pauses: a gamma distribution with this mean in seconds and coefficient of variation."""

    mean: float
    cv: float = 0.0  # 0: always the mean; 1: exponential


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """What prompts of a group have in common: so many tokens at their start, or this share of each prompt's."""

    share: float = 0.0
    tokens: int | None = None
    groups: int = 1
