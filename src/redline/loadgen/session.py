"""The built-in load generator as a Session: preflight, then one trial after another."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from redline.loadgen.collect import Collector
from redline.loadgen.evidence import evidence_of, offered
from redline.loadgen.handover import inputs_of, to_json
from redline.loadgen.link import SILENCE_S, Link, WorkerGoneError
from redline.loadgen.payload import message, target_of
from redline.loadgen.preflight import Preflight, preflight
from redline.loadgen.trial import TrialSpec
from redline.loadgen.written import Place
from redline.model import Endpoint, Invalid, JsonValue, Measured, Outcome, Probe, RedlineError, Stop, Watch, Workload
from redline.records import Records

_START_S = 30.0
_OFF = 0.05


class LoadSession:
    """One server and one workload. Use `open_session`."""

    live = True

    def __init__(self, endpoint: Endpoint, workload: Workload, log: Path | None) -> None:
        self._endpoint, self._workload, self._log = endpoint, workload, log
        self._target = target_of(endpoint)
        message(self._target, "GET", "/")  # headers that cannot be sent are an error here, not in the worker
        self._worker: Link | None = None
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
    def worker_pid(self) -> int | None:
        """Of the load worker, while there is one."""
        return None if self._worker is None else self._worker.pid

    def prepare(self) -> None:
        """Start the worker and learn what the server takes. RedlineError where it cannot be measured."""
        try:
            worker, opened = self._start()
            self._preflight = preflight(worker.ask, self._target, self._endpoint.model, self._workload)
        except WorkerGoneError as gone:
            raise RedlineError(
                f"the load worker could not start: {gone}; try `{sys.executable} -c 'import redline.loadgen.worker'`"
            ) from gone
        self._workload = self._preflight.workload
        self.facts = {**self._preflight.facts, **opened}
        self._warnings += self._preflight.warnings

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:
        """Offer the load until `watch` says stop or the probe's budget is spent."""
        began = time.monotonic()
        workload = self._place.of(self._workload, seed)
        try:
            worker = self._worker or self._start()[0]
            outcome = self._measure(worker, probe, watch, seed, workload)
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
        return outcome

    def close(self) -> None:
        """End the worker, and with it all that is in flight."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    # ----

    def _start(self) -> tuple[Link, dict[str, JsonValue]]:
        worker = self._worker = Link(self._log)
        worker.send("open", {"target": to_json(self._target)}, inputs_of(self._workload))
        opened = worker.receive(_START_S)
        if opened.kind == "error":
            self.close()
            raise RedlineError(opened.header["text"])
        return worker, opened.header

    def _measure(self, worker: Link, probe: Probe, watch: Watch, seed: int, workload: Workload) -> Outcome:
        assert self._preflight is not None  # open_session prepares
        spec = TrialSpec(
            by=probe.by,
            load=probe.load,
            seed=seed,
            spread_s=probe.spread_s,
            max_s=probe.max_s,
            max_requests=probe.max_requests,
            drain=probe.drain,
        )
        facts = {"spec": asdict(spec), "model": self._endpoint.model, "workload": to_json(workload)}
        worker.send("trial", {**facts, "shape": to_json(self._preflight.shape)})
        collector, stop = Collector(), None
        while True:
            said = worker.receive(SILENCE_S)
            if said.kind == "refused":
                return Invalid(reason=said.header["reason"], cure=said.header["cure"])
            if said.kind not in ("records", "ended"):
                continue
            collector.add(said.columns)
            now_s = said.header["now_s"]
            if said.kind == "ended":
                self._taken = said.header["taken"]
                return _outcome(said.header, collector.records(now_s), stop)
            if stop is None and not worker.has_more():  # a watch that takes longer than a second sees the latest only
                stop = watch(collector.records(now_s))
                if stop is not None:
                    worker.send("stop", {})

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
def open_session(endpoint: Endpoint, workload: Workload, log: Path | None = None) -> Iterator[LoadSession]:
    """A session on a server that answers; its worker's messages go to `log`. RedlineError where it cannot be used."""
    session = LoadSession(endpoint, workload, log)
    try:
        session.prepare()
        yield session
    finally:
        session.close()


def _outcome(facts: dict[str, Any], records: Records, stop: Stop | None) -> Outcome:
    client, duration_s = evidence_of(facts, records), records.observed_s
    if not offered(client):
        said = [f"{text} ({count} times)" for text, count in client.errors.items() if text.startswith("not sent")]
        counts = f"only {client.sent} of the {client.due} requests that were due could be sent"
        return Invalid(
            reason=": ".join([counts, *said]),
            cure="give the client more CPU, or measure at a lower load",
            duration_s=duration_s,
        )

    stop = stop or Stop(reason="ended" if facts["reason"] == "drained" else "budget", at_s=duration_s)
    return Measured(stop=stop, duration_s=duration_s, records=records, client=client)
