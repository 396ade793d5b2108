"""The lab of this machine: real servers under real load."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from redline import loadgen, search, verdict
from redline.bench import CommandSession
from redline.model import Case, CommandWorkload, Endpoint, Experiment, ServerConfig, Session, Workload
from redline.process.cores import ANY, Cores, of_a_server, usable
from redline.runner.lab import Lab, Subject, seeds
from redline.server import Note, attach, launch

OpenSession: TypeAlias = Callable[[Endpoint, Case], AbstractContextManager[Session]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeper:
    """Where the lab leaves things: ids of trials, logs, the marker of the server that is up, warnings."""

    next_id: Callable[[], str]
    log_dir: Callable[[str], Path]
    note: Note = field(default=lambda marker: None)  # noqa: ARG005 - to nobody
    warn: Callable[[str], None] = field(default=lambda text: None)  # noqa: ARG005 - to nobody


def server_cores(experiment: Experiment) -> Cores:
    """What is left to servers that are launched here: the built-in generator has a core of its own where it is used."""
    built_in = any(isinstance(workload, Workload) for workload in experiment.workloads)
    return of_a_server(usable()) if built_in else ANY


def local_lab(keeper: Keeper, seed: int | None = None, load_workers: int | None = None, cores: Cores = ANY) -> Lab:
    """Launches servers on these `cores`, or attaches to them; measures with the built-in generator or the workload's
    command.
    """

    def connect(config: ServerConfig) -> AbstractContextManager[Subject]:
        if config.attached:
            return attach(config)
        return launch(config, keeper.log_dir(config.name or "server"), keeper.note, keeper.warn, cores)

    def open_session(endpoint: Endpoint, case: Case) -> AbstractContextManager[Session]:
        name = "-".join(part for part in (case.server.name, case.workload.name) if part)
        if isinstance(case.workload, CommandWorkload):
            return nullcontext(CommandSession(endpoint, case.workload, keeper.log_dir(name)))
        return loadgen.open_session(endpoint, case.workload, keeper.log_dir(name) / "loadgen.log", load_workers)

    return Lab(
        connect=connect,
        open_session=open_session,
        next_id=keeper.next_id,
        next_job=search.next_job,
        answer_now=search.answer_now,
        watcher=verdict.watcher,
        summary=verdict.summary,
        budget_note=search.budget_note,
        seed=seeds(seed),
    )


def sent_before(lab: Lab, measured: Iterable[Case]) -> Lab:
    """A server may hold the prompts of a file that it had before: they get an opening of their own.

    It had them for another case, or, where it ran all along, for one that was `measured` in an earlier run.
    """
    sent = {_sent_for(case) for case in measured if case.server.attached}

    def connect(config: ServerConfig) -> AbstractContextManager[Subject]:
        if not config.attached:  # just launched, it holds nothing
            sent.difference_update([known for known in sent if known[0] == _where(config)])
        return lab.connect(config)

    def open_session(endpoint: Endpoint, case: Case) -> AbstractContextManager[Session]:
        workload = case.workload
        if isinstance(workload, Workload) and workload.dataset is not None:
            if (which := _sent_for(case)) in sent:
                used = replace(workload.dataset, first=len(workload.dataset.sizes))
                case = replace(case, workload=replace(workload, dataset=used))
            sent.add(which)
        return lab.open_session(endpoint, case)

    return replace(lab, connect=connect, open_session=open_session)


def _sent_for(case: Case) -> tuple[str, str]:
    """Which server gets which prompts of a file for this case; those that are made up have no name."""
    dataset = case.workload.dataset if isinstance(case.workload, Workload) else None
    return _where(case.server), dataset.sha256 if dataset else ""


def _where(config: ServerConfig) -> str:
    return config.url or config.name
