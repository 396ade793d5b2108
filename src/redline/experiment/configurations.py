"""Which servers an experiment measures: launch commands with their parameters, or the address of one that runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from redline.experiment import settings
from redline.experiment.commands import NAME_KEY, apply_parameters, grid, placeholders, port_of, record_text
from redline.experiment.settings import Path, Problem, Read
from redline.model import JsonValue, ServerConfig, UsageError
from redline.units import nearest, parse_count, parse_duration, parse_not_negative, parse_whole

Record = dict[str, JsonValue]


# ---- readers of single settings --------------------------------------------------------------------------------------


def parse_url(value: object) -> str:
    url = settings.text(value).strip()
    shown = re.sub(r"^([^/]*//)?.*@", r"\1***@", url)
    try:
        parts = urlsplit(with_scheme(url).replace("{port}", "1"))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or any(char.isspace() for char in url):
        raise UsageError(f"{shown!r} is no address of a server; write http://HOST:PORT")
    if "@" in parts.netloc:
        instead = "use --header or --api-key-env (in a file, headers or api_key_env)"
        raise UsageError(f"{shown!r} holds credentials, which are not sent from there; {instead}")
    return url


def _port(value: object) -> int:
    port = parse_count(value)
    if port > 65_535:
        raise UsageError(f"{port} is no TCP port; they end at 65535")
    return port


def _ready(value: object) -> str:
    path = settings.text(value)
    if not path.startswith("/"):
        raise UsageError(f"{path!r} must be a path on the server, such as /health")
    return path


def records_of(data: object) -> tuple[Record, ...]:
    """The configurations in a parameter file of vLLM's sweep: a list of objects, or an object of named objects."""
    if isinstance(data, Mapping):
        data = [{**entry, NAME_KEY: name} if isinstance(entry, Mapping) else entry for name, entry in data.items()]
    if not isinstance(data, (list, tuple)):
        raise UsageError("must be a list of tables, one for each configuration, or a table of tables")
    if bad := [entry for entry in data if not isinstance(entry, Mapping)]:
        raise UsageError(f"{bad[0]!r} is no table of parameters")
    if not data:
        raise UsageError("is empty, so that nothing would run; remove it, or name a configuration")
    names = [entry[NAME_KEY] for entry in data if NAME_KEY in entry]
    if twice := {str(name) for name in names if names.count(name) > 1}:
        raise UsageError(f"{NAME_KEY} {', '.join(sorted(twice))} is there twice; names must differ")
    return tuple(dict(entry) for entry in data)


def _vary(value: object) -> tuple[Record, ...]:
    """Lists of values make every combination; tables are configurations of their own."""
    if isinstance(value, Mapping) and not any(isinstance(entry, Mapping) for entry in value.values()):
        for key, entry in value.items():
            if not isinstance(entry, list) or not entry:
                shown = "an empty list" if entry == [] else repr(entry)
                raise UsageError(f"{key} must be a list of the values to try, such as [64, 128], not {shown}")
        return grid(value)
    return records_of(value)


_SERVER: Mapping[str, Read] = {
    "command": settings.words,
    "start": settings.words,
    "stop": settings.words,
    "log": settings.words,
    "url": parse_url,
    "port": _port,
    "env": settings.environment,
    "ready": _ready,
    "ready_timeout_s": parse_duration,
    "stop_grace_s": parse_not_negative,
    "gpus": parse_whole,
    "vary": _vary,
    "model": settings.text,
    "headers": settings.headers,
    "api_key_env": settings.environment_name,
    "insecure": settings.flag,
}


# ---- the section ----


def servers_of(section: object, problems: list[Problem]) -> tuple[ServerConfig, ...]:
    path: Path = ("server",)
    before = len(problems)
    given = settings.read(section, _SERVER, path, problems)
    keys = set(section) if isinstance(section, Mapping) else set()
    for key, text in _server_contradictions(keys):
        problems.append(Problem(path=(*path, key) if key else path, text=text))
    problems += [Problem(path=(*path, key), text=text) for key, text in _port_contradictions(given, keys)]
    if len(problems) > before:
        return ()
    records = given.pop("vary", ({},))
    servers = []
    for record in records:
        parameters = _parameters_of(record)
        name = str(record.get(NAME_KEY) or record_text(parameters) or _plain_name(given))
        servers.append(ServerConfig(**{**given, "name": name, "parameters": parameters, **_applied(given, parameters)}))
    if unknown := [name for name in placeholders(_all_words(servers[0])) if name != "port"]:
        known = ["port", *records[0]]
        hints = ", ".join(f"{{{name}}} ({nearest(name, known)})" for name in unknown)
        at = next(key for key in ("command", "start", "stop", "log", "url") if _has(getattr(servers[0], key), unknown))
        problems.append(Problem(path=(*path, at), text=f"unknown placeholder {hints}"))
    names = [server.name for server in servers]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        problems.append(Problem(path=(*path, "vary"), text=f"the configuration {name} is there twice"))
    return tuple(servers)


def _server_contradictions(keys: set[str]) -> list[tuple[str, str]]:
    """(key, what is wrong) in order; by what is there, so that a bad value hides nothing."""
    found = []
    launches = keys & {"command", "start"}
    if len(launches) == 2:
        found.append(("start", "command and start both launch the server: keep command for a foreground process"))
    if not launches and "url" not in keys:
        found.append(("", "says no server: write command = to launch one, or url = of one that runs"))
    if "start" in keys:
        if "stop" not in keys:
            found.append(("start", "start needs stop, the command that ends the server again"))
        if "url" not in keys and "port" not in keys:
            found.append(("start", "start needs url, where the server will answer"))
    for key in sorted(keys & {"stop", "log"}) if "start" not in keys else ():
        found.append((key, f"{key} belongs to start, for a server that is no foreground process"))
    if not launches and "url" in keys:
        for key in sorted(keys & {"vary", "env", "gpus", "port", "ready_timeout_s", "stop_grace_s"}):
            found.append((key, f"{key} needs command or start: a server that runs already is measured as it is"))
    return found


def _port_contradictions(given: Mapping[str, Any], keys: set[str]) -> list[tuple[str, str]]:
    """(key, what is wrong) where nobody could say at which port a launched server answers."""
    if "command" in given and not keys & {"url", "port"} and (("vary" in given) == ("vary" in keys)):
        records = given.get("vary", ({},))
        commands = [apply_parameters(given["command"], _parameters_of(record)) for record in records]
        if any(port_of(words) is None and not placeholders(words) for words in commands):
            cure = "put {port} in it (as in --port {port}), or set port or url"
            return [("command", f"the command does not say on which port it listens: {cure}")]
    words = given.get("command", given.get("start", ()))
    if "url" in given and "{port}" not in given["url"] and "port" in placeholders(words):
        parts = urlsplit(with_scheme(given["url"]))
        if (parts.port or (443 if parts.scheme == "https" else 80)) != given.get("port"):
            free = given.get("port", "a free one")
            return [("url", f"url names another port than {{port}} in the command, {free}: write :{{port}} in the url")]
    return []


def _parameters_of(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != NAME_KEY}


def _applied(given: Mapping[str, Any], parameters: Record) -> dict[str, Any]:
    """The commands with the parameters in them; those that are no launch take placeholders only."""
    changed: dict[str, Any] = {}
    for key in ("command", "start"):
        if key in given:
            changed[key] = apply_parameters(given[key], parameters)
    for key in ("stop", "log"):
        if key in given:
            used = {name: parameters[name] for name in placeholders(given[key]) if name in parameters}
            changed[key] = apply_parameters(given[key], used)
    return changed


def _plain_name(given: Mapping[str, Any]) -> str:
    return "server" if "command" in given or "start" in given else urlsplit(with_scheme(given["url"])).netloc


def with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"


def _all_words(server: ServerConfig) -> list[str]:
    commands = (server.command, server.start, server.stop, server.log)
    return [*(word for command in commands for word in command or ()), server.url or ""]


def _has(words: Sequence[str] | str | None, names: Sequence[str]) -> bool:
    return any(name in names for name in placeholders([words] if isinstance(words, str) else words or ()))
