"""Why more trials of a case would tell nothing about its capacity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redline.model import Failed, Measured, Outcome, Trial
from redline.records import Status

_FAILURES = 2  # in a row, with the server alive: the benchmark command is broken
_ALONE = 5  # requests that ran alone: enough to say that load is not why they fail
_LIGHTER = 16.0  # this much less load did not help: load is not why they fail


def why_hopeless(trials: Sequence[Trial], min_load: float) -> str | None:
    """The reason to stop after the last of these trials, in words for the user; None to go on.

    1. The benchmark command (or the session) broke twice in a row.
    2. More than half of the requests failed at the lowest load so far, and load is not why: it is the
       lowest allowed, or requests failed that had the server for themselves, or a much lighter load
       than before did not help.
    """
    if len(trials) >= _FAILURES and all(_command_broke(trial.outcome) for trial in trials[-_FAILURES:]):
        broke = trials[-1].outcome
        return f"{broke.reason}\n{broke.log_tail}".rstrip() if isinstance(broke, Failed) else None
    load = trials[-1].probe.load if trials else 0.0
    if not trials or not _mostly_broken(trials[-1].outcome) or load > min(trial.probe.load for trial in trials):
        return None
    highest = max(trial.probe.load for trial in trials if _mostly_broken(trial.outcome))
    if load <= min_load or highest >= _LIGHTER * load or _fails_alone(trials[-1].outcome):
        return _own_words(trials[-1])
    return None


def _command_broke(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and not outcome.server_died


def _mostly_broken(outcome: Outcome) -> bool:
    if not isinstance(outcome, Measured) or outcome.records is None:
        return False
    ended = ~outcome.records.running
    return bool(np.count_nonzero(outcome.records.broken) > 0.5 * np.count_nonzero(ended))


def _fails_alone(outcome: Outcome) -> bool:
    """Do most requests fail that found no other in the server? A rejection (429, 503) may be about the rate: no."""
    records = outcome.records if isinstance(outcome, Measured) else None
    if records is None or len(records) == 0:
        return False
    ends = np.where(np.isnan(records.end_s), np.inf, records.end_s)
    others = np.concatenate([[-np.inf], np.maximum.accumulate(ends)[:-1]])
    alone = (others <= records.sent_s) & ~records.running
    failed = alone & records.broken & (records.status != Status.REJECTED)
    return bool(alone.sum() >= _ALONE and failed.sum() > 0.5 * alone.sum())


def _own_words(trial: Trial) -> str:
    errors = trial.outcome.client.errors if isinstance(trial.outcome, Measured) else {}
    said = "; ".join(f"{text} ({times}x)" for text, times in sorted(errors.items(), key=lambda item: -item[1])[:3])
    return (
        f"more than half of the requests failed at the lowest load tried ({trial.probe.load:g}); "
        f"the server says: {said or 'nothing'}. Check the model, the API and the workload, or lower --min"
    )
