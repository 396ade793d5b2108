"""The nouns of Redline: what is asked, what is measured, what is answered.

Everything here is a frozen value; deciding code takes these and returns these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from redline.files import Dataset as Dataset
from redline.files import Trace as Trace
from redline.files import Vocabulary as Vocabulary
from redline.shapes import Lengths as Lengths
from redline.shapes import Prefix as Prefix
from redline.shapes import ThinkTime as ThinkTime

if TYPE_CHECKING:
    from redline.records import Records

Variable: TypeAlias = Literal["rate", "concurrency"]
ProbeKind: TypeAlias = Literal["scout", "main", "confirm", "hold", "list"]
EvidenceClass: TypeAlias = Literal["edge", "floor", "none", "undecided", "client_limited", "crashed", "not_started"]
Verdict: TypeAlias = Literal["pass", "fail", "undecided"]
JsonValue: TypeAlias = "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

UNITS: Mapping[Variable, str] = {"rate": "requests/s", "concurrency": "requests in flight"}
LOAD_LIMITS: Mapping[Variable, tuple[float, float]] = {"rate": (0.01, 100_000.0), "concurrency": (1.0, 8_192.0)}


class RedlineError(Exception):
    """Something the user can act on: what is wrong, where, and what to do. Exit code 1."""


class UsageError(RedlineError):
    """Bad input: a file, an option or a combination of them that cannot be used. Exit code 2."""


class Interrupted(KeyboardInterrupt):
    """The user or the system asked us to stop (Ctrl-C, SIGTERM, SIGHUP)."""


# ---- what is asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One bound on one metric, in the metric's own unit (ms, share, or per second)."""

    metric: str
    op: Literal["<=", "<", ">=", ">"]
    bound: float
    default: bool = False  # added by Redline, not written by the user

    @property
    def text(self) -> str:
        return f"{self.metric}{self.op}{self.bound:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sla:
    """A named set of criteria that must all hold."""

    name: str
    criteria: tuple[Criterion, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What the built-in load generator sends."""

    name: str
    prompt: Lengths
    output: Lengths
    api: Literal["chat", "completions"] = "chat"
    prompt_kind: Literal["text", "tokens"] = "text"  # tokens: random token ids, completions only
    arrivals: Literal["poisson", "constant", "gamma", "trace"] = "poisson"
    burstiness: float = 1.0  # shape of the gamma distribution of gaps; 1 is Poisson, smaller is burstier
    ignore_eos: bool = True
    request_timeout_s: float = 600.0
    trace: Trace | None = None  # its times where `arrivals` says so, its lengths where it has any
    think_time_s: ThinkTime | None = None  # between an answer and the next request of its user, or conversation
    turns: Lengths | None = None  # of conversations, in which each request repeats what was said before it
    ramp_s: float = 0.0  # before a trial: the rate rises from nothing, users come one after another
    max_in_flight: int | None = None  # open loop: with so many on their way, whoever is due waits in the client
    dataset: Dataset | None = None  # its prompts instead of made-up ones
    tokenizer: Vocabulary | None = None  # made-up prompts are of its words
    prefix: Prefix | None = None  # what made-up prompts have in common
    repeat: bool = False  # the same text may be sent again: prompts of a file, or what others have in common
    max_tokens: int | None = None  # no request asks for more
    min_tokens: int | None = None  # of outputs that may end by themselves
    extra: Mapping[str, JsonValue] = field(default_factory=dict)  # further fields of each body


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandWorkload:
    """An external benchmark command instead of the built-in generator."""

    name: str
    command: tuple[str, ...]  # with {url} {model} {rate} {concurrency} {requests} {seed} {result} still in it
    reader: str
    timeout_s: float = 3_600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """One launch command after its parameters are applied, or the address of a server that runs.

    `${NAME}` in `env` and `headers` stays unexpanded here and in everything stored; server/ expands it when used.
    """

    name: str
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    command: tuple[str, ...] | None = None  # may hold {port}
    start: tuple[str, ...] | None = None  # no foreground process: these start it, stop it and print its log
    stop: tuple[str, ...] | None = None
    log: tuple[str, ...] | None = None
    url: str | None = None
    port: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    ready: str | None = None  # a path; None tries /health, then /v1/models
    ready_timeout_s: float = 600.0
    stop_grace_s: float = 30.0
    gpus: int = 0
    model: str | None = None  # None: asked from /v1/models
    headers: Mapping[str, str] = field(default_factory=dict)
    api_key_env: str | None = None
    insecure: bool = False  # do not verify the TLS certificate

    @property
    def attached(self) -> bool:
        return self.command is None and self.start is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """How to search, and when to stop."""

    by: Variable = "rate"
    precision: float = 0.05  # half width of the 80% interval of ln(capacity) at which the search stops
    confidence: float = 0.9  # of the interval and of the verdicts that are shown
    min_load: float = 0.01
    max_load: float = 100_000.0
    max_time_s: float | None = None  # per case, measured time
    max_requests: int | None = None  # per case, after scouting
    max_trials: int = 25
    sustain_s: float | None = None
    loads: tuple[float, ...] = ()  # measure this list instead of searching
    curve: bool = False  # measure a list that is found: from a light load to one that fills the server
    seed: int | None = None  # fixes the seeds of all trials, for tests; None draws them anew
    load_workers: int | None = None  # processes of the load generator; None: as many as are needed

    @property
    def lists(self) -> bool:
        """Are loads measured one by one, and no capacity searched?"""
        return self.curve or bool(self.loads)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Configurations x workloads x SLAs."""

    name: str
    servers: tuple[ServerConfig, ...]
    workloads: tuple[Workload | CommandWorkload, ...]
    slas: tuple[Sla, ...]
    goal: Goal


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """(server configuration, workload); `key` hashes what really runs, never an SLA."""

    key: str
    server: ServerConfig
    workload: Workload | CommandWorkload


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One server lifetime and the cases measured on it."""

    server: ServerConfig
    cases: tuple[Case, ...]


# ---- what is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where requests go."""

    url: str  # scheme://host:port[/prefix], without a trailing slash and without /v1
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)  # expanded: never store these
    insecure: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One measurement to make."""

    by: Variable
    load: float
    kind: ProbeKind
    need: Mapping[str, int] = field(default_factory=dict)  # criterion text -> requests to judge
    spread_s: float = 1.0  # closed loop: users start spread over this time
    max_s: float = 3_600.0
    max_requests: int | None = None
    drain: bool = False  # at its limits send no more, and wait for what is in flight; else drop that
    asked_by: str = ""  # name of the SLA


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Why a trial ended, and the bounds that caused it.

    full: every criterion has its requests, stationary. fail: hopeless for `criterion`. over: the queue grows.
    scouted: a scout has seen enough. budget: `max_s`, `max_requests`. ended: the session finished by itself.
    """

    reason: Literal["full", "fail", "over", "scouted", "budget", "ended"]
    at_s: float  # since the trial began
    window_start_s: float = 0.0  # the warm-up that was cut off
    criterion: str | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientEvidence:
    """Was the client good enough? Stored raw with each trial; judged per SLA when read."""

    due: int = 0  # requests whose time had come
    sent: int = 0
    held: int = 0  # had to wait for a place, as `max_in_flight` asks: that is no lateness
    held_back: int = 0  # of those: never got one
    late_p50_s: float = 0.0  # sending after the due time
    late_p99_s: float = 0.0
    read_delay_p99_s: float = 0.0  # reading after the kernel's receive stamp, or the loop's lag where there is none
    merged_reads: float = 0.0  # share of reads delayed by more than half the median inter-token gap
    kernel_stamps: bool = False
    behind: Mapping[str, float] = field(
        default_factory=dict
    )  # ms -> share of the time in which it was held up for more
    idle_share: float = 0.0  # closed loop: of the users' time, between the end of an answer and the next request
    cpu_share: float = 0.0  # own CPU time / wall time of the busiest worker
    cpu_shares: tuple[float, ...] = ()  # of each
    involuntary_switches: int = 0
    tokens_from_usage: bool = True
    errors: Mapping[str, int] = field(default_factory=dict)  # text of a failure -> how often


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A measurement: every request, or the aggregates that an external command left (one mapping per run)."""

    stop: Stop
    duration_s: float
    records: Records | None = None
    aggregates: tuple[Mapping[str, float], ...] = ()
    client: ClientEvidence = field(default_factory=ClientEvidence)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The server or the command broke. Never a verdict on the SLA."""

    reason: str
    duration_s: float = 0.0
    log_tail: str = ""
    server_died: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Invalid:
    """No SLA could use it: the load worker died, sent/due under 90%, stopped by the user."""

    reason: str
    cure: str = ""
    duration_s: float = 0.0


Outcome: TypeAlias = Measured | Failed | Invalid


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One measurement of one case at one load."""

    id: str
    case: str  # Case.key
    probe: Probe
    seed: int
    started: str  # UTC, ISO 8601
    outcome: Outcome
    server_start: str = ""  # which start of the server this ran on
    facts: Mapping[str, JsonValue] = field(default_factory=dict)  # what preflight learnt
    warnings: tuple[str, ...] = ()


Watch: TypeAlias = "Callable[[Records], Stop | None]"
"""Called each second of the session's own time with everything seen so far; a Stop ends the trial."""


class Session(Protocol):
    """What loadgen, simulate and bench provide: something that can be measured."""

    live: bool  # False: no records before the end (external commands); watch is never called

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome: ...


# ---- what is answered ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The capacity of one case under one SLA; field by field the `redline.answer/1` schema."""

    server: str = ""
    workload: str = ""
    sla: str
    criteria: tuple[Criterion, ...]
    variable: Variable
    unit: str = ""  # of the load, where it is not that of every such load
    evidence: EvidenceClass
    capacity: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.9
    quality: Literal["records", "aggregates"] = "records"
    limiting: str | None = None
    headroom: Mapping[str, float] = field(default_factory=dict)  # criterion text -> bound/actual at capacity
    verdict_at_capacity: Verdict = "undecided"
    at_capacity: Mapping[str, float] = field(default_factory=dict)
    feasible_from: float | None = None
    trials: int = 0
    requests: int = 0
    benchmark_s: float = 0.0
    stop_reason: str = ""
    warnings: tuple[str, ...] = ()
    error: str | None = None
