"""The built-in load generator as a Session: preflight, then one trial after another."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np

from redline.experiment.loadshape import ONE_WORKER
from redline.loadgen.collect import Collector
from redline.loadgen.evidence import evidence_of, offered, summed
from redline.loadgen.handover import inputs_of, to_json
from redline.loadgen.link import WorkerGoneError
from redline.loadgen.payload import message, target_of
from redline.loadgen.preflight import Preflight, preflight
from redline.loadgen.spec import TrialSpec
from redline.loadgen.team import Team
from redline.loadgen.written import Place
from redline.model import (
    ClientEvidence,
    Endpoint,
    Invalid,
    JsonValue,
    Measured,
    Outcome,
    Probe,
    RedlineError,
    Stop,
    UsageError,
    Watch,
    Workload,
)
from redline.process import cores
from redline.records import NOT_SENT, Records
from redline.verdict.client import cure_for

_OFF = 0.05
_LEAD_NS = 5_000_000  # from the word to begin to the beginning
_BUSY, _AT_EASE = 0.5, 0.35  # share of a core: of a worker that is to have help, and then of each


class LoadSession:
    """One server and one workload. Use `open_session`."""

    live = True

    def __init__(
        self, endpoint: Endpoint, workload: Workload, log: Path | None, load_workers: int | None = None
    ) -> None:
        self._endpoint, self._workload, self._log = endpoint, workload, log
        if workload.max_in_flight and (load_workers or 1) > 1:
            raise UsageError(ONE_WORKER)
        self._fixed, self._count = load_workers is not None or bool(workload.max_in_flight), load_workers or 1
        self._target = target_of(endpoint)
        message(self._target, "GET", "/")  # headers that cannot be sent are an error here, not in the worker
        self._team: Team | None = None
        self._beside_server = False
        self._servers_cores = cores.ANY
        self._warnings: list[str] = []
        self._preflight: Preflight | None = None
        self._place = Place(workload.dataset)
        self._taken = 0  # prompts by the last trial, its ramp included
        self.facts: dict[str, JsonValue] = {}  # what preflight learnt; stored with each trial

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should hear with the answer; grows as trials show more."""
        return tuple(self._warnings)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Of the load workers that there are."""
        return () if self._team is None else self._team.pids

    @property
    def worker_pid(self) -> int | None:
        """Of the first of them."""
        return next(iter(self.worker_pids), None)

    def prepare(self) -> None:
        """Start the worker and learn what the server takes. RedlineError where it cannot be measured."""
        try:
            team, opened = self._start()
            self._preflight = preflight(team.first.ask, self._target, self._endpoint.model, self._workload)
        except WorkerGoneError as gone:
            raise RedlineError(
                f"the load worker could not start: {gone}; try `{sys.executable} -c 'import redline.loadgen.worker'`"
            ) from gone
        self._workload = self._preflight.workload
        self.facts = {**self._preflight.facts, **opened}
        self._beside_server = ip_address(str(opened["address"])).is_loopback
        self._warnings += self._preflight.warnings
        if self._beside_server:
            self._servers_cores = cores.of_listener(self._target.port)
            if cores.count() < cores.ENOUGH and not self._own_cores():
                few = f"share the {cores.count()} cores of this machine"
                self._warn(f"server and load generator {few}: each takes from the other")

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:
        """Offer the load until `watch` says stop or the probe's budget is spent."""
        began = time.monotonic()
        workload = self._place.of(self._workload, seed)
        try:
            outcome = self._measure(self._start()[0], probe, watch, seed, workload)
        except WorkerGoneError as gone:
            self.close()
            cure = "look at the log of the load worker, and at the memory that is free; then run the same command again"
            return Invalid(reason=f"the load worker died: {gone}", cure=cure, duration_s=time.monotonic() - began)
        except RedlineError as error:  # from a new worker: the server does not take connections
            self.close()
            return Invalid(reason=str(error), duration_s=time.monotonic() - began)
        except BaseException:
            self.close()  # at once: what is in flight must not burden the server any longer
            raise
        if isinstance(outcome, Measured):
            self._warn(self._place.sent(workload, self._taken))
        if isinstance(outcome, Measured) and outcome.records is not None:
            self._warn_of_lengths(outcome.records)
            self._get_help(outcome.client)
        return outcome

    def close(self) -> None:
        """End the workers, and with them all that is in flight."""
        team, self._team = self._team, None
        if team is not None:
            team.kill()

    # ----

    def _start(self) -> tuple[Team, dict[str, JsonValue]]:
        """As many workers as are wanted, those that run included."""
        if self._team is None:
            self._team = Team(to_json(self._target), inputs_of(self._workload), self._log)
        return self._team, self._team.start(self._count)

    def _measure(self, team: Team, probe: Probe, watch: Watch, seed: int, workload: Workload) -> Outcome:
        count = self._count
        self.facts["load_workers"] = count
        if refused := self._prepare(team, probe, seed, workload):
            return refused
        t0_ns = time.monotonic_ns() + _LEAD_NS + int(workload.ramp_s * 1e9)
        team.send("go", [{"t0_ns": t0_ns}] * count)
        collector, running, ended = Collector(count), set(range(count)), []
        told_s, seen_s, stop = [0.0] * count, 0.0, None
        while running:
            number, said = team.receive(running)
            if said.kind == "ramp":
                continue
            told_s[number] = said.header["now_s"]
            over = said.kind == "ended"
            collector.add(said.columns, math.inf if over else said.header["until_s"], number)
            if over:
                running.discard(number)
                ended.append(said.header)
                if (
                    probe.by == "concurrency" and not probe.drain
                ):  # or the users of the others would be fewer than asked for
                    team.send("stop", [{}] * count)
            # A watch that takes longer than a second sees the latest only.
            elif stop is None and not ended and min(told_s) > seen_s and not team.has_more():
                seen_s = min(told_s)
                if stop := watch(collector.records(seen_s)):
                    team.send("stop", [{}] * count)
        facts = summed(ended)
        self._taken = facts["taken"]
        # What all workers have told, or, where each was to finish what it sent, what the last one did.
        end_s = max(told_s) if probe.drain and stop is None else min(told_s)
        return _outcome(facts, collector.records(end_s), stop)

    def _prepare(self, team: Team, probe: Probe, seed: int, workload: Workload) -> Invalid | None:
        """Have every worker ready to begin; why one cannot."""
        assert self._preflight is not None  # open_session prepares
        spec = TrialSpec(
            by=probe.by,
            load=probe.load,
            seed=seed,
            spread_s=probe.spread_s,
            max_s=probe.max_s,
            max_requests=probe.max_requests,
            drain=probe.drain,
            workers=self._count,
        )
        facts: dict[str, Any] = {"model": self._endpoint.model, "workload": to_json(workload)}
        facts["shape"] = to_json(self._preflight.shape)
        own, before = self._own_cores(), self.facts.get("load_cores")
        facts["cores"] = own or (sorted(cores.usable()) if before else [])  # none: as they are
        self.facts["load_cores"] = own
        team.send("trial", [{**facts, "spec": {**asdict(spec), "worker": number}} for number in range(self._count)])
        waiting = set(range(self._count))
        while waiting:
            number, said = team.receive(waiting)
            waiting.discard(number)
            if said.kind == "refused":
                self.close()  # the others are ready for a load that will not come
                return Invalid(reason=said.header["reason"], cure=said.header["cure"])
        return None

    def _own_cores(self) -> list[int]:
        """Those that the workers have apart from the server; none where both share some, or nobody knows."""
        servers = self._servers_cores
        own = cores.of_load_workers(cores.usable(), servers, self._count)
        return sorted(own) if servers and not own & servers else []

    def _get_help(self, client: ClientEvidence) -> None:
        """More workers for the next trial when one was busy for most of its time, and nobody said how many."""
        if self._fixed or client.cpu_share <= _BUSY:
            return
        most = max(1, cores.count() - self._beside_server)  # which needs one too
        self._count = max(self._count, min(most, math.ceil(sum(client.cpu_shares) / _AT_EASE)))

    def _warn_of_lengths(self, records: Records) -> None:
        asked = int(np.sum(records.tokens_asked[records.ok]))
        came = int(np.sum(records.tokens_out[records.ok]))
        dataset = self._workload.dataset
        exact = self._workload.ignore_eos and not (dataset and "ignore_eos" in dataset.names)
        if asked and abs(came / asked - 1) > _OFF and exact:
            self._warn("outputs are not as long as asked for: see tokens_out and tokens_asked in the records")

    def _warn(self, text: str | None) -> None:
        if text and text not in self._warnings:
            self._warnings.append(text)


@contextlib.contextmanager
def open_session(
    endpoint: Endpoint, workload: Workload, log: Path | None = None, load_workers: int | None = None
) -> Iterator[LoadSession]:
    """A session on a server that answers; its workers' messages go to `log`. RedlineError where it cannot be used.

    The load comes from `load_workers` processes; None: from one, until that is busy for half of its time.
    """
    session = LoadSession(endpoint, workload, log, load_workers)
    try:
        session.prepare()
        yield session
    finally:
        session.close()


def _outcome(facts: dict[str, Any], records: Records, stop: Stop | None) -> Outcome:
    client, duration_s = evidence_of(facts, records), records.observed_s
    if not offered(client):
        said = [f"{text} ({count} times)" for text, count in client.errors.items() if text.startswith(NOT_SENT)]
        counts = f"only {client.sent} of the {client.due} requests that were due could be sent"
        return Invalid(
            reason=": ".join([counts, *said]),
            cure=cure_for("; ".join(said)),
            duration_s=duration_s,
        )

    stop = stop or Stop(reason="ended" if facts["reason"] == "drained" else "budget", at_s=duration_s)
    return Measured(stop=stop, duration_s=duration_s, records=records, client=client)
