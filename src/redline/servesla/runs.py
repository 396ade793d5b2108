"""One trial of a sweep: the user's benchmark, with its own number of prompts, run as often as the criteria need."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redline import process
from redline.bench import Reading, ResultError
from redline.bench.checked import json_object
from redline.bench.command import lateness_s, measured, next_folder, not_offered, unknown_metrics, warm_up_s
from redline.bench.vllm import result_of
from redline.experiment.commands import fill
from redline.model import (
    ClientEvidence,
    Criterion,
    Failed,
    Invalid,
    JsonValue,
    Measured,
    Outcome,
    Probe,
    Sla,
    Stop,
    Trial,
    Variable,
    Watch,
)
from redline.records import Records
from redline.search.evidence import least, outgrown
from redline.servesla.completing import runs_fact
from redline.servesla.parameters import Pair
from redline.servesla.tree import Run, Tree
from redline.servesla.words import prompts_of, run_command, saves_details
from redline.sla import met, metric_of, parse_criterion, ratio
from redline.verdict import judge, summary
from redline.verdict.tally import steady_window, tally

MOST_RUNS = 20  # in one trial, where the prompts are few and the percentile is high
_HOPELESS = 1.5  # times the bound, where only totals are known
_SURE = 0.9
_FIRST_S = 60.0
_RESULT = "result.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """What is run for one pair."""

    pair: Pair
    command: tuple[str, ...]  # with {rate} or {concurrency}
    percentiles: tuple[str, ...] = ()
    num_runs: int = 3
    timeout_s: float = 3_600.0  # beyond the time that sending takes


@dataclass(slots=True)
class Runs:
    """Measures one pair of a sweep; raw results and output stay below `log_dir`."""

    benchmark: Benchmark
    tree: Tree
    directory: Path  # of the experiment
    log_dir: Path  # in there
    between: Callable[[], None]  # after each run: the user's command, or the reset of the server's caches
    live: bool = False
    objects: list[Run] = field(default_factory=list)  # of the last trial, once it was measured
    facts: Mapping[str, JsonValue] = field(default_factory=dict)  # to find the same again

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:  # noqa: ARG002 - the user's command has its own
        """One run for a first look; else --num-runs, fewer where it is hopeless, more where they say too little.

        It lasts as long as all its runs do by the clock, with their start-up: budgets are of that time. Once it has
        lasted for the probe's `max_s`, no further run begins.
        """
        began = time.monotonic()
        outcome = self._measure(probe, began + probe.max_s)
        return replace(outcome, duration_s=time.monotonic() - began)

    def _measure(self, probe: Probe, until: float) -> Outcome:
        self.objects, self.facts = [], {}
        criteria = [parse_criterion(text) for text in probe.need]
        readings: list[Reading] = []
        objects: list[Run] = []
        files: dict[int, Path] = {}
        while True:
            folder = next_folder(self.log_dir)
            found = self._run(probe, folder, objects)
            if not isinstance(found, Reading):
                return found
            readings.append(found)
            files[objects[-1]["run_number"]] = folder / _RESULT
            outcome = pooled(probe, readings)
            late = time.monotonic() >= until
            if late or self._enough(probe, outcome, criteria, len(readings)):
                break
        if why := burst(probe, readings, outcome, criteria) or too_few(probe, readings, outcome, criteria):
            more = " or --max-time" if late else ""
            return Invalid(reason=why, cure=f"raise --num-prompts in --bench-cmd{more}")
        self.objects, self.facts = objects, runs_fact(files, self.directory)
        return outcome

    def _enough(self, probe: Probe, outcome: Measured, criteria: Sequence[Criterion], runs: int) -> bool:
        if probe.kind == "scout" or outcome.stop.reason == "over" or hopeless(probe, outcome, criteria):
            return True
        return runs >= self.benchmark.num_runs and (runs >= MOST_RUNS or says_enough(outcome, criteria))

    def _run(self, probe: Probe, folder: Path, objects: list[Run]) -> Reading | Failed | Invalid:
        """One run of the benchmark, with its files in this folder; its object is added to `objects`."""
        bench, result, log = self.benchmark, folder / _RESULT, folder / "command.log"
        filled = fill(bench.command, {probe.by: f"{probe.load:.10g}"})
        argv = run_command(filled, str(folder), result.name, bench.percentiles)
        limit_s = limit_of(bench.timeout_s, bench.command, probe.by, probe.load)
        why = execute(argv, log, limit_s)

        def failed(reason: str) -> Failed:
            return Failed(reason=f"{reason}; its output: {log}", log_tail=process.tail(log))

        if why:
            return failed(why)
        try:
            data = json_object(result)
            reading = result_of(data, result)
        except ResultError as error:
            return failed(f"the benchmark returned 0, but left no usable result: {error}")
        if missing := unknown_metrics(probe, reading):
            return failed(f"{result} says nothing about {', '.join(missing)}")
        if refusal := not_offered(probe, reading):
            return Invalid(reason=refusal[0], cure=refusal[1])
        number = len(self.tree.runs_at(bench.pair, probe.load)) + len(objects)
        run = self.tree.run_object(data, bench.pair, probe.load, number, detailed=saves_details(bench.command))
        objects.append(run)
        self.between()
        return reading


def limit_of(timeout_s: float, command: Sequence[str], by: Variable, load: float) -> float:
    """How long a benchmark may take: the timeout begins once its last request was due."""
    return timeout_s + ((prompts_of(command) or 0) / load if by == "rate" else 0.0)


def execute(argv: Sequence[str], log: Path, limit_s: float) -> str:
    """Run a benchmark to its end; why it failed, or nothing."""
    code = process.run(argv, log, limit_s)
    if code is None:
        return f"the benchmark did not end within {limit_s:g} s (--bench-timeout)"
    return f"the benchmark {process.how_ended(code)}" if code else ""


def pooled(probe: Probe, readings: Sequence[Reading]) -> Measured:
    """Several runs at one load as one measurement: the steady part of each behind that of the one before."""
    warm_ups_s = [_warm_up_s(probe, reading) for reading in readings]
    runs = [measured(probe, reading, warm_s) for reading, warm_s in zip(readings, warm_ups_s, strict=True)]
    duration_s = sum(run.duration_s for run in runs)
    parts = [run.records for run in runs if run.records is not None]
    records = _joined(parts, warm_ups_s) if len(parts) == len(runs) else None
    errors: Counter[str] = Counter()
    for run in runs:
        errors.update(run.client.errors)
    late_p50_s, late_p99_s = lateness_s(records)
    outgrown = probe.by == "rate" and any(_outgrown(run) for run in runs)
    return Measured(
        stop=Stop(
            reason="over" if outgrown else "ended",
            at_s=duration_s,
            window_start_s=runs[0].stop.window_start_s,
            detail="the queue grew to the end of a run" if outgrown else "",
        ),
        duration_s=duration_s,
        records=records,
        aggregates=tuple(totals for run in runs for totals in run.aggregates),
        client=ClientEvidence(
            due=sum(run.client.due for run in runs),
            sent=sum(run.client.sent for run in runs),
            late_p50_s=late_p50_s,
            late_p99_s=late_p99_s,
            errors=dict(errors),
        ),
    )


def _warm_up_s(probe: Probe, reading: Reading) -> float:
    """What is cut off from the start of a run; of a fixed number of users at most their first requests.

    Twice the number of users may be all the prompts that there are.
    """
    records, users = reading.records, int(probe.load)
    if records is None or probe.by == "rate" or len(records) <= users:
        return warm_up_s(reading)
    return min(warm_up_s(reading), float(records.scheduled_s[users]))


def _outgrown(run: Measured) -> bool:
    """Did the number in flight grow beyond doubt within this run?"""
    window = steady_window(run)
    if run.records is None or window is None:
        return False
    return outgrown(run.records, window)


def _joined(parts: Sequence[Records], warm_ups_s: Sequence[float]) -> Records:
    """The requests of several runs in one row; of all but the first, without their warm-up.

    The next run begins when the last request of the one before was sent: the time in which that run emptied belongs to
    no load.
    """
    taken, begin_s = [], 0.0
    for number, (records, warm_s) in enumerate(zip(parts, warm_ups_s, strict=True)):
        cut_s = warm_s if number else 0.0
        chosen = records.scheduled_s >= cut_s
        if not chosen.any():
            continue
        taken.append(_shifted(records, chosen, begin_s - cut_s))
        sent_s = float(records.scheduled_s[-1]) - cut_s
        begin_s += sent_s * (1 + 1 / max(int(chosen.sum()) - 1, 1))
    with_gaps = all(len(part.gap_offsets) for part in taken)
    lengths = [np.diff(part.gap_offsets) for part in taken] if with_gaps else []
    columns = {
        name: np.concatenate([getattr(part, name) for part in taken])
        for name in ("scheduled_s", "sent_s", "first_s", "end_s", "tokens_in", "tokens_out", "tokens_asked", "status")
    }
    return Records(
        observed_s=max(part.observed_s for part in taken),
        **columns,
        gaps_us=np.concatenate([part.gaps_us for part in taken]) if with_gaps else np.zeros(0, np.int32),
        gap_offsets=np.cumsum(np.concatenate([[0], *lengths])) if with_gaps else np.zeros(0, np.int64),
    )


def _shifted(records: Records, chosen: NDArray[np.bool_], by_s: float) -> Records:
    gaps = len(records.gap_offsets) > 0
    lengths = np.diff(records.gap_offsets) if gaps else np.zeros(0, np.int64)
    return Records(
        observed_s=records.observed_s + by_s,
        scheduled_s=records.scheduled_s[chosen] + by_s,
        sent_s=records.sent_s[chosen] + by_s,
        first_s=records.first_s[chosen] + by_s,
        end_s=records.end_s[chosen] + by_s,
        tokens_in=records.tokens_in[chosen],
        tokens_out=records.tokens_out[chosen],
        tokens_asked=records.tokens_asked[chosen],
        status=records.status[chosen],
        gaps_us=records.gaps_us[np.repeat(chosen, lengths)] if gaps else records.gaps_us,
        gap_offsets=np.cumsum(np.concatenate([[0], lengths[chosen]])) if gaps else records.gap_offsets,
    )


def hopeless(probe: Probe, outcome: Measured, criteria: Sequence[Criterion]) -> bool:
    """Is a criterion broken beyond doubt, so that further runs would tell nothing?"""
    if outcome.records is not None:
        trial = Trial(id="", case="", probe=probe, seed=0, started="", outcome=outcome)
        if judge(trial, Sla(name="", criteria=tuple(criteria)), _SURE).verdict == "fail":
            return True
    values = summary(outcome)
    totals = [c for c in criteria if any(c.metric in run for run in outcome.aggregates)]
    return any(ratio(c, values[c.metric]) > _HOPELESS for c in totals if not metric_of(c.metric).upward)


def says_enough(outcome: Measured, criteria: Sequence[Criterion]) -> bool:
    """Were so many requests judged that the search could rest an answer on them?"""
    window = steady_window(outcome)
    reported = sum(run.get("completed", 0.0) for run in outcome.aggregates)
    for criterion in criteria:
        judged = 0.0
        if outcome.records is not None and window is not None:
            judged = tally(criterion, outcome.records, window).n
        if (judged or reported) < least(criterion):
            return False
    return True


def burst(probe: Probe, readings: Sequence[Reading], outcome: Measured, criteria: Sequence[Criterion]) -> str:
    """Why these runs met the SLA only because they were over before the load had begun; empty where they did not.

    So few prompts at so high a rate are all sent before an ordinary one ends. That they are too slow all the same is
    evidence; that they are not says nothing about a load that lasts.
    """
    sending_s = min((r.sending_s for r in readings if r.sending_s is not None), default=math.inf)
    mean_s = summary(outcome).get("mean_e2el_ms", 0.0) / 1e3
    if probe.by != "rate" or not sending_s < mean_s or not _keeps(outcome, criteria):
        return ""
    return (
        f"{readings[0].requests} prompts at {probe.load:g} requests/s are sent within {sending_s:.3g} s, "
        f"but one takes {mean_s:.3g} s: that is a burst, and no load"
    )


def too_few(probe: Probe, readings: Sequence[Reading], outcome: Measured, criteria: Sequence[Criterion]) -> str:
    """Why these runs keep the criteria but are too few to say so; empty where they are enough."""
    if probe.kind == "scout" or says_enough(outcome, criteria) or not _keeps(outcome, criteria):
        return ""
    most = max(criteria, key=least)
    return (
        f"{len(readings)} runs of {readings[0].requests} prompts are too few for {most.text} ({least(most):g} to judge)"
    )


def _keeps(outcome: Measured, criteria: Sequence[Criterion]) -> bool:
    values = summary(outcome)
    return all(met(c, values[c.metric]) for c in criteria if c.metric in values)


def with_first_load(probe: Probe, prompts: int | None, most: float) -> Probe:
    """The very first look at a load at which the prompts last about a minute, or as long as one per user would.

    A thousand prompts at one request per second would last a quarter of an hour, one after another perhaps longer.
    """
    if probe.kind != "scout" or prompts is None:
        return probe
    load = float(f"{prompts / _FIRST_S:.4g}") if probe.by == "rate" else float(prompts // int(_FIRST_S))
    return replace(probe, load=min(max(probe.load, load), most))
