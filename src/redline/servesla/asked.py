"""What one call of the sweep asks for: its flags and files, read and checked, as an experiment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from redline.experiment.build import experiment_of
from redline.experiment.commands import NAME_KEY, record_text
from redline.experiment.file import experiment_to_toml
from redline.experiment.plan import jobs
from redline.experiment.settings import Problem, told
from redline.model import Experiment, Job, UsageError
from redline.servesla.parameters import (
    VARIABLES,
    BadTypeError,
    BadValueError,
    Pair,
    Record,
    applied,
    pairs_of,
    parse_links,
    records_of,
    refuse_variable,
)
from redline.servesla.parameters import record_text as folder_text
from redline.servesla.targets import Target, targets_of
from redline.servesla.words import address_of, bench_command, prompts_of, stored_command

SERVE_PARAMS = "serve-params.json"  # beside the experiment's file
OWN = "redline"  # our own experiment directory within the tree
_LONGEST_S = 3_600.0  # of sending the prompts of one run at the lowest rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Flags:
    """The flags of the command line, as given."""

    serve_cmd: str
    bench_cmd: str
    sla_params: Path
    after_bench_cmd: str | None = None
    show_stdout: bool = False
    server_ready_timeout: float = 300.0
    serve_params: Path | None = None
    bench_params: Path | None = None
    link_vars: str | None = None
    sla_variable: str = "request_rate"
    output_dir: Path = Path("results")
    experiment_name: str | None = None
    num_runs: int = 3
    dry_run: bool = False
    resume: str | None = None  # "": without a timestamp
    search: Literal["redline", "legacy"] = "redline"
    bench_timeout: float = 3_600.0
    options: Mapping[str, Any] = field(default_factory=dict)  # of Redline's own search


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is to be done."""

    flags: Flags
    folder: Path  # of the experiment in the output directory
    serve: tuple[str, ...]
    bench: tuple[str, ...]
    after_bench: tuple[str, ...]
    pairs: tuple[Pair, ...]
    targets: tuple[Target, ...]
    notes: tuple[str, ...]

    @property
    def variable(self) -> str:
        return self.flags.sla_variable

    @property
    def own(self) -> Path:
        return self.folder / OWN

    @property
    def serves(self) -> list[Record]:
        return list({folder_text(pair.serve): pair.serve for pair in self.pairs}.values())

    @property
    def benches(self) -> list[Record]:
        return list({folder_text(pair.bench): pair.bench for pair in self.pairs}.values())

    @property
    def prompts(self) -> int | None:
        """The fewest requests that a run makes; None where one of the commands does not say."""
        counts = [prompts_of(bench_command(self.bench, record, self.variable)) for record in self.benches]
        known = [count for count in counts if count is not None]
        return min(known) if known and len(known) == len(counts) else None


def asked_by(flags: Flags, now: datetime) -> Asked:
    """What these flags ask for; UsageError, TypeError or ValueError (each is the first) where they cannot be used."""
    if flags.num_runs < 1:
        raise BadValueError("--num-runs must be at least 1")
    serves = _records(flags.serve_params, "--serve-params")
    benches = _records(flags.bench_params, "--bench-params")
    refuse_variable(benches, flags.sla_variable)
    targets = _read(flags.sla_params, "--sla-params", targets_of)
    pairs, notes = pairs_of(serves, benches, parse_links(flags.link_vars))
    return Asked(
        flags=flags,
        folder=_folder(flags, now),
        serve=_words(flags.serve_cmd, "--serve-cmd"),
        bench=_words(flags.bench_cmd, "--bench-cmd"),
        after_bench=_words(flags.after_bench_cmd, "--after-bench-cmd") if flags.after_bench_cmd else (),
        pairs=pairs,
        targets=targets,
        notes=notes,
    )


def experiment_for(asked: Asked) -> tuple[Experiment, str, dict[str, str]]:
    """The same as an experiment of Redline, the text of its file, and what stands beside it."""
    server: dict[str, Any] = {
        "command": asked.serve,
        "ready": "/health",
        "ready_timeout_s": asked.flags.server_ready_timeout,
        "env": {"VLLM_SERVER_DEV_MODE": "1"},  # or vLLM has no pages that reset its caches
        **_address(asked),
    }
    records = asked.serves
    if any(records):
        server["vary"] = [dict(record) for record in records]
    workloads = {}
    for record in asked.benches:
        command = bench_command(asked.bench, record, asked.variable)
        name = str(record.get(NAME_KEY) or record_text(record) or "bench")
        workloads[name] = {
            "command": stored_command(command),
            "reader": "vllm",
            "timeout_s": asked.flags.bench_timeout,
        }
    if len(workloads) < len(asked.benches):
        raise BadValueError("two records of --bench-params have one name; change a _benchmark_name")
    slas = [target.sla() for target in asked.targets]
    data = {
        "server": server,
        "workload": workloads,
        "sla": {sla.name: [f"{c.metric}{c.op}{c.bound!r}" for c in sla.criteria if not c.default] for sla in slas},
        "search": _search(asked),
    }
    problems: list[Problem] = []
    experiment = experiment_of(asked.folder.name, data, problems)
    if experiment is None or problems:
        raise told(problems, "cannot start")
    plain = replace(experiment.servers[0], name="server", parameters={}, command=asked.serve)
    text = experiment_to_toml(replace(experiment, servers=(plain,)))
    files = {}
    if "vary" in server:
        text = text.replace("[server]\n", f'[server]\nvary = "{SERVE_PARAMS}"\n', 1)
        files[SERVE_PARAMS] = json.dumps(server["vary"], indent=2) + "\n"
    return experiment, text, files


def jobs_for(asked: Asked, experiment: Experiment) -> tuple[tuple[Job, ...], dict[str, Pair]]:
    """The jobs without the pairs that are not linked, and the pair of each case by its key."""
    linked = {(folder_text(pair.serve), folder_text(pair.bench)): pair for pair in asked.pairs}
    kept, by_key = [], {}
    for job, serve in zip(jobs(experiment), asked.serves, strict=True):
        cases = []
        for case, bench in zip(job.cases, asked.benches, strict=True):
            if pair := linked.get((folder_text(serve), folder_text(bench))):
                by_key[case.key] = pair
                cases.append(case)
        kept.append(Job(server=job.server, cases=tuple(cases)))
    return tuple(kept), by_key


# ---- parts -----------------------------------------------------------------------------------------------------------


def _records(path: Path | None, flag: str) -> tuple[Record, ...]:
    """One empty record where no file is given: the base command, unchanged."""
    return ({},) if path is None else _read(path, flag, records_of)


def _read(path: Path, flag: str, parse: Any) -> Any:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{flag} {path}: {error.strerror}; give a JSON file") from error
    except ValueError as error:
        raise BadValueError(f"{flag} {path} is no JSON: {error}") from error
    try:
        return parse(data)
    except (BadTypeError, BadValueError) as error:
        raise type(error)(f"{flag} {path}: {error}") from error


def _words(text: str, flag: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise BadValueError(f"{flag} cannot be split into words: {str(error).lower()}; check the quotes") from error
    if not words:
        raise BadValueError(f"{flag} is empty; give the command to run")
    return words


def _folder(flags: Flags, now: datetime) -> Path:
    """Where this experiment's tree is; a new one is named by the time."""
    name = flags.resume or flags.experiment_name
    if flags.resume is not None and not name:
        there = sorted(path.name for path in flags.output_dir.glob("*") if path.is_dir())
        known = f"; there are {', '.join(there[-5:])}" if there else f"; there is none in {flags.output_dir}"
        raise UsageError(f"--resume: which experiment? Write --resume NAME, or -e NAME{known}")
    folder = flags.output_dir / (name or now.strftime("%Y%m%d_%H%M%S"))
    if flags.resume is not None and not folder.is_dir():
        raise UsageError(f"--resume: there is no experiment {folder}; leave --resume out to begin one")
    return folder


def _address(asked: Asked) -> dict[str, str]:
    """Where the servers answer: one address for all, or that which each command names."""
    commands = [applied(asked.serve, record) for record in asked.serves]
    addresses = list(dict.fromkeys(address_of(command) for command in commands))
    if len(addresses) == 1:
        host, port = addresses[0]
        return {"url": f"http://{host}:{port}"}
    return {}


def _search(asked: Asked) -> dict[str, Any]:
    """Concurrency ends where the prompts of a run no longer keep it up, a rate where they would last over an hour."""
    by = VARIABLES[asked.variable]
    given = {key: value for key, value in asked.flags.options.items() if value is not None}
    if by == "concurrency" and "max" not in given and asked.prompts is not None:
        given["max"] = max(1.0, min(8_192.0, asked.prompts // 2))
        given.setdefault("min", 1.0)
    if by == "rate" and "min" not in given and asked.prompts is not None:
        given["min"] = float(f"{max(0.01, min(1.0, asked.prompts / _LONGEST_S)):.3g}")
    return {"by": by, **given}


def caps_concurrency(asked: Asked) -> bool:
    """Does the number of prompts, and nothing else, end the search?"""
    return VARIABLES[asked.variable] == "concurrency" and "max" not in asked.flags.options and asked.prompts is not None


def commands_of(asked: Asked, pair: Pair) -> tuple[Sequence[str], Sequence[str]]:
    """The server and the benchmark of a pair."""
    return applied(asked.serve, pair.serve), bench_command(asked.bench, pair.bench, asked.variable)
