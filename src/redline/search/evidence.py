"""What each stored trial says to one SLA, whoever asked for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from redline import stats
from redline.model import Criterion, Measured, Probe, Sla, Trial
from redline.records import Records
from redline.sla import allowed_share, metric_of, parse_criterion
from redline.verdict import usable
from redline.verdict.tally import Tally, Window, first_look, steady_window, tally, window_of
from redline.verdict.watch import first_wave

Role: TypeAlias = Literal["full", "over", "fail", "scout", "silent"]

MIN_JUDGED = 20  # fewer requests say nothing
PAUSE = 0.9  # a smaller share of users that wait for answers is the work of pauses, not of chance


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One usable trial through the eyes of one SLA.

    full: steady, and judged on each criterion. over: the queue grew. fail: ended early, hopeless for `failed`.
    scout: a first look. silent: it says nothing to this SLA.
    """

    trial: Trial
    role: Role
    tallies: Mapping[str, Tally]  # criterion text -> what it says on it
    failed: str | None = None
    sent: int = 0  # in the window that was judged
    length_cv2: float = 0.0  # mean of the squared coefficients of variation of prompt and output lengths
    arrival_cv2: float = 1.0  # of the gaps between arrivals: 1 is Poisson, more is burstier
    mean_e2e_s: float = 1.0
    p90_e2e_s: float = 1.0
    busy: float = 1.0  # share of a closed loop's users that wait for an answer; the others pause
    runs: int = 0  # of a command, where a criterion rests on its totals; else 0

    @property
    def load(self) -> float:
        return self.trial.probe.load

    @property
    def scouting(self) -> bool:
        return self.trial.probe.kind == "scout"

    def supports(self, criteria: Sequence[Criterion]) -> bool:
        """A full trial whose point estimates keep all criteria, with enough requests for each."""
        return self.role == "full" and all(
            (found := self.tallies[c.text]).met and found.n >= least(c) for c in criteria
        )

    def judges(self, criteria: Sequence[Criterion], share: float) -> bool:
        """Has each criterion this share of what it needs? The default error rate needs no more than the others."""
        return all(self.tallies[c.text].n >= needed(c, share) for c in criteria if not c.default)

    def breaks(self, criteria: Sequence[Criterion]) -> bool:
        """A full or early-failed trial that does not keep them all."""
        if self.role == "full":
            return any(not self.tallies[c.text].met and self.tallies[c.text].n >= MIN_JUDGED for c in criteria)
        if self.role == "over":
            return any(hears_over(c) for c in criteria)
        return self.role == "fail" and any(c.text == self.failed for c in criteria)


def asked(trial: Trial, sla: Sla) -> bool:
    """Did this SLA ask for the trial, with the criteria that it has now?"""
    return trial.probe.asked_by == sla.name and set(trial.probe.need) == {c.text for c in sla.criteria}


def for_another(trial: Trial, sla: Sla) -> bool:
    """Did another SLA say how long it lasts?"""
    return bool(trial.probe.asked_by) and not asked(trial, sla)


def needed(criterion: Criterion, share: float = 1.0) -> int:
    """How many judged units make a trial full; `share` is below 1 while the search is coarse."""
    allowed = allowed_share(criterion)
    least_of_all = 90 if share < 0.5 else 150
    if allowed is None:
        return 0 if metric_of(criterion.metric).kind == "throughput" else math.ceil(share * 400)
    # Of the default error rate a trial need not see more than the other criteria do, unless something fails.
    return least_of_all if criterion.default else max(least_of_all, math.ceil(share * 8 / allowed))


def least(criterion: Criterion) -> float:
    """How many units a supporting trial must have judged at least."""
    return MIN_JUDGED if criterion.default else needed(criterion, 0.35)


def hears_over(criterion: Criterion) -> bool:
    """Does a queue that grows without end break this criterion? Times per token saturate and do not tell."""
    metric = metric_of(criterion.metric)
    if metric.kind == "throughput":
        return False
    return metric.kind == "error_rate" or not metric.fields <= {"tpot", "itl"}


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """A trial as a key, equal to itself only: trials do not change, and comparing their records would be slow."""

    trial: Trial

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.trial is self.trial

    def __hash__(self) -> int:
        return id(self.trial)


def readings(evidence: Sequence[Trial], sla: Sla) -> list[Reading]:
    """The usable trials, in order."""
    return [reading for trial in evidence if (reading := _read(_Same(trial), sla)) is not None]


def seen(trial: Trial, sla: Sla) -> dict[str, float]:
    """What the search sees of a trial: each metric's value, in its own unit; empty where it sees nothing.

    Of a trial that was ended as hopeless it sees how many were over by then, which is no value of a metric.
    """
    reading = _read(_Same(trial), sla)
    if reading is None or reading.role == "fail":
        return {}
    found = {t.criterion.metric: t.stat for t in reading.tallies.values() if t.n > 0}
    return {metric: stat for metric, stat in found.items() if not math.isnan(stat)}


@lru_cache(maxsize=256)  # the same trials are read after each new one
def _read(key: _Same, sla: Sla) -> Reading | None:
    trial = key.trial
    outcome = trial.outcome
    if not isinstance(outcome, Measured) or not usable(trial, sla)[0]:
        return None
    if outcome.records is None:
        return _read_totals(trial, outcome, sla) if outcome.aggregates else None
    records, reason = outcome.records, outcome.stop.reason
    around = window_of(records, 0.0)
    plain = Reading(
        trial=trial,
        role="silent",
        tallies={},
        mean_e2e_s=around.mean_e2e_s,
        p90_e2e_s=around.p90_e2e_s,
        busy=_busy(trial.probe, records),
    )
    if reason == "over":
        return replace(plain, role="over")
    if reason == "fail":
        failed = _same_failed(outcome.stop.criterion, sla)
        if failed:
            return _failed(plain, failed, records, sla)
        return plain if trial.probe.kind == "scout" else _failed_too(plain, records, sla)
    window = steady_window(outcome)
    if trial.probe.kind != "scout" and window and _full(trial, records, window, sla):
        tallies = {c.text: _on_requests(c, outcome, tally(c, records, window)) for c in sla.criteria}
        if reason == "ended" and trial.probe.by == "rate" and outgrown(records, window):
            return replace(plain, role="over")
        plain = replace(plain, tallies=tallies, runs=_runs(tallies, outcome))
        return replace(plain, role="full", **_fed(records, window, records.tokens_out))
    skip = first_wave(trial.probe)
    looks = {c.text: _on_requests(c, outcome, first_look(c, records, skip)) for c in sla.criteria}
    return replace(plain, role="scout", tallies=looks, runs=_runs(looks, outcome))


def _busy(probe: Probe, records: Records) -> float:
    """The share of users that wait for an answer, once all have come; 1 unless they pause in earnest."""
    all_s = probe.load * (records.observed_s - probe.spread_s)
    if probe.by == "rate" or all_s <= 0:
        return 1.0
    ended_s = np.where(np.isnan(records.end_s), records.observed_s, records.end_s)
    waited_s = ended_s - np.maximum(records.scheduled_s, probe.spread_s)
    busy = float(waited_s[waited_s > 0].sum()) / all_s
    return busy if 0 < busy < PAUSE else 1.0


def _failed(plain: Reading, failed: str, records: Records, sla: Sla) -> Reading:
    """A trial that was ended as hopeless, with what it had seen of that by then."""
    window = _until_hopeless(plain.trial, records)
    criterion = next(c for c in sla.criteria if c.text == failed)
    return _given_up(plain, tally(criterion, records, window), records, window)


def _failed_too(plain: Reading, records: Records, sla: Sla) -> Reading:
    """A trial that was ended as hopeless for another SLA, if by then this one was broken as well.

    Were it left out, of trials that differ much only the calm ones would speak.
    """
    window = _until_hopeless(plain.trial, records)
    limits = [c for c in sla.criteria if metric_of(c.metric).kind != "throughput"]
    broken = [t for c in limits if (t := tally(c, records, window)).n >= MIN_JUDGED and not t.met]
    worst = max(broken, key=lambda t: t.ratio, default=None)
    return _given_up(plain, worst, records, window) if worst else plain


def _given_up(plain: Reading, found: Tally, records: Records, window: Window) -> Reading:
    text = found.criterion.text
    fed = _fed(records, window, records.tokens_asked)
    return replace(plain, role="fail", failed=text, tallies={text: found}, **fed)


def _until_hopeless(trial: Trial, records: Records) -> Window:
    """What it saw until it was ended."""
    outcome = trial.outcome
    assert isinstance(outcome, Measured)  # by the caller
    return window_of(records, 0.0 if trial.probe.by == "rate" else outcome.stop.window_start_s, complete=True)


def _fed(records: Records, window: Window, tokens_out: NDArray[np.int32]) -> dict[str, Any]:
    """What came in the window: how many requests, how unlike each other, how bunched."""
    chosen = (records.scheduled_s >= window.start_s) & (records.scheduled_s <= window.end_s)
    cv2 = stats.squared_cv(records.tokens_in[chosen]) + stats.squared_cv(tokens_out[chosen])
    gaps_cv2 = stats.squared_cv(np.diff(records.scheduled_s[chosen]))
    return {"sent": int(chosen.sum()), "length_cv2": cv2 / 2, "arrival_cv2": gaps_cv2}


def _on_requests(criterion: Criterion, outcome: Measured, found: Tally) -> Tally:
    """What the requests say, or the command's totals where it kept no more than those of this criterion."""
    return found if found.n > 0 or not outcome.aggregates else _tally_totals(criterion, outcome.aggregates)


def _runs(tallies: Mapping[str, Tally], outcome: Measured) -> int:
    return len(outcome.aggregates) if any(found.from_totals for found in tallies.values()) else 0


def _full(trial: Trial, records: Records, window: Window, sla: Sla) -> bool:
    """Was it let run until it was full, or is it as good as that?"""
    outcome = trial.outcome
    assert isinstance(outcome, Measured)  # by the caller
    if outcome.stop.reason == "full":
        return True
    if outcome.stop.reason == "budget":
        if trial.probe.by == "rate" and stats.growth(records, window.start_s, window.end_s).z > 1.3:
            return False
        if window.length_s < window.start_s:
            return False
    judged = [c for c in sla.criteria if metric_of(c.metric).kind != "throughput"]
    return all(_on_requests(c, outcome, tally(c, records, window)).requests >= MIN_JUDGED for c in judged)


def outgrown(records: Records, window: Window) -> bool:
    """Did the number in flight grow beyond doubt in a run that nobody watched?"""
    rise = stats.growth(records, window.start_s, window.end_s)
    return rise.z > 6 and rise.share > 0.05


def _same_failed(text: str | None, sla: Sla) -> str | None:
    """The criterion of this SLA that a trial which was hopeless for `text` is hopeless for too."""
    if text is None:
        return None
    told = parse_criterion(text)
    for criterion in sla.criteria:
        stricter = criterion.bound >= told.bound if told.op.startswith(">") else criterion.bound <= told.bound
        if criterion.metric == told.metric and (criterion.text == text or stricter):
            return criterion.text
    return None


def _read_totals(trial: Trial, outcome: Measured, sla: Sla) -> Reading:
    tallies = {c.text: _tally_totals(c, outcome.aggregates) for c in sla.criteria}
    e2e_s = [run["mean_e2el_ms"] / 1e3 for run in outcome.aggregates if "mean_e2el_ms" in run]
    sent = int(sum(run.get("completed", 0) for run in outcome.aggregates))
    mean_e2e_s = float(np.mean(e2e_s)) if e2e_s else 1.0
    return Reading(
        trial=trial,
        role="scout" if trial.probe.kind == "scout" else "full",
        tallies=tallies,
        sent=sent,
        mean_e2e_s=mean_e2e_s,
        p90_e2e_s=1.5 * mean_e2e_s,
        runs=len(outcome.aggregates),
    )


def _tally_totals(criterion: Criterion, runs: Sequence[Mapping[str, float]]) -> Tally:
    """Counts give an error rate; of everything else only the value is known, and its spread between runs.

    A command that does not count its failures leaves an error rate that was asked for undecided. The one that holds by
    default then stands in nobody's way, and is not known.
    """
    if metric_of(criterion.metric).kind == "error_rate":
        counted = [run for run in runs if "failed" in run]
        k = sum(run["failed"] for run in counted)
        n = k + sum(run.get("completed", 0) for run in counted)
        if n > 0:
            return Tally(criterion=criterion, n=n, k=k, requests=int(n), stat=k / n)
        return Tally(criterion=criterion, n=MIN_JUDGED if criterion.default else 0)
    n = sum(run.get("completed", 0) for run in runs)
    values = [run[name] for run in runs for name in _names(criterion.metric) if name in run][: len(runs)]
    if not values or min(values) <= 0:
        return Tally(criterion=criterion)
    logs = np.log(values)
    stat = float(np.exp(logs.mean()))
    variance = float(logs.var(ddof=1)) if len(values) > 1 else 0.0
    return Tally(criterion=criterion, n=n, requests=int(n), stat=stat, relative_variance=variance, from_totals=True)


def _names(metric: str) -> tuple[str, ...]:
    """A median is a p50, whichever way a command calls it."""
    if metric.startswith("median_"):
        return metric, "p50_" + metric.removeprefix("median_")
    if metric.startswith("p50_"):
        return metric, "median_" + metric.removeprefix("p50_")
    return (metric,)
