"""Everything put together: ask a server, run an experiment, or answer from what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import redline
from redline import process
from redline.bench import reader_of
from redline.codec import attached_files, load_experiment
from redline.events import Emit, Event, Noted, TrialEnded, Warned
from redline.experiment.estimate import Estimate, estimate_of, request_budget
from redline.experiment.file import experiment_to_toml
from redline.experiment.goals import advice
from redline.experiment.inputs import noted
from redline.experiment.plan import find_directory, identity, jobs
from redline.model import (
    Answer,
    Case,
    Endpoint,
    Experiment,
    Probe,
    RedlineError,
    ServerConfig,
    Session,
    Trial,
    UsageError,
)
from redline.questions import FindOptions, SearchOptions, elsewhere, search_of
from redline.runner.local import Keeper, OpenSession, local_lab, sent_before, server_cores
from redline.runner.loop import run_jobs
from redline.search import next_step
from redline.server import means
from redline.server.starts import starts_of
from redline.store import Held, Store, next_directory, open_store, reusable
from redline.stored import OPTIONS, Opened, all_listed, open_experiment
from redline.wording import load_text

__all__ = ["Opened", "Place", "Prepared", "Result", "find", "open_experiment", "run"]

_EXIT_CODES = {"edge": 0, "floor": 0, "none": 3, "undecided": 4, "client_limited": 5, "crashed": 1, "not_started": 1}
_WORST_FIRST = (1, 5, 4, 3, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the measurements are kept, and which of the earlier ones count."""

    out: Path | str | None = None  # None: redline-results/..., the same for the same question
    again: bool = False  # a new directory beside it
    reuse: bool = False  # of a running server, also what was measured long ago or before its last start


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An experiment that was read and found good; nothing is started or written yet."""

    experiment: Experiment
    text: str  # of its file
    files: Mapping[str, str]  # what stands beside it
    directory: Path
    reuse: bool = False

    @property
    def elsewhere(self) -> str | None:
        """The address of a running server that is not on this machine."""
        return elsewhere(self.experiment)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The answers, and the directory that holds what they rest on."""

    directory: Path
    answers: tuple[Answer, ...]
    measured: int = 0  # trials in this call
    listed: bool = False  # --loads: a list was measured to its end, which is all that was asked

    @property
    def exit_code(self) -> int:
        """0 every SLA has a capacity, 3 one is met at no load, 4 undecided, 5 the client was the limit, 1 an error."""
        codes = {1 if answer.error else _EXIT_CODES[answer.evidence] for answer in self.answers}
        if self.listed:
            codes -= {3, 4}
        return worst(codes)


def worst(codes: Collection[int]) -> int:
    """The exit code for all of these."""
    return next((code for code in _WORST_FIRST if code in codes), 0)


def find(
    url: str,
    slas: Sequence[str],
    *,
    place: Place | None = None,
    emit: Emit | None = None,
    **options: Unpack[FindOptions],
) -> Result:
    """How much load the server that runs at `url` carries within each SLA, such as `p99_ttft_ms<=200ms`."""
    return carry_out(prepare_find(url, slas, place or Place(), **options), emit)


def run(
    path: Path | str, *, place: Place | None = None, emit: Emit | None = None, **options: Unpack[SearchOptions]
) -> Result:
    """Launch each configuration of an experiment's file, and search what it carries under each workload and SLA."""
    return carry_out(prepare_run(path, place or Place(), **options), emit)


# ---- what is asked ---------------------------------------------------------------------------------------------------


def prepare_find(url: str, slas: Sequence[str], place: Place, **options: Unpack[FindOptions]) -> Prepared:
    """The question to a running server; UsageError has everything that is wrong with it."""
    experiment = search_of(url, slas, options)
    directory = find_directory(experiment.servers[0], experiment.workloads[0], experiment.goal.by)
    return Prepared(
        experiment=experiment,
        text=experiment_to_toml(experiment),
        files={**noted(experiment.workloads), OPTIONS: "{}\n"},
        directory=_directory(place, Path(directory)),
        reuse=place.reuse,
    )


def prepare_run(path: Path | str, place: Place, **options: Unpack[SearchOptions]) -> Prepared:
    """The experiment of a file; UsageError has everything that is wrong with it, with its lines."""
    path = Path(path)
    given: dict[str, Any] = dict(options)
    experiment = load_experiment(path, given, reader_of)
    return Prepared(
        experiment=experiment,
        text=path.read_text(encoding="utf-8"),
        files={**attached_files(path), **noted(experiment.workloads), OPTIONS: json.dumps(given) + "\n"},
        directory=_directory(place, Path("redline-results") / path.stem),
        reuse=place.reuse,
    )


def _directory(place: Place, default: Path) -> Path:
    directory = Path(place.out) if place.out is not None else default
    return next_directory(directory) if place.again else directory


def plan(prepared: Prepared) -> Estimate:
    """What is left to do, about how long it takes, and what this machine lacks for it; nothing is started."""
    experiment, done = prepared.experiment, stored_trials(prepared.directory)
    cases = [case for job in jobs(experiment) for case in job.cases]
    unanswered = {
        key: [sla.name for sla in experiment.slas if isinstance(next_step(trials, sla, experiment.goal), Probe)]
        for key, trials in done.items()
    }
    found = estimate_of(experiment, cases, done, unanswered)
    return replace(found, warnings=(*found.warnings, *means.lacks(experiment)))


def owner_warning(prepared: Prepared) -> str:
    """What will happen to a server that may serve somebody else."""
    goal = prepared.experiment.goal
    budget = request_budget(goal, prepared.experiment.slas)
    requests = f"up to {budget:,}" if goal.max_requests is not None else f"about {budget:,}"
    highest = max(goal.loads, default=goal.max_load)
    return (
        f"{prepared.elsewhere} is not on this machine. Redline will drive it beyond its limit: with up to "
        f"{load_text(highest, goal.by)} (--max) and {requests} requests (--max-requests). "
        "Whoever else uses it will feel that."
    )


# ---- doing it --------------------------------------------------------------------------------------------------------


def carry_out(prepared: Prepared, emit: Emit | None = None) -> Result:
    """Measure what is not yet measured, and answer. Running it again continues.

    Raises:
        UsageError: the directory holds something else, or an environment variable is not set.
        RedlineError: an attached server does not answer, or a file cannot be written.
        Interrupted: the user or the system stopped it; finished trials are kept.
    """
    tell = emit or (lambda event: None)  # noqa: ARG005 - nobody listens
    experiment = prepared.experiment
    if unset := means.unset(experiment.servers):
        raise UsageError("\n  ".join(unset))
    if (why := means.hindrance(experiment)) and not stored_trials(prepared.directory):
        raise RedlineError(why)
    with process.interruptible():
        starts, silent = starts_of(experiment.servers)
        if silent is not None and not stored_trials(prepared.directory):
            raise silent  # before anything is written
        with open_store(prepared.directory, prepared.text, identity(experiment), files=prepared.files) as store:
            for text in (*advice(experiment.goal), *store.notes):
                tell(Warned(text=text))
            stop_left_behind(store, experiment.servers, tell)
            history = _history(store, prepared, starts, tell)
            known = sum(len(trials) for trials in history.values())
            if known:
                tell(Noted(text=f"continuing with {known} trial{'s' * (known > 1)} from {prepared.directory}"))
            keeper = TrialKeeper(store=store, tell=tell)
            todo = jobs(experiment)
            goal, cores = experiment.goal, server_cores(experiment)
            lab = local_lab(keeper.for_lab(), goal.seed, goal.load_workers, cores)
            lab = sent_before(lab, [case for job in todo for case in job.cases if case.key in history])
            lab = replace(lab, open_session=_going_on(lab.open_session, lambda: bool(known or keeper.kept)))
            answers = run_jobs(todo, history, experiment, lab, keeper.on_event)
            if known and not keeper.kept:
                tell(
                    Noted(text=f"nothing was left to measure: answered from {prepared.directory}; --again starts anew")
                )
            return Result(
                directory=prepared.directory,
                answers=tuple(answers),
                measured=keeper.kept,
                listed=all_listed(experiment, store.trials),
            )


@dataclass(slots=True)
class TrialKeeper:
    """Stores each trial before anybody hears of it, and the marker of the server that is up."""

    store: Store
    tell: Emit
    kept: int = 0

    def on_event(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            self.store.append(event.trial)
            self.kept += 1
        self.tell(event)

    def for_lab(self) -> Keeper:
        return Keeper(
            next_id=self.store.next_id,
            log_dir=self.store.log_dir,
            note=self.store.note,
            warn=lambda text: self.tell(Warned(text=text)),
        )


def _going_on(open_session: OpenSession, measured: Callable[[], bool]) -> OpenSession:
    """A workload that no server could take ends the command; once others are measured, it is one answer of many."""

    @contextmanager
    def opened(endpoint: Endpoint, case: Case) -> Iterator[Session]:
        with ExitStack() as stack:
            try:
                session = stack.enter_context(open_session(endpoint, case))
            except UsageError as error:
                raise RedlineError(str(error)) if measured() else error from None
            yield session

    return opened


def stored_trials(directory: Path) -> Mapping[str, Sequence[Trial]]:
    """What a directory holds by case key; nothing where there is no experiment yet."""
    try:
        with open_store(directory, write=False) as store:
            return store.trials
    except UsageError:
        return {}


def stop_left_behind(store: Store | Held, servers: Sequence[ServerConfig], tell: Emit) -> None:
    """End the server that a killed driver left, which may be any of these."""
    marker = store.server_marker()
    if marker is None:
        return
    grace_s = max((config.stop_grace_s for config in servers), default=30.0)
    if pids := process.stop_left_behind(marker, grace_s):
        which = f"process{'es' * (len(pids) > 1)} {', '.join(map(str, pids))}"
        tell(Noted(text=f"stopped the server that an earlier run had left behind ({which})"))
    store.note(None)


def _history(store: Store, prepared: Prepared, starts: Mapping[str, str], tell: Emit) -> dict[str, tuple[Trial, ...]]:
    """The stored trials that still say something about these cases."""
    history: dict[str, tuple[Trial, ...]] = {}
    for job in jobs(prepared.experiment):
        for case in job.cases:
            trials = store.trials.get(case.key, ())
            if trials and job.server.attached and not prepared.reuse:
                if job.server.name in starts:
                    trials, unused = reusable(trials, datetime.now(UTC), starts[job.server.name])
                else:
                    unused = (
                        f"{job.server.url} does not answer now: what is known was measured up to {trials[-1].started}"
                    )
                if unused:
                    tell(Warned(text=unused))
            if trials:
                history[case.key] = trials
    return history


# Importing the module redline.run has bound it in the package, where `redline.run` is to be this function.
vars(redline)["run"] = run
