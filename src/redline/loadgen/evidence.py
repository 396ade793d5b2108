"""How good the client was in a trial, from the worker's counts and the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from redline.loadgen.stamps import Histogram
from redline.model import ClientEvidence
from redline.records import Records

_LEAST_SENT, _LEAST_DUE = 0.9, 10


def evidence_of(facts: Mapping[str, Any], records: Records) -> ClientEvidence:
    """The evidence that is stored with the trial."""
    late, delays = Histogram(facts["late"]), Histogram(facts["read_delays"])
    gaps_us = records.gaps_us[records.gaps_us > 0]
    merged = delays.share_over(float(np.median(gaps_us)) / 2) if len(gaps_us) else 0.0
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
        cpu_share=facts["cpu_share"],
        involuntary_switches=facts["involuntary_switches"],
        tokens_from_usage=not facts["without_usage"],
        errors=facts["errors"],
    )


def offered(client: ClientEvidence) -> bool:
    """Whether the load was really offered; else the trial says nothing about the server."""
    owed = client.due - client.held_back
    return owed < _LEAST_DUE or client.sent >= _LEAST_SENT * owed
