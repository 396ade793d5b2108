"""Requests on their way, and what became of them as columns."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Literal

from redline.loadgen.conn import Exchange
from redline.loadgen.payload import Planned
from redline.records import Status
from redline.users import Turn

_LINGER_NS = 1_000_000_000  # how long after [DONE] the HTTP message may stay open

COLUMNS: dict[str, Literal["q", "d", "i", "B"]] = {
    "i": "q",
    "scheduled_s": "d",
    "sent_s": "d",
    "first_s": "d",
    "end_s": "d",
    "tokens_in": "i",
    "tokens_out": "i",
    "tokens_asked": "i",
    "status": "B",
    "gap_count": "i",
    "gaps_us": "i",
    "held_s": "d",
}


class Flight(Exchange):
    """A request that was due, until it has ended."""

    __slots__ = ("deadline_ns", "held_ns", "i", "number", "scheduled_ns", "tokens_asked", "tokens_in", "turn")

    def __init__(
        self, plan: Planned, turn: Turn, scheduled_ns: int, deadline_ns: int, ended: Callable[[Flight], None]
    ) -> None:
        super().__init__(plan.payload, ended)
        self.i, self.tokens_in, self.tokens_asked = plan.i, plan.tokens_in, plan.tokens_asked
        self.turn, self.scheduled_ns, self.deadline_ns = turn, scheduled_ns, deadline_ns
        self.number = plan.i  # in the trial; below 0 before that began
        self.held_ns = 0  # how long it had to wait for a place

    def lingers(self, now_ns: int) -> bool:
        """Whether all was said a while ago, and only the HTTP message has no end."""
        response = self.response
        return response.done and now_ns - (response.last_ns or response.last_choice_ns) > _LINGER_NS


class Rows:
    """The columns of requests while they grow."""

    __slots__ = ("columns",)

    def __init__(self) -> None:
        self.columns: dict[str, array[Any]] = {name: array(kind) for name, kind in COLUMNS.items()}

    def add(
        self,
        flight: Flight,
        t0_ns: int,
        status: Status = Status.RUNNING,
        end_s: float = math.nan,
        *,
        with_gaps: bool = True,
    ) -> None:
        """One request as it stands; times count from `t0_ns`."""
        rows, response = self.columns, flight.response
        rows["i"].append(flight.number)
        rows["scheduled_s"].append((flight.scheduled_ns - t0_ns) / 1e9)
        rows["sent_s"].append((flight.sent_ns - t0_ns) / 1e9 if flight.sent_ns else math.nan)
        first_ns = response.first_ns or (response.last_choice_ns if status is Status.OK else 0)
        rows["first_s"].append((first_ns - t0_ns) / 1e9 if first_ns else math.nan)
        rows["end_s"].append(end_s)
        rows["tokens_in"].append(response.tokens_in if response.tokens_in >= 0 else flight.tokens_in)
        rows["tokens_out"].append(response.tokens_out if response.tokens_out > 0 else response.events)
        rows["tokens_asked"].append(flight.tokens_asked)
        rows["status"].append(status)
        gaps_us = response.gaps_us if with_gaps else ()
        rows["gap_count"].append(len(gaps_us))
        rows["gaps_us"].extend(gaps_us)
        rows["held_s"].append(flight.held_ns / 1e9)

    def add_held(self, numbers: tuple[int, int], scheduled_s: Sequence[float], now_s: float) -> None:
        """Requests, numbered from one in steps, that are due and wait for a place; what they ask for is not known."""
        rows, count = self.columns, len(scheduled_s)
        number, step = numbers
        rows["i"].extend(range(number, number + step * count, step))
        rows["scheduled_s"].extend(scheduled_s)
        rows["held_s"].extend(now_s - due_s for due_s in scheduled_s)
        rows["status"].extend([Status.RUNNING] * count)
        for name in ("sent_s", "first_s", "end_s"):
            rows[name].extend([math.nan] * count)
        for name in ("tokens_in", "tokens_out", "tokens_asked", "gap_count"):
            rows[name].extend([0] * count)


def named(ended: Rows, in_flight: Rows) -> dict[str, array[Any]]:
    """Both as the columns of one report."""
    columns = {f"done.{name}": column for name, column in ended.columns.items()}
    return columns | {f"live.{name}": column for name, column in in_flight.columns.items()}
