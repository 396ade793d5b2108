"""How good the client was in a trial, from the worker's counts and the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from redline.loadgen.beat import BEHIND_MS
from redline.loadgen.stamps import Histogram
from redline.model import ClientEvidence
from redline.records import Ints, Records

_LEAST_SENT, _LEAST_DUE = 0.9, 10
_ENOUGH_GAPS = 1_000_000  # for their median; copies of all would be the most memory that the driver needs
_SUMS = ("due", "sent", "held_back", "idle_s", "wall_s", "involuntary_switches", "without_usage")
_COLUMNS = ("late", "read_delays", "behind_s")


def evidence_of(facts: Mapping[str, Any], records: Records) -> ClientEvidence:
    """The evidence that is stored with the trial."""
    late, delays = Histogram(facts["late"]), Histogram(facts["read_delays"])
    gaps_us = _some(records.gaps_us)
    gaps_us = gaps_us[gaps_us > 0]
    behind = _behind(facts["behind_s"], facts["wall_s"])
    merged = 0.0
    if len(gaps_us):
        late_us = float(np.median(gaps_us)) / 2
        # While tokens keep coming, a read is never later than a gap, by the stamp of the last one that it took.
        merged = max(
            delays.share_over(late_us), min((s for ms, s in behind.items() if 1e3 * float(ms) <= late_us), default=0.0)
        )
    idle_s = facts["idle_s"]
    return ClientEvidence(
        due=facts["due"],
        sent=facts["sent"],
        held=int(np.count_nonzero(records.held_s)),
        held_back=facts["held_back"],
        late_p50_s=late.quantile_us(0.5) / 1e6,
        late_p99_s=late.quantile_us(0.99) / 1e6,
        read_delay_p99_s=delays.quantile_us(0.99) / 1e6,
        merged_reads=merged,
        kernel_stamps=facts["kernel_stamps"],
        behind=behind,
        idle_share=idle_s / (idle_s + float(records.age_s().sum())) if idle_s else 0.0,
        cpu_share=max(facts["cpu_shares"]),
        cpu_shares=tuple(facts["cpu_shares"]),
        involuntary_switches=facts["involuntary_switches"],
        tokens_from_usage=not facts["without_usage"],
        errors=facts["errors"],
    )


def _some(gaps_us: Ints) -> Ints:
    """All of them, or so many by chance: in equal steps, they could be the same gap of each request."""
    if len(gaps_us) <= _ENOUGH_GAPS:
        return gaps_us
    return gaps_us[np.random.default_rng(0).integers(0, len(gaps_us), _ENOUGH_GAPS)]


def summed(workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all workers counted, as if it were one; the busiest is kept beside the sums."""
    errors: Counter[str] = Counter()
    for facts in workers:
        errors.update(facts["errors"])
    sums = {name: sum(facts[name] for facts in workers) for name in _SUMS}
    columns = {name: [sum(of) for of in zip(*(facts[name] for facts in workers), strict=True)] for name in _COLUMNS}
    return {
        **sums,
        **columns,
        "taken": len(workers) * max(facts["taken"] for facts in workers),  # in turns: up to the last of all
        "reason": workers[-1]["reason"],
        "kernel_stamps": all(facts["kernel_stamps"] for facts in workers if facts["sent"]),
        "cpu_shares": [facts["cpu_share"] for facts in workers],
        "errors": dict(errors),
    }


def _behind(behind_s: Sequence[float], wall_s: float) -> dict[str, float]:
    """Shares of the time up to the first that is none."""
    count = sum(1 for s in behind_s if s > 0)
    return {str(ms): s / wall_s for ms, s in zip(BEHIND_MS[: count + 1], behind_s, strict=False)} if count else {}


def offered(client: ClientEvidence) -> bool:
    """Whether the load was really offered; else the trial says nothing about the server."""
    owed = client.due - client.held_back
    return owed < _LEAST_DUE or client.sent >= _LEAST_SENT * owed
