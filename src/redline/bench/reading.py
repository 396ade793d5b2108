"""What one run of a benchmark command says, whatever tool wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from redline.model import RedlineError
from redline.records import Records
from redline.sla import metric_of


class ResultError(RedlineError):
    """A result file that is missing, torn, or contradicts itself: the command failed, whatever it returned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One run of a benchmark command, as its result file tells it; None where the file does not say."""

    completed: int
    failed: int | None
    unfinished: int = 0  # sent, but cut off by the client's own end
    duration_s: float
    records: Records | None = None
    aggregates: Mapping[str, float] = field(default_factory=dict)  # metric -> value, completed, failed; see readers.py
    asked_rate: float | None = None  # requests/s the command was told to send; inf: as fast as it could
    exact_rate: bool = False  # random gaps, but n requests in n / rate seconds: chance explains no shortfall
    asked_concurrency: int | None = None  # requests in flight it was told to keep
    sending_s: float | None = None  # at least this long passed between the first and the last send
    in_flight_max: int | None = None  # never more than this many in flight
    errors: Mapping[str, int] = field(default_factory=dict)  # text of a failure -> how often
    model: str = ""

    @property
    def requests(self) -> int:
        return self.completed + (self.failed or 0) + self.unfinished


def knows(reading: Reading, name: str) -> bool:
    """Can this run answer the metric, from its records or its aggregates?"""
    if name in reading.aggregates:
        return True
    records = reading.records
    if records is None:
        return False
    metric = metric_of(name)
    needs_tokens = metric.kind == "throughput" and metric.field != "request"
    needs_first = bool(metric.fields - {"e2el"}) or needs_tokens
    has_gaps = len(records.gap_offsets) > 0 or "itl" not in metric.fields
    return has_gaps and not (needs_first and records.ok.any() and np.isnan(records.first_s[records.ok]).all())
