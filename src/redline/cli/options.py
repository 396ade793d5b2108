"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click

Command: TypeAlias = Callable[..., int]


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


SLA = click.option(
    "--sla",
    "slas",
    multiple=True,
    metavar="TEXT",
    help='What must hold, such as "chat: p99_ttft_ms<=200, p90_tpot_ms<=50"; may be given several times.',
)
LOAD_WORKERS = click.option(
    "--load-workers", metavar="N", help="Processes that send requests; auto (the default): one until it is busy."
)
SEARCH = _options(
    click.option("--by", type=click.Choice(["rate", "concurrency"]), help="What to search: requests/s, or in flight."),
    click.option("--precision", metavar="SHARE", help="Stop once capacity is known to about this: 5% (the default)."),
    click.option("--confidence", metavar="SHARE", help="Of the interval and of verdicts: 0.9 (the default)."),
    click.option("--min", "min", type=float, metavar="LOAD", help="Lowest load to try (default 0.01/s, or 1)."),
    click.option("--max", "max", type=float, metavar="LOAD", help="Highest load to try (default 100000/s, or 8192)."),
    click.option("--max-time", metavar="TIME", help="Measure at most so long per case: 90s, 20m, 4h."),
    click.option(
        "--max-requests",
        type=click.IntRange(min=1),
        metavar="N",
        help="Send about so many per case, first looks not counted.",
    ),
    click.option(
        "--max-trials",
        type=click.IntRange(min=1),
        metavar="N",
        help="Measure so often per case and SLA (default 25), first looks not counted.",
    ),
    click.option("--sustain", metavar="TIME", help="Hold the capacity so long at the end; buys an exact verdict."),
    click.option(
        "--loads", metavar="A,B,C|auto", help="Measure these loads, or a list that is found, and search none."
    ),
    LOAD_WORKERS,
    click.option("--seed", type=int, metavar="N", help="Fix the stream of random numbers (for tests)."),
)
CONNECTION = _options(
    click.option(
        "--workload",
        metavar="WHAT",
        help="A preset (default chat), a file of settings or prompts, or random:in=512,out=128.",
    ),
    click.option("--api", type=click.Choice(["chat", "completions"]), help="Which of the server's APIs to use."),
    click.option("--model", metavar="NAME", help="Default: asked from /v1/models."),
    click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Send this with every request."),
    click.option("--api-key-env", metavar="NAME", help="The environment variable that holds the API key."),
    click.option("--insecure", is_flag=True, help="Do not verify the server's certificate."),
    click.option("--request-timeout", metavar="TIME", help="Give up on a request after so long (default 600s)."),
)
YES = click.option("--yes", is_flag=True, help="Do not ask before driving a server that is not on this machine.")
OUTPUT = _options(
    click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Keep everything measured here."),
    click.option("--again", is_flag=True, help="Start anew in a new directory instead of continuing."),
    click.option("--json", "as_json", is_flag=True, help="The answer as JSON (schema redline.answer/1) on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
)
_SEARCH_KEYS = (
    *("by", "precision", "confidence", "min", "max", "max_time", "max_requests", "max_trials", "sustain", "loads"),
    *("load_workers", "seed"),
)


def search_options(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in _SEARCH_KEYS if given.get(key) is not None}


def connection_options(given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("workload", "api", "model", "api_key_env", "request_timeout")
    options = {key: given[key] for key in names if given[key] is not None}
    if given["insecure"]:
        options["insecure"] = True
    if given["headers"]:
        options["headers"] = _headers(given["headers"])
    return options


def _headers(texts: Sequence[str]) -> dict[str, str]:
    from redline.model import UsageError

    headers = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header {name.strip()!r}: write NAME:VALUE, such as 'X-Team: search'")
        headers[name.strip()] = value.strip()
    return headers


def consent(warning: str, yes: bool) -> None:
    """A server that is not on this machine may serve somebody: say what will happen to it, and ask."""
    from redline.model import UsageError

    click.echo(warning, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody is here to say yes: run it on a terminal, or add --yes if that server may be overloaded"
        )
    if not click.confirm("Go on?", err=True):
        raise click.Abort
