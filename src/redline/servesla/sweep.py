"""A sweep by Redline's search: measures what is not yet measured, writes the tree, answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from redline import process
from redline.api import Result, TrialKeeper, stop_left_behind
from redline.events import Answered, Event, Noted, ServerReady, ServerStarting, TrialEnded, Warned
from redline.experiment.plan import identity
from redline.model import (
    Answer,
    Case,
    Endpoint,
    Experiment,
    Goal,
    Job,
    Measured,
    Probe,
    RedlineError,
    ServerConfig,
    Session,
    Sla,
    Trial,
    UsageError,
)
from redline.runner.lab import Lab, Step, Subject
from redline.runner.local import local_lab
from redline.runner.loop import run_jobs
from redline.search import answer_now, next_step
from redline.search.state import fitting
from redline.server import means
from redline.servesla.asked import Asked, caps_concurrency, commands_of, experiment_for, jobs_for
from redline.servesla.completing import Own
from redline.servesla.evidence import Earlier, trials_from
from redline.servesla.parameters import Pair
from redline.servesla.runs import Benchmark, Runs, with_first_load
from redline.servesla.transcript import Transcript
from redline.servesla.tree import Point, Tree
from redline.servesla.words import is_vllm, percentiles_for, prompts_of, saves_details
from redline.store import EXPERIMENT, Store, open_store

_AFTER_S = 600.0  # for --after-bench-cmd


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """Where a sweep says what: lines for scripts, and remarks for people."""

    say: Callable[[str], None]
    remark: Callable[[str], None]


def sweep(asked: Asked, voice: Voice) -> Result:
    """Search every pair and target, and write the tree. Running it again continues.

    Raises:
        UsageError: the folder holds something else, or a flag asks for what this search cannot do.
        RedlineError: a file cannot be written.
        Interrupted: the user or the system stopped it; finished points are kept.
    """
    experiment, text, files = experiment_for(asked)
    jobs, pairs = jobs_for(asked, experiment)
    if why := means.hindrance(experiment):
        raise RedlineError(why)
    for note in asked.notes:
        voice.remark(note)
    tree = Tree(folder=asked.folder, variable=asked.variable)
    points, _ = tree.read(asked.pairs)
    _refuse_unknown(asked, points)
    with process.interruptible(), open_store(asked.own, text, identity(experiment), files=files) as store:
        working = _Sweep(asked=asked, experiment=experiment, pairs=pairs, tree=tree, store=store, voice=voice)
        for note in store.notes:
            voice.remark(note)
        stop_left_behind(store, experiment.servers, working.tell)
        working.complete(jobs)
        if asked.flags.resume is not None:
            points, ignored = tree.read(asked.pairs)  # anew: completing may have finished some of what was ignored
            for note in ignored:
                voice.remark(note)
            working.take_over(jobs, points)
        return working.run(jobs)


def _refuse_unknown(asked: Asked, points: Mapping[str, Sequence[Point]]) -> None:
    """A tree that no experiment of ours stands beside was made by commands that nobody knows."""
    if asked.flags.resume is None and not (asked.own / EXPERIMENT).exists() and any(points.values()):
        raise UsageError(
            f"{asked.folder} holds a tree of which it is not known which commands made it; add --resume to use what "
            "fits as evidence, or choose another --experiment-name"
        )


@dataclass(kw_only=True, slots=True)
class _Sweep:
    """One call on its way."""

    asked: Asked
    experiment: Experiment
    pairs: Mapping[str, Pair]  # by the key of the case
    tree: Tree
    store: Store
    voice: Voice
    transcript: Transcript = field(init=False)
    subject: _Cared | None = None
    runs: Runs | None = None  # that of the case being measured
    changed: set[str] = field(default_factory=set)  # folders of pairs whose targets have further runs
    settled: dict[tuple[str, str], Answer] = field(default_factory=dict)  # by case and SLA: told once and for good

    def __post_init__(self) -> None:
        slas = {sla.name: (sla, target) for sla, target in zip(self.experiment.slas, self.asked.targets, strict=True)}
        self.transcript = Transcript(
            say=self.voice.say,
            variable=self.asked.variable,
            slas=slas,
            pairs=self.pairs,
            answer_of=self._answer,
            hints=self._hint,
        )

    def tell(self, event: Event) -> None:
        match event:
            case Warned(text=text) | Noted(text=text):
                self.voice.remark(text)
            case ServerStarting(server=server):
                self.voice.remark(f"{server.name}: starting")
            case ServerReady(server=server, endpoint=endpoint, took_s=took_s):
                self.voice.remark(f"{server.name}: ready after {took_s:.1f} s at {endpoint.url}")
            case _:
                pass

    def complete(self, jobs: Sequence[Job]) -> None:
        """A kill after a trial was stored, and before it was written into the tree, is not seen there."""
        for case in (case for job in jobs for case in job.cases):
            pair = self.pairs[case.key]
            own = Own(
                pair=pair,
                trials=self.store.trials.get(case.key, ()),
                directory=self.store.directory,
                detailed=saves_details(commands_of(self.asked, pair)[1]),
            )
            points, notes = own.complete(self.tree)
            for note in notes:
                self.voice.remark(note)
            if points:
                self.voice.remark(f"{pair.label}: wrote {_points(points)} into the tree that a kill had kept from it")
            if points or not all(own.all_in(self.tree, target) for target in self.asked.targets):
                self.changed.add(pair.folder)
        self.tree.complete_table()

    def take_over(self, jobs: Sequence[Job], points: Mapping[str, Sequence[Point]]) -> None:
        """Points of the tree that our own experiment does not know become evidence; the others are named."""
        for case in (case for job in jobs for case in job.cases):
            pair = self.pairs[case.key]
            known = {trial.probe.load for trial in self.store.trials.get(case.key, ())}
            command = commands_of(self.asked, pair)[1]
            new = [point for point in points[pair.folder] if point.load not in known]
            trials, notes = trials_from(
                new,
                pair,
                case.key,
                Earlier(
                    variable=self.asked.variable,
                    expected={"num_prompts": prompts_of(command)} if prompts_of(command) else {},
                    slas=self.experiment.slas,
                ),
                self.store.next_id,
            )
            for note in notes:
                self.voice.remark(note)
            for trial in trials:
                self.store.append(trial)
            if trials:
                self.voice.remark(f"{pair.label}: took over {_points(len(trials))} of an earlier sweep, as totals")

    def run(self, jobs: Sequence[Job]) -> Result:
        before = {key: tuple(trials) for key, trials in self.store.trials.items()}
        keeper = TrialKeeper(store=self.store, tell=self.tell)
        emit = partial(self._on_event, keeper)
        answers = run_jobs(jobs, before, self.experiment, self._lab(keeper), emit)
        if not keeper.kept and any(before.values()):
            self.voice.remark(f"nothing was left to measure: answered from {self.asked.own}")
        return Result(directory=self.asked.own, answers=tuple(answers), measured=keeper.kept)

    def _on_event(self, keeper: TrialKeeper, event: Event) -> None:
        keeper.on_event(event)
        if isinstance(event, TrialEnded) and isinstance(event.trial.outcome, Measured) and self.runs is not None:
            self.tree.finish(self.pairs[event.case.key], event.trial.probe.load, self.runs.objects)
            self.changed.add(self.pairs[event.case.key].folder)
        self.transcript.on_event(event)
        if isinstance(event, Answered):
            self._write_target(event.case, event.answer)

    def _write_target(self, case: Case, answer: Answer) -> None:
        target = next(t for s, t in zip(self.experiment.slas, self.asked.targets, strict=True) if s.name == answer.sla)
        pair = self.pairs[case.key]
        if pair.folder in self.changed or not self.tree.target_file(pair, target).exists():
            self.tree.write_target(pair, target)

    def _answer(self, case: Case, sla: Sla) -> Answer:
        return answer_now(
            self.store.trials.get(case.key, ()), sla, self.experiment.goal, "it was not measured to an end"
        )

    def _hint(self, answer: Answer) -> str:
        if answer.evidence == "floor" and caps_concurrency(self.asked):
            return (
                f"{self.asked.prompts} prompts keep at most {answer.capacity:g} requests in flight; "
                "raise --num-prompts in --bench-cmd to search above"
            )
        return ""

    # -- the lab --

    def _lab(self, keeper: TrialKeeper) -> Lab:
        plain = local_lab(keeper.for_lab())
        return replace(
            plain, connect=partial(self._connect, plain), open_session=self._open_session, next_job=self._next_job
        )

    @contextmanager
    def _connect(self, plain: Lab, config: ServerConfig) -> Iterator[Subject]:
        command, log = self.asked.after_bench, self.store.log_dir("after-bench") / "command.log"
        clean = partial(after_bench, command, log) if command else None
        with plain.connect(config) as subject:
            self.subject = _Cared(subject=subject, clean=clean, resets=is_vllm(self.asked.serve))
            yield self.subject

    def _open_session(self, endpoint: Endpoint, case: Case) -> AbstractContextManager[Session]:  # noqa: ARG002 - the user's command knows the address
        pair = self.pairs[case.key]
        command = commands_of(self.asked, pair)[1]
        self.runs = Runs(
            benchmark=Benchmark(
                pair=pair,
                command=tuple(command),
                percentiles=percentiles_for(command, self.asked.targets),
                num_runs=self.asked.flags.num_runs,
                timeout_s=self.asked.flags.bench_timeout,
            ),
            tree=self.tree,
            directory=self.store.directory.absolute(),
            log_dir=self._log_dir(case),
            between=self.subject.clean_up if self.subject is not None else lambda: None,
        )
        return nullcontext(self.runs)

    def _log_dir(self, case: Case) -> Path:
        return self.store.log_dir("-".join(name for name in (case.server.name, case.workload.name) if name)).absolute()

    def _next_job(self, evidence: Sequence[Trial], slas: Sequence[Sla], goal: Goal) -> Step:
        """One target after the other, as scripts expect them in the output."""
        answers: list[Answer] = []
        for sla in slas:
            key = (evidence[0].case if evidence else "", sla.name)
            step = self.settled.get(key) or next_step(evidence, sla, goal)
            if isinstance(step, Probe):
                first = with_first_load(step, self.asked.prompts, goal.max_load) if not evidence else step
                return sla, replace(first, load=fitting(first.load, goal), max_s=_left_s(evidence, goal))
            self.settled[key] = step
            answers.append(step)
        return answers


def _points(count: int) -> str:
    return f"{count} point{'s' * (count != 1)}"


def _left_s(evidence: Sequence[Trial], goal: Goal) -> float:
    """How long a trial may go on to start runs: how many it needs, and how long one takes, only the command knows."""
    if goal.max_time_s is None:
        return math.inf
    return goal.max_time_s - sum(trial.outcome.duration_s for trial in evidence)


def after_bench(argv: Sequence[str], log: Path) -> None:
    """Run the user's command between two benchmarks; RedlineError where it fails."""
    code = process.run(argv, log, _AFTER_S)
    if code != 0:
        how = f"did not end within {_AFTER_S:g} s" if code is None else f"exited with code {code}"
        raise RedlineError(f"--after-bench-cmd {how}:\n{process.tail(log)}")


@dataclass(slots=True)
class _Cared:
    """A server that is cleaned after each run of a benchmark, not before each trial."""

    subject: Subject
    clean: Callable[[], None] | None
    resets: bool

    @property
    def endpoint(self) -> Endpoint:
        return self.subject.endpoint

    @property
    def start_id(self) -> str:
        return self.subject.start_id

    @property
    def warnings(self) -> Sequence[str]:
        return self.subject.warnings

    def alive(self) -> bool:
        return self.subject.alive()

    def log_tail(self) -> str:
        return self.subject.log_tail()

    def settle(self, limit_s: float) -> str | None:
        return self.subject.settle(limit_s)

    def warm_up(self, session: Session) -> None:
        self.subject.warm_up(session)

    def reset_caches(self) -> None: ...

    def clean_up(self) -> None:
        if self.clean is not None:
            self.clean()
        elif self.resets:
            self.subject.reset_caches()
