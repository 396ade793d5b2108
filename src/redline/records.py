"""The requests of one trial, as columns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int32]

NOT_SENT = "not sent: "  # how the load generator's own errors begin, among the words of failures


class Status(IntEnum):
    """How a request ended, as far as it is known."""

    OK = 0
    RUNNING = 1  # unfinished when last seen: its age is a lower bound
    FAILED = 2
    REJECTED = 3  # HTTP 429 or 503
    TIMED_OUT = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Records:
    """n requests in order of their scheduled time; times in seconds since the trial began, NaN where not (yet) there.

    Latency counts from `scheduled_s`: in open loop the time of the schedule, in closed loop the time a user was ready.
    A wait for a place under a cap is part of it, and stands in `held_s`.
    """

    observed_s: float  # when this was seen: the age of an unfinished request is observed_s - scheduled_s
    scheduled_s: Floats
    sent_s: Floats  # NaN: not sent
    first_s: Floats  # first token
    end_s: Floats  # last token, or the time of the failure; NaN while running
    tokens_in: Ints
    tokens_out: Ints
    tokens_asked: Ints
    status: NDArray[np.uint8]
    gaps_us: Ints = field(default_factory=lambda: np.zeros(0, np.int32))  # between content events, all requests, flat
    gap_offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # n+1 offsets, or none
    held_s: Floats = field(default_factory=lambda: np.zeros(0))  # n waits for a place, or none where nothing waited

    def __len__(self) -> int:
        return len(self.scheduled_s)

    @property
    def ok(self) -> NDArray[np.bool_]:
        return np.equal(self.status, Status.OK)

    @property
    def running(self) -> NDArray[np.bool_]:
        return np.equal(self.status, Status.RUNNING)

    @property
    def broken(self) -> NDArray[np.bool_]:
        """Failed, rejected or timed out."""
        return np.greater_equal(self.status, Status.FAILED)

    def late_s(self) -> Floats:
        """How much later than it could have the client sent each request; NaN where it did not."""
        late_s: Floats = self.sent_s - self.scheduled_s
        return late_s - self.held_s if len(self.held_s) else late_s

    def ttft_ms(self) -> Floats:
        """Time to first token from the scheduled send; NaN without a token."""
        return (self.first_s - self.scheduled_s) * 1e3

    def e2el_ms(self) -> Floats:
        """End-to-end latency from the scheduled send; NaN unless finished well."""
        return np.where(self.ok, (self.end_s - self.scheduled_s) * 1e3, np.nan)

    def tpot_ms(self) -> Floats:
        """(last - first token) / (tokens - 1); NaN unless finished well with at least two tokens."""
        several = self.ok & (self.tokens_out > 1)
        return np.where(several, (self.end_s - self.first_s) * 1e3 / np.maximum(self.tokens_out - 1, 1), np.nan)

    def age_s(self) -> Floats:
        """How long each request has lasted: until its end, or until it was last seen."""
        return np.where(np.isnan(self.end_s), self.observed_s, self.end_s) - self.scheduled_s

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, for storing; `observed_s` as an array of one."""
        return {f.name: np.atleast_1d(np.asarray(getattr(self, f.name))) for f in fields(self)}

    @classmethod
    def from_columns(cls, columns: dict[str, NDArray[np.generic]]) -> Records:
        """The inverse of `columns`; KeyError names a missing column."""
        columns = {"held_s": np.zeros(0), **columns}  # what was stored before there were caps has none
        arrays = {f.name: columns[f.name] for f in fields(cls)}
        return cls(**{**arrays, "observed_s": float(arrays["observed_s"][0])})  # type: ignore[arg-type]  # by name
