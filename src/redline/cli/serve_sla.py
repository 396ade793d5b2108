"""`redline serve-sla`: the flags of vLLM's sweep to what it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

# Everything else is imported inside the command: `redline --help` must load neither numpy nor pydantic.

_FILE = click.Path(path_type=Path)
_OTHER_PLACE = {  # advice of `run`: ours. Not its flags alone, which what a server said may hold too
    "elsewhere with --out DIR, or beside it with --again": "elsewhere with -e NAME",
    r"(choose (another place|a new directory|a directory on a local disk)) with --out": r"\1 with -e",
}
_SEARCH = ("precision", "min", "max", "max_time", "max_trials")


def _hyphenated(name: str) -> str:
    """vLLM's parser takes --serve_cmd too."""
    return name.replace("_", "-")


@click.command(
    "serve-sla",
    short_help="Drop-in for `vllm bench sweep serve_sla`.",
    context_settings={"token_normalize_func": _hyphenated},
)
@click.option("--serve-cmd", required=True, metavar="COMMAND", help="Starts the server.")
@click.option("--bench-cmd", required=True, metavar="COMMAND", help="Runs the benchmark once.")
@click.option("--after-bench-cmd", metavar="COMMAND", help="Runs after each benchmark (default: reset vLLM's caches).")
@click.option("--show-stdout", is_flag=True, help="Show what servers and benchmarks print.")
@click.option(
    "--server-ready-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300,
    show_default=True,
    metavar="S",
    help="Give up on a server that is not ready by then.",
)
@click.option("--serve-params", type=_FILE, metavar="FILE", help="JSON: records of options for the server.")
@click.option("--bench-params", type=_FILE, metavar="FILE", help="JSON: records of options for the benchmark.")
@click.option("--link-vars", metavar="A=B,...", help="Run only pairs where serve key A equals bench key B.")
@click.option("--sla-params", required=True, type=_FILE, metavar="FILE", help='JSON: [{"p99_ttft_ms": "<=200"}, ...].')
@click.option(
    "--sla-variable",
    type=click.Choice(["request_rate", "max_concurrency"]),
    default="request_rate",
    show_default=True,
    help="What is searched.",
)
@click.option("-o", "--output-dir", type=_FILE, default=Path("results"), show_default=True, metavar="DIR")
@click.option("-e", "--experiment-name", metavar="NAME", help="Its folder in there (default: the time).")
@click.option(
    "--num-runs",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Runs at each load that the answer may rest on.",
)
@click.option("--dry-run", is_flag=True, help="Say what would run, and start nothing.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Use what an earlier sweep left, vLLM's too; without NAME that of -e.",
)
@click.option(
    "--search",
    type=click.Choice(["redline", "legacy"]),
    default="redline",
    show_default=True,
    help="legacy: the search that vLLM's made, to reproduce an old figure.",
)
@click.option(
    "--bench-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3600,
    show_default=True,
    metavar="S",
    help="Give up on a benchmark so long after its last request was due.",
)
@click.option("--precision", metavar="SHARE", help="Stop once capacity is known to about this: 5% (the default).")
@click.option(
    "--min", "min", type=float, metavar="LOAD", help="Lowest load to try (default prompts/3600 per second, or 1)."
)
@click.option("--max", "max", type=float, metavar="LOAD", help="Highest load to try (default 100000/s, or prompts/2).")
@click.option("--max-time", metavar="TIME", help="Measure at most so long per pair: 20m, 4h.")
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="Measure at most so often (default 25).")
@click.pass_obj
def serve_sla(state: Any, /, **given: Any) -> int:
    """How much load does each pair of a server and a benchmark carry within each SLA?

    Takes the flags and files of vLLM's `bench sweep serve_sla`, and writes its tree; the answers are Redline's.
    docs/how-to/migrate-from-serve-sla.md says what differs.
    """
    from datetime import datetime

    from redline.servesla.asked import Flags, asked_by

    options = {name: value for name in _SEARCH if (value := given.pop(name)) is not None}
    asked = asked_by(Flags(**given, options=options), datetime.now())
    if given["dry_run"]:
        from redline.servesla.rehearsal import rehearse

        for line in rehearse(asked):
            click.echo(line)
        return 0
    if not (asked.pairs and asked.targets):
        for note in (*asked.notes, "nothing runs: there is no pair of records, or no target"):
            click.echo(f"note: {note}", err=True)
        return 0
    from redline.model import RedlineError

    try:
        return _run(state, asked)
    except RedlineError as error:
        raise type(error)(in_our_flags(str(error))) from error


def in_our_flags(text: str) -> str:
    """An error with what it advises in the words of this command; what it quotes stays as it is."""
    import re

    for theirs, ours in _OTHER_PLACE.items():
        text = re.sub(theirs, ours, text)
    return text


def _run(state: Any, asked: Any) -> int:
    import shlex
    from contextlib import nullcontext

    from redline.servesla.echo import echoing
    from redline.servesla.original import reproduce
    from redline.servesla.sweep import Voice, sweep

    state.directory = asked.own
    if asked.flags.experiment_name is None and asked.flags.resume is None:
        state.argv = [*state.argv, "-e", asked.folder.name]  # the same command again is to continue
    voice = Voice(say=click.echo, remark=lambda text: click.echo(f"redline: {text}", err=True))
    with echoing(asked.own / "logs", click.echo) if asked.flags.show_stdout else nullcontext():
        if asked.flags.search == "legacy":
            return reproduce(asked, voice)
        result = sweep(asked, voice)
    place = shlex.quote(str(result.directory))
    click.echo(f"kept in {place}: redline show {place}, redline report {place}", err=True)
    return result.exit_code
