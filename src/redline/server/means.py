"""What this machine lacks to run an experiment: environment variables and programs, in words."""

from __future__ import annotations

import os
from collections.abc import Sequence

from redline import process
from redline.model import CommandWorkload, Experiment, ServerConfig, UsageError, Workload
from redline.server.ask import expand


def unset(servers: Sequence[ServerConfig]) -> list[str]:
    """Every `${NAME}` and key that is not set."""
    lacks: list[str] = []
    for config in servers:
        values = {f"header {name}": value for name, value in config.headers.items()}
        values |= {f"env {name} of {config.name}": value for name, value in config.env.items()}
        if config.api_key_env:
            values["--api-key-env"] = f"${{{config.api_key_env}}}"
        for where, value in values.items():
            try:
                expand(value, where)
            except UsageError as error:
                lacks.append(str(error))
    return list(dict.fromkeys(lacks))


def lacks(experiment: Experiment) -> list[str]:
    """Everything that is missing."""
    programs = [*map(_no_program, experiment.servers), *map(_no_client, experiment.workloads)]
    return [*unset(experiment.servers), *dict.fromkeys(filter(None, programs))]


def hindrance(experiment: Experiment) -> str:
    """Why no configuration, or no workload, could be run; empty where one of each can."""
    for texts in ([*map(_no_program, experiment.servers)], [*map(_no_client, experiment.workloads)]):
        if all(texts):
            return "\n  ".join(dict.fromkeys(texts))
    return ""


def _no_program(config: ServerConfig) -> str:
    """Why this server cannot be launched here; empty where it can, or runs already."""
    path = {name: os.path.expandvars(value) for name, value in config.env.items() if name == "PATH"}
    words = config.command or config.start
    return "" if words is None or process.installed(words[0], path) else _not_found(words[0])


def _no_client(workload: Workload | CommandWorkload) -> str:
    """Why its benchmark command cannot be run here; empty where it can, or there is none."""
    if not isinstance(workload, CommandWorkload) or process.installed(workload.command[0], {}):
        return ""
    return _not_found(workload.command[0])


def _not_found(program: str) -> str:
    return f"cannot start {program!r}: there is no such program on the PATH; install it, or give its full path"
