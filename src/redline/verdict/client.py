"""Was the client good enough for this SLA? A trial of a client that was not is no evidence about the server.

A busy machine delays a client now and then. What counts is whether that could have changed what this SLA sees: so
delays are held against its own bounds, and their number against the share of requests that it allows over them.
"""

from __future__ import annotations

import math

import numpy as np

from redline.model import ClientEvidence, Criterion, Failed, Invalid, Sla, Trial
from redline.records import NOT_SENT, Records
from redline.sla import LATENCIES, allowed_share, metric_of

CURE = "give the client cores of its own, more --load-workers, or another machine"
_CURES = {
    "too many open files": "raise the limit of open files (ulimit -n)",
    "cannot assign requested address": "there are no local ports left: widen net.ipv4.ip_local_port_range, or let the "
    "server keep connections open",
}
FROM_DUE = frozenset({"ttft", "e2el"})  # latencies that count from the schedule
MIN_SENT_SHARE, FEW_UNSENT = 0.995, 3  # a trial is cut off while a few are being sent
MAX_CPU_SHARE = 0.75
MAX_MERGED = 0.01  # share of reads that came too late to tell tokens apart
SHARE_OF_BOUND = 0.05  # what a delayed read may add to a latency
LATE_S, LATE_SHARE_OF_BOUND = 0.005, 0.1  # a send later than both is late
LATE_SHARE, LATE_SHARE_OF_ALLOWED = 0.01, 0.5  # how many may be late, at least; of those that may be over
MAX_IDLE_SHARE = 0.03  # of a closed loop's load, that the client may have kept from the server
CHANGED_SHARE = 0.1  # of those that may be, or are, over a bound: how many may be so only because they were sent late
SCOUT_SLACK = 5.0  # a first look finds a range, within a third of the bound or so: longer delays do not mislead it


def usable(trial: Trial, sla: Sla) -> tuple[bool, str]:
    """Whether this SLA can use the trial, else why not.

    Sends: too few of those due, or too many late against the bounds that count from the schedule; in closed loop, users
    that the client kept waiting. Reads: where the kernel stamps arrivals, a late read harms only when it took several
    tokens at once. The processor: a client that is always busy is late in ways that it cannot see.
    """
    outcome = trial.outcome
    if isinstance(outcome, Failed | Invalid):
        return False, outcome.reason
    seen = outcome.client
    if why := _not_sent(seen):
        return False, why
    slack = SCOUT_SLACK if trial.probe.kind == "scout" else 1.0
    why = _sends(seen, outcome.records, sla, slack) or _reads(seen, outcome.records, sla, slack)
    why = why or _behind(seen, outcome.records, sla, slack)
    if not why and seen.idle_share > (most := slack * MAX_IDLE_SHARE):
        why = (
            f"the client kept its users waiting for {100 * seen.idle_share:.1f}% of the time (at most {100 * most:g}%)"
        )
    if not why and seen.cpu_share > MAX_CPU_SHARE:
        why = f"the client was busy {100 * seen.cpu_share:.0f}% of the time (at most {100 * MAX_CPU_SHARE:.0f}%)"
    return not why, why and f"{why}: {CURE}"


def _not_sent(seen: ClientEvidence) -> str:
    """Requests for which this machine had no means: they count as failed, and are no failures of the server."""
    for text, count in seen.errors.items():
        if text.startswith(NOT_SENT):
            return f"the client could not send {count} requests ({text.removeprefix(NOT_SENT)}): {cure_for(text)}"
    return ""


def cure_for(text: str) -> str:
    """What to do about an error of the client's own."""
    return next((cure for words, cure in _CURES.items() if words in text), CURE)


def _sends(seen: ClientEvidence, records: Records | None, sla: Sla, slack: float) -> str:
    owed = seen.due - seen.held_back  # a cap that the user asked for is not the client's fault
    if owed - seen.sent > FEW_UNSENT and seen.sent / owed < MIN_SENT_SHARE:
        return f"the client sent only {100 * seen.sent / owed:.1f}% of the requests that were due"
    bounds_s = {field: bound_s for field, bound_s in _bounds_s(sla).items() if field in FROM_DUE}
    if not bounds_s:
        return ""
    if records is not None and (why := _late_on_average(records, sla, slack)):
        return why
    allowed = _least_allowed(sla, FROM_DUE)
    if records is not None and (why := _changed(records, bounds_s, slack * allowed)):
        return why
    if seen.late_p99_s <= (late_s := slack * max(LATE_SHARE_OF_BOUND * min(bounds_s.values()), LATE_S)):
        return ""
    if records is None:
        return f"the client sent 1% of the requests {1e3 * seen.late_p99_s:.1f} ms late or more"
    late = records.late_s() > late_s
    most = max(LATE_SHARE, LATE_SHARE_OF_ALLOWED * allowed)
    count = int(np.count_nonzero(late))
    if count < 2 or count <= most * len(records):
        return ""
    share = f"{100 * count / len(records):.1f}% of the requests more than {1e3 * late_s:.0f} ms late"
    return f"the client sent {share} (at most {100 * most:.1f}%)"


def _late_on_average(records: Records, sla: Sla, slack: float) -> str:
    """Did late sends move a mean?"""
    means = [c for c in sla.criteria if metric_of(c.metric).kind == "mean" and metric_of(c.metric).field in FROM_DUE]
    late_s = records.late_s()
    if not means or not (sent := ~np.isnan(late_s)).any():
        return ""
    mean_s = float(late_s[sent].mean())
    if mean_s <= slack * SHARE_OF_BOUND * min(c.bound for c in means) / 1e3:
        return ""
    return f"the client sent requests {1e3 * mean_s:.1f} ms late on average"


def _changed(records: Records, bounds_s: dict[str, float], allowed: float) -> str:
    """Are requests over a bound that would not be, had they been sent in time?"""
    over = np.zeros((2, len(records)), bool)  # as they were sent; had they been sent in time
    since_s = (records.scheduled_s, records.scheduled_s + records.late_s())
    ends = {"ttft": records.first_s, "e2el": records.end_s}
    for field, bound_s in bounds_s.items():
        over |= np.array([ends[field] - since > bound_s for since in since_s])
    count = int(np.count_nonzero(over[0] & ~over[1]))
    if count < 2 or count <= CHANGED_SHARE * max(allowed * len(records), int(over[0].sum())):
        return ""
    return f"{count} of {len(records)} requests were over a bound only since the client sent them late"


def _reads(seen: ClientEvidence, records: Records | None, sla: Sla, slack: float) -> str:
    merged = seen.merged_reads > MAX_MERGED
    fields = frozenset[str]().union(*(metric_of(c.metric).fields for c in sla.criteria))
    if merged and "itl" in fields:
        return f"{100 * seen.merged_reads:.1f}% of the client's reads were too late to tell tokens apart"
    if seen.kernel_stamps and not merged:
        return ""
    bounds_s = _bounds_s(sla)
    times_s = {field: bound_s for field, bound_s in bounds_s.items() if field != "itl"}
    if "tpot" in times_s:  # an error of one read is spread over all tokens of a request
        times_s["tpot"] *= _median_gaps(records)
    if times_s and seen.read_delay_p99_s > slack * SHARE_OF_BOUND * min(times_s.values()):
        tightest = min(times_s, key=lambda field: times_s[field])
        delay = f"{1e3 * seen.read_delay_p99_s:.1f} ms late"
        return f"the client read answers up to {delay}, against {tightest} bounds of {1e3 * bounds_s[tightest]:g} ms"
    return ""


def _behind(seen: ClientEvidence, records: Records | None, sla: Sla, slack: float) -> str:
    """Was it held up for so long, and so often, that first tokens may have come unnoticed?"""
    fields = frozenset({"ttft", "tpot"} if seen.kernel_stamps else {"ttft", "tpot", "e2el"})
    times_s = {field: bound_s for field, bound_s in _bounds_s(sla).items() if field in fields}
    if "tpot" in times_s:
        times_s["tpot"] *= _median_gaps(records)
    if not times_s:
        return ""
    late_s = slack * max(LATE_SHARE_OF_BOUND * min(times_s.values()), LATE_S)
    if seen.kernel_stamps:  # only a token that the next one overtook has a stamp that is not its own
        late_s = max(late_s, _median_gap_s(records))
    share = min((share for ms, share in seen.behind.items() if float(ms) <= 1e3 * late_s), default=0.0)
    most = max(LATE_SHARE, LATE_SHARE_OF_ALLOWED * _least_allowed(sla, fields))
    if share <= most:
        return ""
    held_up = f"the client was held up by more than {1e3 * late_s:.0f} ms for {100 * share:.1f}% of the time"
    return f"{held_up} (at most {100 * most:.1f}%)"


def _median_gap_s(records: Records | None) -> float:
    gaps_us = records.gaps_us[records.gaps_us > 0] if records is not None else np.zeros(0)
    return float(np.median(gaps_us)) / 1e6 if len(gaps_us) else math.inf


def _median_gaps(records: Records | None) -> float:
    """How many inter-token times a request has."""
    if records is None or not records.ok.any():
        return 1.0
    return max(1.0, float(np.median(records.tokens_out[records.ok])) - 1)


def _least_allowed(sla: Sla, fields: frozenset[str]) -> float:
    """The smallest share that a criterion on one of these latencies allows over its bound; 0 with a mean among them."""
    shares = [allowed_share(c) or 0.0 for c in sla.criteria if metric_of(c.metric).fields & fields]
    return min(shares, default=0.0)


def _bounds_s(sla: Sla) -> dict[str, float]:
    """The tightest bound on each latency, in seconds."""
    tightest: dict[str, float] = {}
    for criterion in sla.criteria:
        for field, bound_ms in _bounds_ms(criterion):
            tightest[field] = min(tightest.get(field, math.inf), bound_ms / 1e3)
    return tightest


def _bounds_ms(criterion: Criterion) -> list[tuple[str, float]]:
    metric = metric_of(criterion.metric)
    inner = [(b.metric.removesuffix("_ms"), b.bound) for b in metric.bounds]
    return inner + ([(metric.field, criterion.bound)] if metric.field in LATENCIES else [])
