"""One measurement by a benchmark command of somebody else."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from redline import process, stats
from redline.bench.readers import reader_of
from redline.bench.reading import Reading, ResultError, knows
from redline.experiment.plan import fill
from redline.model import (
    ClientEvidence,
    CommandWorkload,
    Endpoint,
    Failed,
    Invalid,
    Measured,
    Outcome,
    Probe,
    Stop,
    Watch,
)
from redline.records import Records
from redline.sla import parse_criterion

DEFAULT_REQUESTS = 150
LEAST_SENT = 0.9  # of the load that was asked for: with less, the trial says nothing about that load
_START_UP_S = 60.0  # imports and tokenizers of the client: no part of the measurement that `max_s` limits
_COUNTS = {"completed", "failed", "error_rate"}
_LEAST_S = 15.0  # of sending; shorter ones answered 4 to 10 % too high on simulated servers
_SLIP_S = 0.1  # once in a run
_TELLS_MORE = {
    "vllm": ": --save-detailed, or --percentile-metrics and --metric-percentiles",
    "sglang": ": --output-details",
    "inference-perf": ": --report.request_lifecycle.per_request true",
}
_SEEDS = 2**32  # numpy's own limit, which clients hand their seed to


class CommandSession:
    """Runs the command of a workload once for each probe; its output and result file stay below `log_dir`."""

    live = False

    def __init__(self, endpoint: Endpoint, workload: CommandWorkload, log_dir: Path) -> None:
        self._endpoint = endpoint
        self._workload = workload
        self._log_dir = log_dir.resolve()
        self._read = reader_of(workload.reader)
        self._warm_ups_s: dict[float, float] = {}  # by load

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:  # noqa: ARG002 - no records before the end
        """Run the command at the probe's load, and read what it found; `watch` is never called."""
        requests = requests_for(probe, nearest_below(self._warm_ups_s, probe.load))
        if probe.by == "concurrency" and requests < 2 * probe.load:
            return Invalid(
                reason=f"{requests} requests cannot keep {probe.load:g} in flight",
                cure="allow more requests (--max-requests), or search below this load (--max)",
            )
        folder = next_folder(self._log_dir)
        result, log = folder / "result.json", folder / "command.log"
        argv = fill(
            self._workload.command,
            {
                "url": self._endpoint.url,
                "model": self._endpoint.model,
                probe.by: f"{probe.load:.10g}",
                "requests": str(requests),
                "seed": str(seed % _SEEDS),
                "result": str(result),
            },
        )
        limit_s = min(self._workload.timeout_s, probe.max_s + _START_UP_S)
        began = time.monotonic()
        code = process.run(argv, log, limit_s)
        took_s = time.monotonic() - began

        def failed(reason: str) -> Failed:
            return Failed(reason=reason, duration_s=took_s, log_tail=process.tail(log))

        if code is None:
            which = "the workload's timeout_s" if limit_s == self._workload.timeout_s else "the time left for it"
            return failed(f"the benchmark command did not end within {limit_s:g} s ({which}); its output: {log}")
        if code:
            return failed(f"the benchmark command {process.how_ended(code)}; its output: {log}")
        try:
            reading = self._read(result)
        except ResultError as error:
            return failed(f"the benchmark command returned 0, but left no usable result: {error}")
        if reading.completed and reading.records is None and reading.aggregates.keys() <= _COUNTS:
            return failed(f"{result} holds no number on any request")
        if missing := unknown_metrics(probe, reading):
            cure = _TELLS_MORE.get(self._workload.reader, "")
            return failed(f"{result} says nothing about {', '.join(missing)}; have the command report it{cure}")
        if refusal := not_offered(probe, reading):
            return Invalid(reason=refusal[0], cure=refusal[1], duration_s=took_s)
        self._warm_ups_s[probe.load] = warm_up_s(reading)
        # Its start-up belongs to the time that was spent, and that budgets limit.
        return replace(measured(probe, reading, self._warm_ups_s[probe.load]), duration_s=took_s)


def requests_for(probe: Probe, warm_up_s: float) -> int:
    """How many requests the command shall send: those that are judged, and those around them that are not.

    In open loop so many that sending lasts a while: a burst of a few requests fits into the queue of any server. A
    command cannot be let run on when the queue still grows, and its totals hold the warm-up too, so it runs longer than
    our own generator would.
    """
    judged = max(probe.need.values(), default=DEFAULT_REQUESTS)
    if probe.by == "rate":
        least_s = max(1.0, warm_up_s / 2) if probe.kind == "scout" else max(_LEAST_S, 4 * warm_up_s)
        requests = 1.2 * (max(judged, least_s * probe.load) + warm_up_s * probe.load)
    else:
        requests = max(judged + 2 * probe.load, 10 * probe.load)
    return math.ceil(min(requests, probe.max_requests or math.inf))


def nearest_below(by_load: Mapping[float, float], load: float) -> float:
    """What was seen at the nearest load that is not heavier, else at the lightest; 0 before anything was seen."""
    lighter = [known for known in by_load if known <= load]
    return by_load[max(lighter) if lighter else min(by_load)] if by_load else 0.0


def unknown_metrics(probe: Probe, reading: Reading) -> list[str]:
    """The metrics that the probe is there for and that this run cannot tell."""
    names = [parse_criterion(text).metric for text in probe.need]
    return [name for name in names if not knows(reading, name)]


def not_offered(probe: Probe, reading: Reading) -> tuple[str, str] | None:
    """Why this run did not offer the load of its probe, and the cure; None when nothing speaks against it.

    Each test is one that no client which does offer the load can fail, whatever the server does.
    """
    if probe.by == "rate":
        return _rate_not_offered(probe.load, reading)
    return _concurrency_not_offered(int(probe.load), reading)


def _rate_not_offered(rate: float, reading: Reading) -> tuple[str, str] | None:
    if reading.asked_rate is not None and not math.isclose(reading.asked_rate, rate, rel_tol=0.01):
        return f"the command ran at {reading.asked_rate:g} requests/s, not {rate:g}", "put {rate} into the command"
    due, sent = rate * (reading.sending_s or 0.0), reading.requests - 1
    if sent < LEAST_SENT * due and due - sent > _by_chance(due, reading):
        offered = f"the command sent {sent / (due / rate):.3g} requests/s where {rate:g} were asked"
        return offered, "give the client more CPU, or run it on a machine of its own"
    return None


def _by_chance(due: float, reading: Reading) -> float:
    """So many requests fewer than were due can be the luck of random arrivals, or a client that started a bit late."""
    if not reading.exact_rate:
        return 3 * math.sqrt(due)
    return 2 + 0.01 * due + _SLIP_S * due / (reading.sending_s or math.inf)


def _concurrency_not_offered(users: int, reading: Reading) -> tuple[str, str] | None:
    if reading.asked_concurrency is not None and reading.asked_concurrency != users:
        ran = f"the command kept {reading.asked_concurrency} requests in flight, not {users}"
        return ran, "put {concurrency} into the command"
    if reading.requests < 2 * users:
        return f"{reading.requests} requests cannot keep {users} in flight", "put {requests} into the command"
    if reading.in_flight_max is not None and reading.in_flight_max < users:
        return f"never more than {reading.in_flight_max} of {users} requests were in flight", "see the command's limits"
    if reading.records is not None and not reading.failed:
        # Users who send at once again cannot need longer than this (Graham's bound for list scheduling).
        lasted_s = reading.records.end_s - reading.records.sent_s
        longest_s = lasted_s.sum() / users + lasted_s.max()
        if reading.duration_s > longest_s / LEAST_SENT:
            on_average = lasted_s.sum() / reading.duration_s
            kept = f"the command kept {on_average:.3g} of {users} requests in flight on average"
            return kept, "give the client more CPU, or run it on a machine of its own"
    return None


def warm_up_s(reading: Reading) -> float:
    """The part of the run that is not yet steady, at most half of it; 0 where no request is known."""
    return min(stats.warm_up_s(reading.records), reading.duration_s / 2) if reading.records is not None else 0.0


def measured(probe: Probe, reading: Reading, warm_up_s: float) -> Measured:
    """The reading as a measurement."""
    due = round(probe.load * (reading.sending_s or 0.0)) if probe.by == "rate" else 0
    if due - reading.requests <= _by_chance(due, reading):
        due = reading.requests
    late_p50_s, late_p99_s = lateness_s(reading.records)
    return Measured(
        stop=Stop(reason="ended", at_s=reading.duration_s, window_start_s=warm_up_s),
        duration_s=reading.duration_s,
        records=reading.records,
        aggregates=(reading.aggregates,) if reading.aggregates else (),
        client=ClientEvidence(
            due=due,
            sent=reading.requests,
            late_p50_s=late_p50_s,
            late_p99_s=late_p99_s,
            errors=dict(reading.errors),
        ),
    )


def lateness_s(records: Records | None) -> tuple[float, float]:
    """How late requests left, median and 99th percentile; 0 where no request is known."""
    if records is None:
        return 0.0, 0.0
    median, p99 = np.quantile(records.sent_s - records.scheduled_s, [0.5, 0.99]).tolist()
    return median, p99


def next_folder(parent: Path) -> Path:
    """A folder of this run's own: a result file of an earlier one must never be taken for it."""
    number = len(list(parent.glob("run-*"))) if parent.exists() else 0
    while True:
        number += 1
        folder = parent / f"run-{number:03d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
