"""One trial: wait until the server is quiet, measure, show how it goes, and see whether the server lives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from redline.events import Emit, Progress, TrialEnded, TrialStarted
from redline.model import (
    Case,
    Failed,
    Measured,
    Outcome,
    Probe,
    RedlineError,
    Session,
    Sla,
    Stop,
    Trial,
    UsageError,
    Watch,
)
from redline.records import Records
from redline.runner.lab import Lab, Subject

_IDLE_S = 60.0
_STATS_SHARE = 0.05  # of the time at most goes into statistics for the eye


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Where a case is measured, and who is told of it."""

    lab: Lab
    case: Case
    subject: Subject
    session: Session
    emit: Emit


def measure(setting: Setting, sla: Sla, probe: Probe, evidence: Sequence[Trial]) -> Trial:
    """Measure once; what breaks is the trial's outcome, but for a UsageError.

    `evidence` holds the trials before this one; it is judged for `sla` while it runs.
    """
    lab, case, subject, session = setting.lab, setting.case, setting.subject, setting.session
    number = len(evidence) + 1
    warnings = [*subject.warnings, *getattr(session, "warnings", ())]
    if restless := subject.settle(_settle_limit_s(evidence)):
        warnings.append(restless)
    subject.reset_caches()
    setting.emit(TrialStarted(case=case, probe=probe, number=number))
    watch = _Watching(
        case=case,
        probe=probe,
        subject=subject,
        judge=lab.watcher(probe, sla, tuple(evidence)),
        metrics=tuple(dict.fromkeys([*(criterion.metric for criterion in sla.criteria), *lab.shown])),
        summary=lab.summary,
        emit=setting.emit,
    )
    seed = lab.seed(number)
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    try:
        outcome = session.measure(probe, watch, seed)
    except UsageError:
        raise
    except RedlineError as error:
        outcome = Failed(reason=str(error))
    if watch.died or not subject.alive():
        outcome = _death(outcome, subject)
    trial = Trial(
        id=lab.next_id(),
        case=case.key,
        probe=probe,
        seed=seed,
        started=started,
        outcome=outcome,
        server_start=subject.start_id,
        facts=getattr(session, "facts", {}),
        warnings=tuple(dict.fromkeys([*warnings, *getattr(session, "warnings", ())])),
    )
    setting.emit(TrialEnded(case=case, trial=trial))
    return trial


@dataclass(slots=True, kw_only=True)
class _Watching:
    """The watch that judges, with progress and an eye on the server beside it."""

    case: Case
    probe: Probe
    subject: Subject
    judge: Watch
    metrics: Sequence[str]  # whose values so far are shown
    summary: Callable[[Measured], Mapping[str, float]]
    emit: Emit
    died: bool = False
    broken: int = 0
    stats: Mapping[str, float] = field(default_factory=dict)
    stats_due_s: float = 0.0  # by the monotonic clock

    def __call__(self, records: Records) -> Stop | None:
        broken = int(np.count_nonzero(records.broken))
        if broken > self.broken and not self.subject.alive():
            self.died = True
            return Stop(reason="ended", at_s=records.observed_s, detail="server died")
        self.broken = broken
        self._show(records)
        return self.judge(records)

    def _show(self, records: Records) -> None:
        began = time.monotonic()
        if began >= self.stats_due_s:
            seen = Measured(
                stop=Stop(reason="ended", at_s=records.observed_s), duration_s=records.observed_s, records=records
            )
            summary = self.summary(seen)
            self.stats = {metric: summary[metric] for metric in self.metrics if metric in summary}
            self.stats_due_s = began + (time.monotonic() - began) / _STATS_SHARE
        self.emit(
            Progress(
                case=self.case,
                probe=self.probe,
                now_s=records.observed_s,
                sent=int(np.count_nonzero(~np.isnan(records.sent_s))),
                finished=int(np.count_nonzero(records.ok)),
                failed=self.broken,
                stats=self.stats,
            )
        )


def _death(outcome: Outcome, subject: Subject) -> Failed:
    words = outcome.reason if isinstance(outcome, Failed) else "the server died during the trial"
    return Failed(reason=words, duration_s=outcome.duration_s, log_tail=subject.log_tail(), server_died=True)


def _settle_limit_s(evidence: Sequence[Trial]) -> float:
    """Long enough for what the trial before may have left in the server's queue."""
    last = evidence[-1].outcome if evidence else None
    if not isinstance(last, Measured) or last.records is None or not last.records.ok.any():
        return _IDLE_S
    return max(_IDLE_S, 2.0 * float(np.nanpercentile(last.records.e2el_ms(), 90)) / 1e3)
