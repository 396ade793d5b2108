"""How far a first look was from the bounds of an SLA."""

from __future__ import annotations

import math

from redline import stats
from redline.model import Criterion, Measured, Sla
from redline.records import Records
from redline.search.evidence import Reading
from redline.sla import allowed_share, metric_of

BAD_SCOUT = 1.3  # times the bound


def scout_ratio(reading: Reading, sla: Sla) -> float:
    """How far the worst criterion was from its bound in a first look; infinite when it was hopeless."""
    if reading.role in ("over", "fail"):
        return math.inf if reading.breaks(sla.criteria) else 0.0
    outcome = reading.trial.outcome
    assert isinstance(outcome, Measured)  # or it were no reading
    worst = 0.0
    for criterion in sla.criteria:
        if metric_of(criterion.metric).kind == "throughput":
            continue
        worst = max(worst, _look(criterion, reading, outcome.records))
    if outcome.records is not None and reading.trial.probe.by == "rate" and _left_behind(outcome.records, reading):
        return math.inf
    return worst


def _look(criterion: Criterion, reading: Reading, records: Records | None) -> float:
    found = reading.tallies[criterion.text]
    allowed = allowed_share(criterion)
    if found.n <= 0:
        return math.inf
    if allowed is None or found.from_totals:
        return found.ratio
    if found.k / found.n > max(0.5, allowed + 0.25):
        return math.inf
    if metric_of(criterion.metric).kind == "error_rate" or records is None:
        # A single failure among a dozen requests is a hint, two are a finding.
        return min(found.k, 1.0) if found.k <= 1 else (found.k / found.n) / max(allowed, 0.5 / found.n)
    return found.look if not math.isnan(found.look) else found.ratio


def _left_behind(records: Records, reading: Reading) -> bool:
    """Do far fewer requests leave than come?"""
    t = records.observed_s
    arrived = stats.between(records.scheduled_s, t / 2, t)
    departed = stats.between(records.end_s, t / 2, t)
    surely = arrived - departed > 3 * math.sqrt(arrived + departed)
    return len(records) > 20 and t >= 4 * reading.mean_e2e_s and departed < 0.5 * arrived and surely
