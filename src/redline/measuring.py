"""Loads measured by hand: each once and whole, as a benchmark client does; keeping them is up to the caller."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from redline import process
from redline.api import worst
from redline.bench.vllmresult import PERCENTILES, Told, vllm_result
from redline.codec import finite
from redline.events import Emit, Noted, ServerReady, ServerStarting, ServerStopped
from redline.experiment.estimate import judged_requests
from redline.experiment.plan import jobs
from redline.loadgen import open_session
from redline.model import (
    UNITS,
    Case,
    ClientEvidence,
    Experiment,
    Failed,
    JsonValue,
    Measured,
    Probe,
    Sla,
    Stop,
    Trial,
    UsageError,
    Workload,
)
from redline.questions import loads_of
from redline.records import Records, Status
from redline.requesttable import csv_lines, json_lines
from redline.runner.lab import Lab, seeds
from redline.runner.local import Keeper, local_lab
from redline.runner.trial import Setting
from redline.runner.trial import measure as run_once
from redline.server import attach
from redline.stored import verdict_entry
from redline.verdict import judge, summary, usable
from redline.verdict.tally import steady_window
from redline.wording import duration, load_text

SCHEMA = "redline.bench/1"
SHOWN = ("median_ttft_ms", "p99_ttft_ms", "p99_tpot_ms")  # while it runs
_DEFAULT_REQUESTS = 1_000  # ten are beyond a p99
_OF_EACH = 10.0  # seconds of a high rate, or requests of each of many users
_MORE = 1.2  # than are judged: the first ones warm up
_NO_LIMIT_S = 1e7
_NO_SLA = Sla(name="", criteria=())  # by which only the client is judged
_VERDICT_CODES = {"fail": 3, "undecided": 4, "pass": 0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How much is measured at each load; None: no such limit, and the default where there is none at all."""

    requests: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Saying:
    """What the result says beyond what was measured."""

    label: str | None = None
    goodput_ms: Mapping[str, float] = field(default_factory=dict)
    percentiles: Sequence[float] = PERCENTILES
    detailed: bool = False  # with lists of what is known of each request


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Loads to measure, read and found good; nothing is started yet."""

    experiment: Experiment  # of one server and one workload; its goal lists the loads
    extent: Extent
    saying: Saying

    @property
    def workload(self) -> Workload:
        workload = self.experiment.workloads[0]
        assert isinstance(workload, Workload)  # bench_experiment sees to it
        return workload

    def requests(self, load: float) -> int | None:
        """How many are sent at most; None: as many as the time allows."""
        if self.extent.requests is not None or self.extent.duration_s is not None:
            return self.extent.requests
        judged = max((judged_requests(c) for sla in self.experiment.slas for c in sla.criteria), default=0)
        return max(_DEFAULT_REQUESTS, math.ceil(_OF_EACH * load), math.ceil(_MORE * judged))

    def probe(self, load: float) -> Probe:
        """All users of a closed loop start at once, as vLLM's do."""
        return Probe(
            by=self.experiment.goal.by,
            load=load,
            kind="list",
            spread_s=0.0,
            max_s=self.extent.duration_s or _NO_LIMIT_S,
            max_requests=self.requests(load),
            drain=True,
        )

    def in_words(self, load: float) -> str:
        """What will be sent: `1,000 requests at 8 requests/s (--requests), about 2 min 5 s`."""
        count, limit_s, by = self.requests(load), self.extent.duration_s, self.experiment.goal.by
        sent = f"{count:,} requests" if count else "requests"
        words = f"{sent} at {load_text(load, by)}" if by == "rate" else f"{sent} with {load:g} in flight"
        if self.extent == Extent():
            words += " (--requests)"
        if limit_s is not None:
            return f"{words} for {duration(limit_s)}" + (" at most" if count else "")
        return f"{words}, about {duration(count / load)}" if count and by == "rate" else words


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One load as it was measured."""

    trial: Trial
    model: str
    began: datetime
    cut_short: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was measured, load by load; fewer loads than planned where it came to an early end."""

    rows: tuple[Row, ...]
    stopped: bool = False  # by somebody


def prepare(url: str, slas: Sequence[str], options: Mapping[str, Any], extent: Extent, saying: Saying) -> Plan:
    """What to measure, its seed drawn where none is given; UsageError has everything that is wrong with it."""
    experiment = loads_of(url, slas, options)
    if experiment.goal.curve:
        raise UsageError("--loads auto belongs to redline find and redline run; give loads such as 1,2,4")
    if not experiment.goal.loads:
        raise UsageError("at which load? Add --rate 8, --concurrency 16 or --loads 1,2,4")
    goal = experiment.goal
    goal = replace(goal, seed=secrets.randbits(31) if goal.seed is None else goal.seed)
    return Plan(experiment=replace(experiment, goal=goal), extent=extent, saying=saying)


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(plan: Plan, emit: Emit) -> Found:
    """Each load in turn; fewer where the server died, or where somebody stopped it.

    Raises:
        UsageError: the server does not take such requests, or an environment variable is not set.
        RedlineError: the server does not answer.
        Interrupted: stopped before anything was measured.
    """
    config, goal = plan.experiment.servers[0], plan.experiment.goal
    (case,) = jobs(plan.experiment)[0].cases
    rows: list[Row] = []
    with process.interruptible(), ExitStack() as stack:
        stack.callback(emit, ServerStopped(server=config))
        emit(ServerStarting(server=config))
        began = time.monotonic()
        subject = stack.enter_context(attach(config))
        emit(ServerReady(server=config, endpoint=subject.endpoint, took_s=time.monotonic() - began))
        workload = _opened(plan.workload)
        session = stack.enter_context(open_session(subject.endpoint, workload, load_workers=goal.load_workers))
        for number, load in enumerate(goal.loads, 1):
            by_hand = _ByHand(number=number, seed=seeds(goal.seed)(number))
            setting = Setting(lab=by_hand.lab(), case=case, subject=subject, session=session, emit=emit)
            try:
                emit(Noted(text=plan.in_words(load)))
                trial = run_once(setting, by_hand.sla(plan), plan.probe(load), [row.trial for row in rows])
            except KeyboardInterrupt:
                if by_hand.seen is not None:
                    trial = by_hand.cut_short(case, plan.probe(load), by_hand.seen, session.facts)
                    rows.append(Row(trial=trial, model=subject.endpoint.model, began=by_hand.began, cut_short=True))
                elif not rows:
                    raise
                return Found(rows=tuple(rows), stopped=True)
            trial = replace(trial, warnings=tuple(dict.fromkeys([*trial.warnings, *session.warnings])))
            rows.append(Row(trial=trial, model=subject.endpoint.model, began=by_hand.began))
            if getattr(trial.outcome, "server_died", False):
                break
    return Found(rows=tuple(rows))


def _opened(workload: Workload) -> Workload:
    """Prompts of a file begin with words of their own: the server may hold them since an earlier measurement."""
    dataset = workload.dataset
    if dataset is None or workload.repeat:
        return workload
    return replace(workload, dataset=replace(dataset, first=len(dataset.sizes)))


@dataclass(slots=True, kw_only=True)
class _ByHand:
    """What the lab of one measurement remembers, so that one that is stopped is not lost."""

    number: int
    seed: int
    began: datetime = field(default_factory=datetime.now)
    seen: Records | None = None  # as of the last second

    def lab(self) -> Lab:
        keeper = Keeper(next_id=lambda: f"{self.number:04}", log_dir=Path)  # of a running server there are no logs
        plain = local_lab(keeper)
        return replace(plain, watcher=lambda *_: self._watch, seed=lambda _: self.seed, shown=SHOWN)

    def sla(self, plan: Plan) -> Sla:
        """Whose metrics are shown beside ours."""
        return next(iter(plan.experiment.slas), _NO_SLA)

    def cut_short(self, case: Case, probe: Probe, seen: Records, facts: Mapping[str, JsonValue]) -> Trial:
        """The trial as far as it came."""
        sent = int(np.count_nonzero(~np.isnan(seen.sent_s)))
        outcome = Measured(
            stop=Stop(reason="budget", at_s=seen.observed_s, detail="stopped by the user"),
            duration_s=seen.observed_s,
            records=seen,
            client=ClientEvidence(due=sent, sent=sent),  # what it did is known only at the end
        )
        return Trial(
            id=f"{self.number:04}",
            case=case.key,
            probe=probe,
            seed=self.seed,
            started=self.began.astimezone(UTC).isoformat(timespec="milliseconds"),
            outcome=outcome,
            facts=facts,
        )

    def _watch(self, records: Records) -> None:
        self.seen = records


# ---- what it came to -------------------------------------------------------------------------------------------------


def result_of(plan: Plan, row: Row) -> dict[str, Any] | None:
    """vLLM's result, and under `redline` what we add; None where nothing was measured."""
    outcome = row.trial.outcome
    if not isinstance(outcome, Measured) or outcome.records is None:
        return None
    told = Told(
        by=plan.experiment.goal.by,
        load=row.trial.probe.load,
        workload=plan.workload,
        model=row.model,
        began=row.began,
        **asdict(plan.saying),
    )
    ours = _ours(plan, row, outcome, outcome.records)
    result: dict[str, Any] = finite({**vllm_result(outcome.records, told), "redline": ours})
    return result


def _ours(plan: Plan, row: Row, outcome: Measured, records: Records) -> dict[str, Any]:
    trial, goal, status = row.trial, plan.experiment.goal, records.status
    good, why = usable(trial, _NO_SLA)
    window = steady_window(outcome)
    client = asdict(outcome.client)
    return {
        "schema": SCHEMA,
        "variable": goal.by,
        "load": trial.probe.load,
        "unit": UNITS[goal.by],
        "offered_per_s": _offered_per_s(records) if goal.by == "rate" else None,
        "workload": plan.workload.name,
        "seed": goal.seed,
        "started": trial.started,
        "cut_short": row.cut_short,
        "unfinished": int(records.running.sum()),
        "rejected": int(np.sum(status == Status.REJECTED)),
        "timed_out": int(np.sum(status == Status.TIMED_OUT)),
        "errors": client.pop("errors"),
        "steady": None if window is None else {"from_s": window.start_s, "to_s": window.end_s, **summary(outcome)},
        "verdicts": [_judged(trial, sla, goal.confidence) for sla in plan.experiment.slas],
        "client": {**client, "good": good, "reason": why},
        "facts": trial.facts,
        "warnings": [*trial.warnings, *_too_few(plan, row, records)],
    }


def _too_few(plan: Plan, row: Row, records: Records) -> Iterator[str]:
    """Users who have no second request were never all there at once, but for a moment."""
    by, load = plan.experiment.goal.by, row.trial.probe.load
    if by == "concurrency" and not row.cut_short and len(records) < 2 * load:
        yield f"{len(records)} requests cannot keep {load:g} in flight: raise --requests or --duration"


def _offered_per_s(records: Records) -> float | None:
    """The rate that came of the random gaps; None where there are too few to tell."""
    last_s = float(records.scheduled_s[-1]) if len(records) else 0.0
    return len(records) / last_s if last_s > 0 else None


def _judged(trial: Trial, sla: Sla, confidence: float) -> dict[str, object]:
    return {"sla": sla.name, **verdict_entry(trial, sla, confidence)}


def csv_of(plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    """Every request of all rows, with the load that it was part of."""
    for number, (load, records) in enumerate(_requests(plan, rows)):
        yield from csv_lines(records, load, header=number == 0)


def json_of(plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    """The same as an object of JSON in each line, with the gaps between events."""
    for load, records in _requests(plan, rows):
        yield from json_lines(records, load)


def _requests(plan: Plan, rows: Sequence[Row]) -> Iterator[tuple[dict[str, object], Records]]:
    name = {"rate": "rate_per_s", "concurrency": "concurrency"}[plan.experiment.goal.by]
    for row in rows:
        if isinstance(row.trial.outcome, Measured) and row.trial.outcome.records is not None:
            yield {name: row.trial.probe.load}, row.trial.outcome.records


def exit_code(plan: Plan, found: Found) -> int:
    """130 cut short, 1 broken or nothing answered, 5 the client was the limit; of one load also its verdict: 3, 4."""
    if found.stopped:
        return 130
    codes = {_code(row) for row in found.rows}
    if len(plan.experiment.goal.loads) == 1 and codes == {0}:
        confidence = plan.experiment.goal.confidence
        codes |= {_VERDICT_CODES[judge(found.rows[0].trial, sla, confidence).verdict] for sla in plan.experiment.slas}
    return worst(codes)


def _code(row: Row) -> int:
    outcome = row.trial.outcome
    if isinstance(outcome, Failed):
        return 1
    if not usable(row.trial, _NO_SLA)[0]:
        return 5
    return 0 if isinstance(outcome, Measured) and outcome.records is not None and outcome.records.ok.any() else 1
