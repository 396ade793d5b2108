"""From an experiment to what would run: jobs, their keys, and where their results belong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from urllib.parse import urlsplit

from redline.experiment.commands import apply_parameters, fill, grid
from redline.experiment.estimate import CaseEstimate, Estimate, estimate_of
from redline.experiment.redaction import literals, literals_in, redact
from redline.model import Case, CommandWorkload, Experiment, Job, ServerConfig, Trial, Variable, Workload

__all__ = [
    "CaseEstimate",
    "Estimate",
    "apply_parameters",
    "case_key",
    "estimate",
    "fill",
    "find_directory",
    "grid",
    "identity",
    "jobs",
    "redact",
    "secrets",
]

GENERATOR = 1  # raise it when the built-in generator sends something else for the same workload: old trials then differ
_FIRST_SETTINGS = frozenset(
    ("prompt", "output", "api", "prompt_kind", "arrivals", "burstiness", "ignore_eos", "request_timeout_s")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What tells one experiment from another: the cases it measures, and the load it searches."""

    cases: Mapping[str, str]  # key -> what the user calls it
    variable: Variable
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of each server by its name; redacted
    secrets: Sequence[str] = ()  # literals that must not be written


def jobs(experiment: Experiment) -> tuple[Job, ...]:
    """One job for each server configuration, with a case for each workload, in the order of the file."""
    return tuple(
        Job(
            server=server,
            cases=tuple(
                Case(key=case_key(server, workload), server=server, workload=workload)
                for workload in experiment.workloads
            ),
        )
        for server in experiment.servers
    )


def estimate(experiment: Experiment, done: Mapping[str, Sequence[Trial]]) -> Estimate:
    """What would run and about how long, given the trials that are `done` by case key."""
    return estimate_of(experiment, [case for job in jobs(experiment) for case in job.cases], done)


def case_key(server: ServerConfig, workload: Workload | CommandWorkload) -> str:
    """A hash of what really runs: the command or the address, the environment, the workload, the generator's version.

    Names, SLAs, the search and how long to wait for the server do not count. Secrets are hidden before hashing, so
    that a new API key is no new server.
    """
    return _digest({"server": _server_content(server), "workload": _workload_content(workload)})


def identity(experiment: Experiment) -> Identity:
    """Which experiment this is, for the directory that keeps it."""
    return Identity(
        cases={case.key: f"{case.server.name}, {case.workload.name}" for job in jobs(experiment) for case in job.cases},
        variable=experiment.goal.by,
        commands={
            server.name: redact(server.command or server.start or (server.url or "",), _secrets(server))
            for server in experiment.servers
        },
        secrets=secrets(experiment),
    )


def find_directory(server: ServerConfig, workload: Workload | CommandWorkload, by: Variable) -> str:
    """Where `find` keeps its results unless told otherwise: one directory for each question to one server."""
    host = urlsplit(_same_url(server.url or "")).hostname or "server"
    safe = "".join(char if char.isalnum() or char in ".-" else "_" for char in host).strip(".") or "server"
    content = {**_server_content(server), "workload": _workload_content(workload), "by": by}
    return f"redline-results/{safe}-{_digest(content)[:8]}"


def secrets(experiment: Experiment) -> tuple[str, ...]:
    """The secrets that stand literally in the experiment: they are hidden wherever they turn up."""
    return tuple(dict.fromkeys(secret for server in experiment.servers for secret in _secrets(server)))


def _secrets(server: ServerConfig) -> list[str]:
    commands = (server.command, server.start, server.stop, server.log)
    in_commands = [secret for command in commands for secret in literals_in(command or ())]
    return [*literals(server.headers), *literals(server.env), *in_commands]


def _server_content(server: ServerConfig) -> dict[str, object]:
    """What is hashed. Secrets are hidden as they are in what is stored, so that both have the same key."""
    if server.attached:
        return {"url": _same_url(server.url or ""), "model": server.model}
    hidden = _secrets(server)
    content: dict[str, object] = {"env": redact(dict(server.env), hidden), "model": server.model}
    if server.command is not None:
        return {**content, "command": redact(list(server.command), hidden)}
    return {**content, "start": redact(list(server.start or ()), hidden), "url": _same_url(server.url or "")}


def _same_url(url: str) -> str:
    """One spelling for one address: http://HOST:8000/v1/ is http://host:8000."""
    url = redact(url.strip())
    parts = urlsplit(url if "://" in url or not url else f"http://{url}")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}"


def _workload_content(workload: Workload | CommandWorkload) -> dict[str, object]:
    if isinstance(workload, CommandWorkload):
        content = asdict(workload)
        del content["name"]
        return {**content, "command": redact(list(workload.command))}
    plain = asdict(Workload(name="", prompt=workload.prompt, output=workload.output))
    content = asdict(replace(workload, name="", trace=None, dataset=None, tokenizer=None))
    if (trace := workload.trace) is not None:
        blocks = {"blocks": True} if trace.has_blocks else {}
        content["trace"] = {"sha256": trace.sha256, "lengths": trace.has_lengths, **blocks}
    if (dataset := workload.dataset) is not None:
        content["dataset"] = {"sha256": dataset.sha256, "lengths": dataset.has_lengths}
    if workload.tokenizer is not None:
        content["tokenizer"] = {"sha256": workload.tokenizer.sha256}
    # Settings that came later count only where they are used: older trials keep their key.
    told = {key: value for key, value in content.items() if key in _FIRST_SETTINGS or value != plain[key]}
    return {**told, "generator": GENERATOR}


def _digest(content: Mapping[str, object]) -> str:
    text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _plain(value: object) -> object:
    """512 and 512.0 are one number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
