"""Where a server listens: the address that its command gives it, and whether that port is free."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from redline.experiment.commands import option_value, port_of
from redline.model import RedlineError, ServerConfig, UsageError
from redline.process import table


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def base_url(text: str) -> str:
    """scheme://host[:port][/prefix] without a trailing slash and without /v1; UsageError for what is no URL."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise UsageError(f"{text!r} is no address of a server; give http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1').rstrip('/')}"


def resolve(config: ServerConfig) -> tuple[ServerConfig, str]:
    """The configuration with its port filled in where words hold {port}, and the URL that it will answer at."""
    words = [word for command in (config.command, config.start, config.stop, config.log) for word in command or ()]
    command = config.command or config.start or ()
    host, number = option_value(command, ("--host",)), config.port or port_of(command)
    if number is None and any("{port}" in word for word in [*words, config.url or ""]):
        number = free_port()
    if number is None and config.url is None:
        raise UsageError(
            f"{config.name or 'server'}: the command does not say on which port it listens; "
            "put {port} in it (as in --port {port}), or set port or url"
        )

    def fill(argv: Sequence[str] | None) -> tuple[str, ...] | None:
        return None if argv is None else tuple(word.replace("{port}", str(number)) for word in argv)

    url = base_url((config.url or f"http://{_reachable(host)}:{number}").replace("{port}", str(number)))
    filled = replace(
        config,
        command=fill(config.command),
        start=fill(config.start),
        stop=fill(config.stop),
        log=fill(config.log),
        port=number,
    )
    return filled, url


def host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def in_use(url: str) -> str | None:
    """Who listens at this address, in words; None where it is free."""
    host, port = host_and_port(url)
    if not _listens(host, port) and _can_bind(host, port):
        return None
    holder = table.listener(port) if is_local(host) else None
    if holder is None:
        return "another process"
    return f"pid {holder.pid} ({table.command_line(holder.pid)[:80]})"


def require_free(url: str) -> None:
    if holder := in_use(url):
        raise RedlineError(
            f"port {host_and_port(url)[1]} is already in use by {holder}; stop it, or choose another port "
            "({port} in the command takes a free one)"
        )


def is_local(host: str) -> bool:
    """Is it the loopback interface of this machine?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reachable(host: str | None) -> str:
    """Where to reach a server that listens on `host`: one that listens everywhere, at the loopback."""
    if host in (None, "", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in str(host) else str(host)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def _can_bind(host: str, port: int) -> bool:
    """Also a port that is bound but does not listen yet is taken; remote addresses cannot be tried."""
    if not is_local(host):
        return True
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
