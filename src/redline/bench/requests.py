"""One run of a client from the single requests that its file holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from redline.bench.reading import Reading, ResultError
from redline.records import Floats, Records, Status

_NO_GAPS: Floats = np.zeros(0)
_TOO_MANY = ("429", "503")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request, in seconds of the client's clock; NaN where the file does not say."""

    due_s: float  # by the client's schedule; where it has none, when it was sent
    sent_s: float
    first_s: float = math.nan
    end_s: float = math.nan  # the last token, or the failure; NaN: cut off
    tokens_in: int = 0
    tokens_out: int = 0
    status: Status = Status.OK
    gaps_s: Floats = field(default_factory=lambda: _NO_GAPS)  # between the events of the stream
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The load that the client was told to offer; None where its file does not say."""

    rate: float | None = None
    exact_rate: bool = False
    concurrency: int | None = None
    model: str = ""


def failure(code: object) -> Status:
    """A failed request by its HTTP status, or a text that names it."""
    return Status.REJECTED if any(number in str(code) for number in _TOO_MANY) else Status.FAILED


def reading_of(requests: Sequence[Request], asked: Asked, where: str, *, has_gaps: bool) -> Reading:
    """The run that consists of these requests; `has_gaps`: each has its `gaps_s`, without which ITL is not known."""
    if not requests:
        raise ResultError(f"{where}: holds no requests; did the client run to its end?")
    records = records_of(requests, has_gaps=has_gaps)
    running = int(records.running.sum())
    failed = int(records.broken.sum())
    return Reading(
        completed=len(records) - failed - running,
        failed=failed,
        unfinished=running,
        duration_s=records.observed_s,
        records=records,
        asked_rate=asked.rate,
        exact_rate=asked.exact_rate,
        asked_concurrency=asked.concurrency,
        sending_s=float(records.sent_s.max() - records.sent_s.min()),
        in_flight_max=in_flight_max(records),
        errors=Counter(request.error for request in requests if request.error),
        model=asked.model,
    )


def records_of(requests: Sequence[Request], *, has_gaps: bool) -> Records:
    """The requests as columns, in the order of their schedule; the first one was due at 0."""
    ordered = sorted(requests, key=lambda request: request.due_s)
    began_s = ordered[0].due_s

    def times(name: str) -> Floats:
        return np.array([getattr(request, name) for request in ordered], np.float64) - began_s

    def counts(name: str) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.array([getattr(request, name) for request in ordered], np.int32)

    due_s, sent_s, first_s, end_s = times("due_s"), times("sent_s"), times("first_s"), times("end_s")
    gaps_s = np.concatenate([request.gaps_s for request in ordered])
    sizes = [len(request.gaps_s) for request in ordered]
    return Records(
        observed_s=float(np.nanmax(np.concatenate([sent_s, first_s, end_s]))),
        scheduled_s=np.minimum(due_s, sent_s),
        sent_s=sent_s,
        first_s=first_s,
        end_s=end_s,
        tokens_in=counts("tokens_in"),
        tokens_out=counts("tokens_out"),
        tokens_asked=counts("tokens_out"),
        status=np.array([request.status for request in ordered], np.uint8),
        gaps_us=np.clip(np.rint(gaps_s * 1e6), 0, np.iinfo(np.int32).max).astype(np.int32),
        gap_offsets=np.cumsum([0, *sizes], dtype=np.int64) if has_gaps else np.zeros(0, np.int64),
    )


def in_flight_max(records: Records) -> int:
    """At most so many were in flight at once."""
    n = len(records)
    ends = np.where(np.isnan(records.end_s), records.observed_s, records.end_s)
    change = np.repeat([1, -1], n)
    at_once = np.cumsum(change[np.lexsort((change, np.concatenate([records.sent_s, ends])))])
    return int(at_once.max(initial=0))


def totals(values: Mapping[str, float | None], completed: int, failed: int | None) -> dict[str, float]:
    """Aggregates under our names, with the medians under both of theirs; `failed` None: the file does not say."""
    known = {key: value for key, value in values.items() if value is not None}
    for one, other in (("p50_", "median_"), ("median_", "p50_")):
        for name in [name for name in known if name.startswith(one)]:
            known.setdefault(other + name.removeprefix(one), known[name])
    return known | counts(completed, failed)


def counts(completed: int, failed: int | None) -> dict[str, float]:
    """What is counted, as aggregates; nothing on failures where the file does not tell them."""
    if failed is None:
        return {"completed": completed}
    return {"completed": completed, "failed": failed, "error_rate": failed / max(completed + failed, 1)}
