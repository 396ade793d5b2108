"""From named settings to an Experiment: every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redline.experiment import settings
from redline.experiment.configurations import parse_url, servers_of, with_scheme
from redline.experiment.external import check_command
from redline.experiment.goals import SEARCH, goal_of
from redline.experiment.inputs import Load, nowhere
from redline.experiment.loadshape import check_load
from redline.experiment.presets import PRESETS
from redline.experiment.settings import Path, Problem, Read
from redline.experiment.workloads import parse_workload, workload_of
from redline.model import CommandWorkload, Experiment, Goal, ServerConfig, Sla, UsageError, Workload
from redline.sla import parse_sla, sla_of
from redline.units import nearest, parse_duration

T = TypeVar("T")

SECTIONS = ("server", "workload", "sla", "search")

_FIND: Mapping[str, Read] = {
    "url": parse_url,
    "workload": settings.text,
    "api": settings.choice("chat", "completions"),
    "model": settings.text,
    "headers": settings.headers,
    "api_key_env": settings.environment_name,
    "insecure": settings.flag,
    "request_timeout": parse_duration,
}


# ---- a file ----------------------------------------------------------------------------------------------------------


def experiment_of(
    name: str, data: Mapping[str, object], problems: list[Problem], load: Load = nowhere
) -> Experiment | None:
    """The experiment that a file's tables describe; None, and more `problems`, where they describe none.

    `load` reads the files that its workloads name.
    """
    before = len(problems)
    for key in data:
        if key not in SECTIONS:
            problems.append(Problem(path=(key,), text=f"unknown section {key}; {nearest(key, SECTIONS)}"))
    wanted = {
        "server": 'a [server] section with command = "vllm serve MODEL --port {port}"',
        "workload": 'a [workload.chat] section with preset = "chat"',
        "sla": 'a [sla] section with chat = ["p99_ttft_ms<=200"]',
    }
    for key, example in wanted.items():
        if not data.get(key):
            problems.append(Problem(path=(key,) if key in data else (), text=f"{key} is missing: write {example}"))
    goal = goal_of(data.get("search", {}), ("search",), problems)
    servers = servers_of(data["server"], problems) if data.get("server") else ()
    workloads = _workloads(data["workload"], goal, problems, load) if data.get("workload") else ()
    slas = _slas(data["sla"], problems) if data.get("sla") else ()
    if len(problems) > before:
        return None
    return Experiment(name=name, servers=servers, workloads=workloads, slas=slas, goal=goal)


def _workloads(
    section: object, goal: Goal, problems: list[Problem], load: Load
) -> tuple[Workload | CommandWorkload, ...]:
    if not isinstance(section, Mapping) or not all(isinstance(entry, Mapping) for entry in section.values()):
        hint = 'write [workload.chat] and below it preset = "chat"'
        problems.append(Problem(path=("workload",), text=f"workloads have names; {hint}"))
        return ()
    workloads = []
    for name, entry in section.items():
        path: Path = ("workload", name)
        workload = workload_of(name, entry, path, problems, load)
        if isinstance(workload, CommandWorkload):
            check_command(workload, goal.by, path, problems)
        elif workload is not None:
            check_load(workload, goal, path, problems)
        if workload is not None:
            workloads.append(workload)
    return tuple(workloads)


def _slas(section: object, problems: list[Problem]) -> tuple[Sla, ...]:
    if not isinstance(section, Mapping):
        problems.append(Problem(path=("sla",), text='must be a table such as chat = ["p99_ttft_ms<=200"]'))
        return ()
    slas = []
    for name, entry in section.items():
        texts = [entry] if isinstance(entry, str) else entry
        path: Path = ("sla", name)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            problems.append(Problem(path=path, text=f'{name} must be a list of criteria such as ["p99_ttft_ms<=200"]'))
            continue
        before = len(problems)
        for i, text in enumerate(texts):
            _try_sla(name, [text], path if isinstance(entry, str) else (*path, i), problems)
        sla = _try_sla(name, texts, path, problems) if len(problems) == before else None
        if sla is not None:
            slas.append(sla)
    return tuple(slas)


def _try_sla(name: str, texts: Sequence[str], path: Path, problems: list[Problem]) -> Sla | None:
    try:
        return sla_of(name, texts)
    except UsageError as error:
        problems.append(Problem(path=path, text=str(error)))
        return None


# ---- options ---------------------------------------------------------------------------------------------------------


def find_experiment(
    url: str,
    slas: Sequence[str],
    options: Mapping[str, object],
    workload: Workload | CommandWorkload | None = None,
    load: Load = nowhere,
) -> Experiment:
    """What `redline find` asks, from its options with underscores; UsageError has everything that is wrong with them.

    `workload` is one that was read from a file; else the option `workload` is a preset or random:in=512,out=128.
    `load` reads a trace that it names.
    """
    asked = 'what must hold? Add --sla "p99_ttft_ms<=200, p90_tpot_ms<=50"'
    problems = [] if slas else [Problem(path=(), text=asked)]
    return _attached(url, slas, options, (workload, load), problems)


def bench_experiment(
    url: str,
    slas: Sequence[str],
    options: Mapping[str, object],
    workload: Workload | CommandWorkload | None = None,
    load: Load = nowhere,
) -> Experiment:
    """The same for `redline bench`, which measures the loads that it is told, and may judge them."""
    problems: list[Problem] = []
    if isinstance(workload, CommandWorkload):
        text = "measures with the built-in generator: give a workload without a command, or run the command itself"
        problems.append(Problem(path=(), text=f"{workload.name}: redline bench {text}"))
    return _attached(url, slas, options, (workload, load), problems)


def _attached(
    url: str,
    slas: Sequence[str],
    options: Mapping[str, object],
    source: tuple[Workload | CommandWorkload | None, Load],
    problems: list[Problem],
) -> Experiment:
    workload, load = source
    search = {key: value for key, value in options.items() if key in SEARCH}
    others = {key: value for key, value in options.items() if key not in SEARCH}
    goal = goal_of(search, (), problems)
    given = settings.read({"url": url, **others}, _FIND, (), problems)
    read = [_try(parse_sla, text, problems) for text in slas]
    known = [sla for sla in read if sla is not None]
    names = [sla.name for sla in known]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        problems.append(Problem(path=(), text=f"two SLAs are named {name!r}; give each its own name before a colon"))
    if workload is None:
        said = str(given.get("workload", "chat"))
        workload = _try(lambda text: parse_workload(text, load), said, problems) or PRESETS["chat"]
    changes = {"api": given.get("api"), "request_timeout_s": given.get("request_timeout")}
    workload = _with_changes(workload, {key: value for key, value in changes.items() if value is not None}, problems)
    if isinstance(workload, CommandWorkload):
        check_command(workload, goal.by, (), problems)
    else:
        check_load(workload, goal, (), problems)
    if problems:
        raise settings.told(problems, "cannot start")
    fields = {key: given[key] for key in ("model", "headers", "api_key_env", "insecure") if key in given}
    server = ServerConfig(name=urlsplit(with_scheme(given["url"])).netloc, url=given["url"], **fields)
    return Experiment(name=server.name, servers=(server,), workloads=(workload,), slas=tuple(known), goal=goal)


def _try(parse: Callable[[str], T], given: str, problems: list[Problem]) -> T | None:
    try:
        return parse(given)
    except UsageError as error:
        problems.append(Problem(path=(), text=str(error)))
        return None


def _with_changes(
    workload: Workload | CommandWorkload, changes: Mapping[str, Any], problems: list[Problem]
) -> Workload | CommandWorkload:
    if changes and isinstance(workload, CommandWorkload):
        names = ", ".join("--" + name.removesuffix("_s").replace("_", "-") for name in changes)
        problems.append(
            Problem(path=(), text=f"{names}: a benchmark command makes its own requests; change the command")
        )
        return workload
    return replace(workload, **changes)
