from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from typing import ClassVar

import numpy as np
import pytest

from redline.events import (
    Answered,
    Event,
    Progress,
    ServerReady,
    ServerStarting,
    ServerStopped,
    TrialEnded,
    TrialStarted,
)
from redline.model import (
    Answer,
    Case,
    Endpoint,
    Experiment,
    Failed,
    Goal,
    Interrupted,
    Invalid,
    Job,
    Lengths,
    Measured,
    Outcome,
    Probe,
    RedlineError,
    ServerConfig,
    Session,
    Sla,
    Stop,
    Trial,
    UsageError,
    Watch,
    Workload,
)
from redline.records import Records, Status
from redline.runner.lab import Lab, Step, Still, Subject, seeds
from redline.runner.loop import run_job, run_jobs
from redline.sla import sla_of

SLA = sla_of("chat", ["p90_ttft_ms<=200"])
CHAT = Workload(name="chat", prompt=Lengths(mean=100), output=Lengths(mean=10))
OTHER = replace(CHAT, name="other")
SERVER = ServerConfig(name="s", command=("serve", "--port", "{port}"))


def experiment(*slas: Sla) -> Experiment:
    return Experiment(name="e", servers=(SERVER,), workloads=(CHAT,), slas=slas or (SLA,), goal=Goal())


def job(*workloads: Workload, server: ServerConfig = SERVER) -> Job:
    cases = [Case(key=f"{server.name}-{w.name}", server=server, workload=w) for w in workloads or (CHAT,)]
    return Job(server=server, cases=tuple(cases))


def records(at_s: float, statuses: Sequence[Status]) -> Records:
    n = len(statuses)
    times = np.arange(n) / 10
    ends = np.where(np.array(statuses) == Status.RUNNING, np.nan, times + 0.5)
    tokens = np.ones(n, np.int32)
    return Records(
        observed_s=at_s,
        scheduled_s=times,
        sent_s=times,
        first_s=times + 0.1,
        end_s=ends,
        tokens_in=tokens,
        tokens_out=tokens,
        tokens_asked=tokens,
        status=np.array(statuses, np.uint8),
    )


def measured(at_s: float = 3.0) -> Measured:
    return Measured(stop=Stop(reason="full", at_s=at_s), duration_s=at_s)


@dataclass
class Fakes:
    """A server, a load generator and a search that do what the test tells them."""

    outcomes: list[Outcome | BaseException] = field(default_factory=list)  # of the next trials, then `measured()`
    starts: list[BaseException | None] = field(default_factory=list)  # of the next connects, then none fails
    opens: list[BaseException | None] = field(default_factory=list)  # of the next sessions, then none fails
    trials: int = 2  # that a case needs
    snapshots: Sequence[Records] = ()
    up: bool = True
    restless: str | None = None
    server_warnings: Sequence[str] = ()
    session_warnings: Sequence[str] = ()
    learns: Sequence[str] = ()  # that the session warns of once it has measured
    log: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)

    # -- the search --

    def next_job(self, evidence: Sequence[Trial], slas: Sequence[Sla], goal: Goal) -> Step:
        died = sum(isinstance(t.outcome, Failed) and t.outcome.server_died for t in evidence)
        if died >= 2 or len(evidence) - died >= self.trials:
            return [self.answer(evidence, sla, "crashed" if died >= 2 else "edge") for sla in slas]
        return slas[0], Probe(by="rate", load=10.0 + len(evidence), kind="main", asked_by=slas[0].name)

    def answer_now(self, evidence: Sequence[Trial], sla: Sla, goal: Goal, reason: str) -> Answer:
        return replace(self.answer(evidence, sla, "undecided"), stop_reason=reason)

    def answer(self, evidence: Sequence[Trial], sla: Sla, kind: str) -> Answer:
        return Answer(
            sla=sla.name,
            criteria=sla.criteria,
            variable="rate",
            evidence=kind,  # type: ignore[arg-type]  # one of them
            trials=len(evidence),
        )

    # -- the session --

    live = True
    facts: ClassVar = {"usage": True}

    @property
    def warnings(self) -> Sequence[str]:
        return self.session_warnings

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:
        self.log.append(f"measure {probe.load:g}")
        self.session_warnings = [*self.session_warnings, *self.learns]
        for seen in self.snapshots:
            if stop := watch(seen):
                return Measured(stop=stop, duration_s=stop.at_s, records=seen)
        outcome = self.outcomes.pop(0) if self.outcomes else measured()
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, Failed) and outcome.server_died:
            self.up = False
            return replace(outcome, server_died=False)  # a session does not know what became of the server
        return outcome

    # -- the lab --

    @contextmanager
    def connect(self, config: ServerConfig) -> Iterator[Subject]:
        error = self.starts.pop(0) if self.starts else None
        if error is not None:
            raise error
        self.up = True
        self.log.append("up")
        try:
            yield FakeServer(self)
        finally:
            self.log.append("down")

    @contextmanager
    def open_session(self, endpoint: Endpoint, case: Case) -> Iterator[Session]:
        error = self.opens.pop(0) if self.opens else None
        if error is not None:
            raise error
        self.log.append(f"open {case.workload.name}")
        try:
            yield self
        finally:
            self.log.append("close")

    def lab(self) -> Lab:
        numbers = count(1)
        return Lab(
            connect=self.connect,
            open_session=self.open_session,
            next_id=lambda: f"t{next(numbers)}",
            next_job=self.next_job,
            answer_now=self.answer_now,
            watcher=lambda probe, sla, history: lambda seen: None,
            summary=lambda seen: {"p90_ttft_ms": 100.0, "p99_ttft_ms": 1.0},
            seed=seeds(7),
        )

    def run(
        self, *jobs: Job, history: dict[str, list[Trial]] | None = None, slas: tuple[Sla, ...] = ()
    ) -> list[Answer]:
        return run_jobs(jobs or (job(),), history or {}, experiment(*slas), self.lab(), self.events.append)

    def told(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def ended(self) -> list[Trial]:
        return [event.trial for event in self.events if isinstance(event, TrialEnded)]


class FakeServer:
    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes
        self.endpoint = Endpoint(url="http://fake", model="m")
        self.start_id = "start 1"
        self.warnings = fakes.server_warnings

    def alive(self) -> bool:
        return self.fakes.up

    def log_tail(self) -> str:
        return "last words"

    def settle(self, limit_s: float) -> str | None:
        self.fakes.limits.append(limit_s)
        self.fakes.log.append("settle")
        return self.fakes.restless

    def warm_up(self, session: Session) -> None:
        self.fakes.log.append("warm up")

    def reset_caches(self) -> None:
        self.fakes.log.append("reset")


DIED = Failed(reason="connection refused", duration_s=2.0, server_died=True)
BROKE = Failed(reason="the command exited with code 1", duration_s=2.0)


def test_a_case_is_measured_until_it_is_answered() -> None:
    fakes = Fakes()

    (answer,) = fakes.run()

    assert ("s", "chat", "chat", "edge", 2) == (
        answer.server,
        answer.workload,
        answer.sla,
        answer.evidence,
        answer.trials,
    )
    trial = ["settle", "reset"]
    assert ["up", "open chat", "warm up", *trial, "measure 10", *trial, "measure 11", "close", "down"] == fakes.log
    kinds = [type(event) for event in fakes.events]
    assert [
        ServerStarting,
        ServerReady,
        *2 * [TrialStarted, TrialEnded],
        Answered,
        ServerStopped,
    ] == kinds


def test_what_a_session_learns_in_its_last_trial_is_told_too() -> None:
    fakes = Fakes(trials=1, session_warnings=["no usage"], learns=["outputs are short"])

    (answer,) = fakes.run()

    assert ("no usage", "outputs are short") == fakes.ended()[0].warnings == answer.warnings


def test_a_trial_holds_all_that_is_known_about_it() -> None:
    fakes = Fakes(server_warnings=["busy"], session_warnings=["no usage"], restless="not idle")

    (answer,) = fakes.run()

    first, second = fakes.ended()
    assert ("t1", "s-chat", 10.0, "start 1", {"usage": True}) == (
        first.id,
        first.case,
        first.probe.load,
        first.server_start,
        first.facts,
    )
    assert ("busy", "no usage", "not idle") == first.warnings == second.warnings == answer.warnings
    assert first.started.endswith("+00:00")
    assert [1, 2] == [event.number for event in fakes.told(TrialStarted)]


def test_no_server_is_started_where_history_answers_all() -> None:
    first = Fakes()
    answers = first.run()

    again = Fakes()
    assert answers == again.run(history={"s-chat": first.ended()})

    assert [] == again.log
    assert [Answered] == [type(event) for event in again.events]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_resuming_after_any_trial_gives_the_same_answer(kept: int) -> None:
    whole = Fakes()
    answers = whole.run()

    rest = Fakes()
    assert answers == rest.run(history={"s-chat": whole.ended()[:kept]})

    assert 2 - kept == len(rest.ended())


def test_only_unanswered_cases_of_a_job_are_measured() -> None:
    first = Fakes()
    first.run()

    fakes = Fakes()
    answers = fakes.run(job(CHAT, OTHER), history={"s-chat": first.ended()})

    assert ["chat", "other"] == [answer.workload for answer in answers]
    assert ["open other"] == [entry for entry in fakes.log if entry.startswith("open")]


def test_answers_come_in_the_order_of_cases_and_slas() -> None:
    batch = sla_of("batch", ["p95_e2el_ms<=30s"])
    other = replace(SERVER, name="t")

    answers = Fakes().run(job(CHAT, OTHER), job(server=other), slas=(SLA, batch))

    assert [
        ("s", "chat", "chat"),
        ("s", "chat", "batch"),
        ("s", "other", "chat"),
        ("s", "other", "batch"),
        ("t", "chat", "chat"),
        ("t", "chat", "batch"),
    ] == [(answer.server, answer.workload, answer.sla) for answer in answers]


# ---- what breaks -----------------------------------------------------------------------------------------------------


def test_a_server_that_dies_in_a_trial_is_started_again_once() -> None:
    fakes = Fakes(outcomes=[DIED])

    (answer,) = fakes.run()

    died, *others = fakes.ended()
    assert Failed(reason="connection refused", duration_s=2.0, log_tail="last words", server_died=True) == died.outcome
    assert [measured()] * 2 == [trial.outcome for trial in others]
    assert "edge" == answer.evidence
    assert 2 == len(fakes.told(ServerReady)) == len(fakes.told(ServerStopped))


def test_a_second_death_ends_the_search_with_crashed() -> None:
    fakes = Fakes(outcomes=[DIED, DIED])

    (answer,) = fakes.run()

    assert "crashed" == answer.evidence
    assert "server exited" == answer.limiting
    assert 10.0 == answer.high
    assert "connection refused\nlast words" == answer.error
    assert 2 == len(fakes.ended()) == fakes.log.count("up")


def test_the_other_cases_go_on_after_a_crash() -> None:
    fakes = Fakes(outcomes=[DIED, DIED])

    answers = fakes.run(job(CHAT, OTHER))

    assert ["crashed", "edge"] == [answer.evidence for answer in answers]
    assert 3 == fakes.log.count("up")


def test_a_measurement_of_a_server_that_died_meanwhile_is_no_evidence() -> None:
    fakes = Fakes(trials=1)

    def dies(probe: Probe, watch: Watch, seed: int) -> Outcome:
        fakes.up = False
        fakes.measure = Fakes().measure  # type: ignore[method-assign]  # the next ones go well
        return measured()

    fakes.measure = dies  # type: ignore[method-assign]
    fakes.run()

    first, _ = fakes.ended()
    assert isinstance(first.outcome, Failed)
    assert first.outcome.server_died
    assert "the server died during the trial" == first.outcome.reason


def test_requests_that_break_because_the_server_died_end_the_trial() -> None:
    well, broken = records(1.0, [Status.OK] * 3), records(2.0, [Status.OK] * 3 + [Status.FAILED])
    never = records(3.0, [Status.FAILED] * 9)
    fakes = Fakes(trials=1, snapshots=[well, broken, never])

    def connect(config: ServerConfig) -> AbstractContextManager[Subject]:
        fakes.snapshots = [well, broken, never] if "up" not in fakes.log else [well]
        return Fakes.connect(fakes, config)

    lab = replace(fakes.lab(), connect=connect)
    dying = Dying(fakes)
    run_job(job(), {}, experiment(), replace(lab, open_session=dying.open_session), fakes.events.append)

    first, second = fakes.ended()
    assert isinstance(first.outcome, Failed)
    assert 2.0 == first.outcome.duration_s
    assert first.outcome.server_died
    assert isinstance(second.outcome, Measured)


@dataclass
class Dying:
    """A session under which the server dies in the first trial, after the first second."""

    fakes: Fakes
    live: bool = True

    def open_session(self, endpoint: Endpoint, case: Case) -> AbstractContextManager[Session]:
        return nullcontext(self)

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:
        for seen in self.fakes.snapshots:
            self.fakes.up = len(self.fakes.snapshots) == 1 or seen.observed_s < 2.0
            if stop := watch(seen):
                return Measured(stop=stop, duration_s=stop.at_s, records=seen)
        return measured()


def test_a_configuration_that_does_not_start_answers_so_and_others_go_on() -> None:
    fakes = Fakes(starts=[RedlineError("server exited with code 3; last lines of its log: unknown option")])

    first, second = fakes.run(job(), job(server=replace(SERVER, name="t")))

    assert ("not_started", "the server did not start") == (first.evidence, first.stop_reason)
    assert "unknown option" in str(first.error)
    assert ("t", "edge", None) == (second.server, second.evidence, second.error)
    assert 2 == len(fakes.told(ServerStopped))


def test_a_server_that_died_and_does_not_come_back_has_crashed() -> None:
    fakes = Fakes(outcomes=[measured(), DIED], starts=[None, RedlineError("http://host does not answer")])
    attached = ServerConfig(name="s", url="http://host")

    (answer,) = fakes.run(job(server=attached))

    assert ("crashed", "server exited", 11.0, 2) == (answer.evidence, answer.limiting, answer.high, answer.trials)
    assert "http://host does not answer" == answer.error


def test_input_that_cannot_be_used_ends_everything() -> None:
    fakes = Fakes(starts=[UsageError("environment variable TOKEN is not set")])

    with pytest.raises(UsageError):
        fakes.run(job(), job())
    assert 1 == len(fakes.told(ServerStarting))


def test_a_session_that_cannot_be_opened_answers_with_the_servers_words() -> None:
    fakes = Fakes(opens=[RedlineError("the server says 400: no chat template")])

    first, second = fakes.run(job(CHAT, OTHER))

    assert ("undecided", "the server says 400: no chat template") == (first.evidence, first.error)
    assert "edge" == second.evidence


def test_a_server_that_dies_before_the_first_trial_is_started_again_once() -> None:
    fakes = Fakes()

    @contextmanager
    def open_session(endpoint: Endpoint, case: Case) -> Iterator[Session]:
        fakes.up = False
        raise RedlineError("connection reset")
        yield

    lab = replace(fakes.lab(), open_session=open_session)
    (answer,) = run_job(job(), {}, experiment(), lab, fakes.events.append)

    assert 2 == fakes.log.count("up")
    assert ("crashed", "connection reset\nlast words") == (answer.evidence, answer.error)


def test_a_measurement_that_breaks_is_a_result() -> None:
    fakes = Fakes(outcomes=[RedlineError("cannot start 'no-bench'"), Invalid(reason="the load worker died")])

    fakes.run()

    first, second = fakes.ended()
    assert Failed(reason="cannot start 'no-bench'") == first.outcome
    assert Invalid(reason="the load worker died") == second.outcome


@pytest.mark.parametrize("where", ["measure", "connect", "settle"])
def test_an_interrupt_stops_load_and_server_and_keeps_what_was_measured(where: str) -> None:
    fakes = Fakes(outcomes=[measured(), Interrupted("SIGINT")])

    class Restless(FakeServer):
        def settle(self, limit_s: float) -> str | None:
            if fakes.ended():
                raise Interrupted("SIGINT")
            return None

    lab = fakes.lab()
    if where == "connect":
        fakes.starts = [Interrupted("SIGINT")]
    if where == "settle":
        fakes.outcomes = []

        @contextmanager
        def connect(config: ServerConfig) -> Iterator[Subject]:
            with fakes.connect(config):
                yield Restless(fakes)

        lab = replace(lab, connect=connect)

    with pytest.raises(Interrupted):
        run_job(job(), {}, experiment(), lab, fakes.events.append)

    assert (0 if where == "connect" else 1) == len(fakes.ended())
    assert [] == fakes.told(Answered)
    assert (["close", "down"] if where != "connect" else []) == fakes.log[-2:]
    assert isinstance(fakes.events[-1], ServerStopped)


def test_a_store_that_cannot_write_ends_the_run_with_the_server_stopped() -> None:
    fakes = Fakes()

    def emit(event: Event) -> None:
        if isinstance(event, TrialEnded):
            raise RedlineError("disk full")

    with pytest.raises(RedlineError, match="disk full"):
        run_job(job(), {}, experiment(), fakes.lab(), emit)
    assert ["close", "down"] == fakes.log[-2:]


# ---- progress and patience -------------------------------------------------------------------------------------------


def test_progress_counts_requests_and_shows_the_criteria() -> None:
    statuses = [Status.OK, Status.OK, Status.RUNNING, Status.FAILED, Status.REJECTED]
    fakes = Fakes(trials=1, snapshots=[records(1.0, [Status.RUNNING]), records(2.0, statuses)])

    fakes.run()

    first, second = (event for event in fakes.events if isinstance(event, Progress))
    assert (1.0, 1, 0, 0) == (first.now_s, first.sent, first.finished, first.failed)
    assert (2.0, 5, 2, 2) == (second.now_s, second.sent, second.finished, second.failed)
    assert {"p90_ttft_ms": 100.0} == first.stats


def test_the_watch_of_the_asking_sla_stops_a_trial() -> None:
    stop = Stop(reason="over", at_s=1.0)
    fakes = Fakes(trials=1, snapshots=[records(1.0, [Status.OK])])
    lab = replace(fakes.lab(), watcher=lambda probe, sla, history: lambda seen: stop)

    run_job(job(), {}, experiment(), lab, fakes.events.append)

    (trial,) = fakes.ended()
    assert isinstance(trial.outcome, Measured)
    assert stop == trial.outcome.stop


def test_a_slow_server_gets_more_time_to_become_idle() -> None:
    slow = replace(records(100.0, [Status.OK] * 4), end_s=np.full(4, 50.0), scheduled_s=np.zeros(4))
    fakes = Fakes(outcomes=[replace(measured(), records=slow), measured()], trials=3)

    fakes.run()

    assert [60.0, 100.0, 60.0] == fakes.limits


def test_a_fixed_seed_gives_the_same_stream_and_a_drawn_one_another() -> None:
    assert [seeds(1)(n) for n in range(5)] == [seeds(1)(n) for n in range(5)]
    assert 10 == len({seeds(fixed)(n) for n in range(5) for fixed in (1, 2)})
    assert seeds()(1) != seeds()(1)


Connect = Callable[[ServerConfig], AbstractContextManager[Subject]]


def test_the_real_search_is_answered_on_a_virtual_server() -> None:
    from redline import search, verdict
    from redline.simulate.profiles import PROFILES
    from redline.simulate.session import VirtualSession

    profile = next(iter(PROFILES.values()))
    events: list[Event] = []
    numbers = count(1)
    lab = Lab(
        connect=lambda config: nullcontext(Still()),
        open_session=lambda endpoint, case: nullcontext(VirtualSession(profile, CHAT)),
        next_id=lambda: str(next(numbers)),
        next_job=search.next_job,
        answer_now=search.answer_now,
        watcher=verdict.watcher,
        summary=verdict.summary,
        seed=seeds(1),
    )
    asked = replace(experiment(), goal=Goal(precision=0.2, max_trials=6))
    virtual = job(server=ServerConfig(name="virtual"))

    (answer,) = run_jobs((virtual,), {}, asked, lab, events.append)
    trials = [event.trial for event in events if isinstance(event, TrialEnded)]
    (again,) = run_jobs((virtual,), {virtual.cases[0].key: trials}, asked, lab, events.append)

    assert ("virtual", "chat") == (answer.server, answer.workload)
    assert len(trials) == answer.trials > 0
    assert answer == again
