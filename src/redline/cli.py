"""argv to api calls, answers to stdout and exit codes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import click

if TYPE_CHECKING:
    from redline.api import Prepared, Result
    from redline.console import Console
    from redline.model import Answer

# Everything else is imported inside the commands: `redline --help` must load neither numpy nor pydantic.

Command: TypeAlias = Callable[..., int]
_INTERRUPTED = 130
_INDENT = "  "


class _State:
    """What the end of a command needs to know about its middle."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.directory: Path | None = None  # set once there is something in it to continue


# ---- options that several commands share -----------------------------------------------------------------------------


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_SLA = click.option(
    "--sla",
    "slas",
    multiple=True,
    metavar="TEXT",
    help='What must hold, such as "chat: p99_ttft_ms<=200, p90_tpot_ms<=50"; may be given several times.',
)
_SEARCH = _options(
    click.option("--by", type=click.Choice(["rate", "concurrency"]), help="What to search: requests/s, or in flight."),
    click.option("--precision", metavar="SHARE", help="Stop once capacity is known to about this: 5% (the default)."),
    click.option("--confidence", metavar="SHARE", help="Of the interval and of verdicts: 0.9 (the default)."),
    click.option("--min", "min", type=float, metavar="LOAD", help="Lowest load to try (default 0.01/s, or 1)."),
    click.option("--max", "max", type=float, metavar="LOAD", help="Highest load to try (default 100000/s, or 8192)."),
    click.option("--max-time", metavar="TIME", help="Measure at most so long per case: 90s, 20m, 4h."),
    click.option("--max-requests", type=click.IntRange(min=1), metavar="N", help="Send about so many per case."),
    click.option(
        "--max-trials", type=click.IntRange(min=1), metavar="N", help="Measure so often per case (default 25)."
    ),
    click.option("--sustain", metavar="TIME", help="Hold the capacity so long at the end; buys an exact verdict."),
    click.option("--loads", metavar="A,B,C", help="Measure these loads instead of searching."),
    click.option("--seed", type=int, metavar="N", help="Fix the stream of random numbers (for tests)."),
)
_OUTPUT = _options(
    click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Keep everything measured here."),
    click.option("--again", is_flag=True, help="Start anew in a new directory instead of continuing."),
    click.option("--json", "as_json", is_flag=True, help="The answer as JSON (schema redline.answer/1) on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
)
_SEARCH_KEYS = (
    *("by", "precision", "confidence", "min", "max", "max_time", "max_requests", "max_trials", "sustain", "loads"),
    "seed",
)


def _search_options(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in _SEARCH_KEYS if given.get(key) is not None}


# ---- commands --------------------------------------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="redline", message="%(prog)s %(version)s")
def cli() -> None:
    """How much load does this LLM server carry before it breaks its promise?

    \b
    redline demo                                                  see it work, on a simulated server
    redline find http://localhost:8000 --sla "p99_ttft_ms<=200"   ask a server that runs
    redline run experiment.toml                                   launch, search and compare configurations
    """


@cli.command()
@click.argument("url")
@_SLA
@_SEARCH
@click.option("--workload", metavar="WHAT", help="A preset (default chat), a file, or random:in=512,out=128.")
@click.option("--api", type=click.Choice(["chat", "completions"]), help="Which of the server's APIs to use.")
@click.option("--model", metavar="NAME", help="Default: asked from /v1/models.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Send this with every request.")
@click.option("--api-key-env", metavar="NAME", help="The environment variable that holds the API key.")
@click.option("--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.option("--request-timeout", metavar="TIME", help="Give up on a request after so long (default 600s).")
@click.option("--load-workers", type=click.IntRange(min=1), metavar="N", help="Processes that send requests.")
@click.option("--reuse", is_flag=True, help="Also use what was measured before the server was started anew.")
@click.option("--yes", is_flag=True, help="Do not ask before driving a server that is not on this machine.")
@_OUTPUT
@click.pass_obj
def find(state: _State, url: str, slas: tuple[str, ...], yes: bool, **given: Any) -> int:
    """How much load does the running server at URL carry within its SLA?"""
    from redline import api

    options = _search_options(given)
    names = ("workload", "api", "model", "api_key_env", "request_timeout", "load_workers")
    options |= {key: given[key] for key in names if given[key] is not None}
    options |= {key: True for key in ("insecure", "reuse") if given[key]}
    if given["headers"]:
        options["headers"] = _headers(given["headers"])
    prepared = api.prepare_find(url, list(slas), out=given["out"], again=given["again"], **options)
    _consent(prepared, yes)
    return _carry_out(state, prepared, given)


@cli.command()
@click.argument("experiment", type=click.Path(path_type=Path))
@_SEARCH
@_OUTPUT
@click.pass_obj
def run(state: _State, experiment: Path, **given: Any) -> int:
    """Launch each configuration in EXPERIMENT.toml, search what it carries, and compare."""
    from redline import api

    prepared = api.prepare_run(experiment, out=given["out"], again=given["again"], **_search_options(given))
    return _carry_out(state, prepared, given)


@cli.command()
@click.argument("experiment", type=click.Path(path_type=Path))
@_SEARCH
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where the results are, or would be.")
def plan(experiment: Path, out: Path | None, **given: Any) -> int:
    """What would run, and about how long it would take; nothing is started."""
    from redline import api

    prepared = api.prepare_run(experiment, out=out, **_search_options(given))
    click.echo(api.plan_text(prepared))
    return 0


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@_SLA
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON (schema redline.answer/1) on stdout.")
@click.option("--requests", "trial", metavar="TRIAL", help="Every request of this trial, as CSV.")
def show(directory: Path, slas: tuple[str, ...], as_json: bool, trial: str | None) -> int:
    """The answers again, from what DIRECTORY holds; any new SLA too."""
    from redline import api
    from redline.model import UsageError

    if trial is not None and (as_json or slas):
        raise UsageError("--requests prints one trial's requests as CSV: leave out --json and --sla")
    opened = api.open_experiment(directory)
    if trial is not None:
        for line in opened.requests_csv(trial):
            click.echo(line, nl=False)
        return 0
    answers = opened.answers(list(slas))
    return _deliver(api.Result(directory=opened.directory, answers=answers), as_json, opened.missing(list(slas)))


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: report.html in it.")
def report(directory: Path, output: Path | None) -> int:
    """The answers and what they rest on, as one self-contained HTML page."""
    from redline import api
    from redline.report import write_report

    opened = api.open_experiment(directory)
    path = output or opened.directory / "report.html"
    write_report(opened, path)
    click.echo(str(path))
    return 0


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: redline-demo.")
@click.option("--again", is_flag=True, help="Start anew in a new directory instead of continuing.")
@click.option("--json", "as_json", is_flag=True, help="The answers as JSON, with the true capacity in each.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_obj
def demo(state: _State, out: Path | None, again: bool, as_json: bool, quiet: bool) -> int:
    """The main job on a simulated server whose true capacity is known."""
    from redline import demo as main_job
    from redline.console import Console

    state.directory = out
    with Console(quiet=quiet) as console:
        return main_job.run(out, as_json, again, console)


@cli.command(
    "sim-server",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[OPTIONS] [--FIELD VALUE]...",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option("--profile", default="demo", show_default=True, metavar="NAME|FILE", help="What kind of server it is.")
@click.pass_context
def sim_server(context: click.Context, host: str, port: int, profile: str) -> int:
    """A simulated LLM server over HTTP, with the OpenAI API and a known capacity.

    Any field of the profile can be changed: --max-num-seqs 16, --faults.reject-every 2.
    """
    from redline.simulate.profiles import load_profile

    chosen = load_profile(profile, _pairs(context.args))
    from redline.simulate.server import serve

    serve(chosen, host, port)
    return 0


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """`--field value` and `--field=value` as a mapping."""
    left, pairs = list(words), {}
    while left:
        word = left.pop(0)
        if not word.startswith("--") or word == "--":
            raise click.UsageError(f"Got unexpected extra argument ({word})")
        name, equals, value = word[2:].partition("=")
        if not equals and not left:
            raise click.UsageError(f"Option '{word}' requires an argument.")
        pairs[name] = value if equals else left.pop(0)
    return pairs


def _headers(texts: Sequence[str]) -> dict[str, str]:
    from redline.model import UsageError

    headers = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header {name.strip()!r}: write NAME:VALUE, such as 'X-Team: search'")
        headers[name.strip()] = value.strip()
    return headers


# ---- what find and run share -----------------------------------------------------------------------------------------


def _consent(prepared: Prepared, yes: bool) -> None:
    """A server that is not on this machine may serve somebody: say what will happen to it, and ask."""
    from redline.model import UsageError

    if not prepared.remote:
        return
    click.echo(prepared.warning_to_owner, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody is there to say yes: run it on a terminal, or add --yes if this server may be overloaded"
        )
    if not click.confirm("Go on?", err=True):
        raise click.Abort


def _carry_out(state: _State, prepared: Prepared, given: Mapping[str, Any]) -> int:
    from redline import api
    from redline.console import Console

    console = Console(quiet=given["quiet"])
    console.begin(prepared.experiment)
    state.directory = prepared.directory
    if given["again"]:
        state.argv = [word for word in state.argv if word != "--again"] + ["--out", str(prepared.directory)]
    with console:
        result = api.carry_out(prepared, emit=console.on_event)
    return _deliver(result, given["as_json"], "", console=console)


def _deliver(result: Result, as_json: bool, missing: str, console: Console | None = None) -> int:
    """The answers on stdout, in the form that was asked for; what is missing on stderr."""
    if as_json:
        print_json(result.directory, result.answers)
    else:
        from redline.console import Console

        console = console or Console()
        console.answers(result.answers)
    if missing:
        click.echo(missing, err=True)
    return result.exit_code


def print_json(directory: Path, answers: Sequence[Answer]) -> None:
    import json

    from redline.codec import answers_document

    click.echo(json.dumps(answers_document(directory, answers), indent=2, allow_nan=False, ensure_ascii=False))


# ---- the way out -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The whole program: every error becomes one paragraph on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="replace"
            )  # a name in another alphabet must not end a search on an ASCII terminal
    state = _State(sys.argv[1:] if argv is None else argv)
    code = _exit_code(state)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush complains
    sys.exit(code)


def _exit_code(state: _State) -> int:
    try:
        return int(cli.main(args=state.argv, prog_name="redline", obj=state, standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "redline"
        return _complain(f"{error.format_message()} See: {where} --help", 2)
    except click.ClickException as error:
        return _complain(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        return _stopped(state)
    except BrokenPipeError:
        return 1
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes a message
        return _failed(state, error)


def _failed(state: _State, error: Exception) -> int:
    from redline.model import RedlineError, UsageError

    if isinstance(error, RedlineError):
        return _complain(str(error), 2 if isinstance(error, UsageError) else 1)
    kept = "; what was measured before is kept" if state.directory is not None else ""
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return _complain(f"{error.strerror or error}{where}{kept}", 1)
    return _complain(f"this is a bug in Redline: {type(error).__name__}: {error}; {_traceback(error, state)}{kept}", 1)


def _complain(message: str, code: int) -> int:
    click.echo(f"redline: {message.strip()}", err=True)
    return code


def _stopped(state: _State) -> int:
    directory = state.directory
    if directory is None or not directory.is_dir():
        click.echo("\nstopped; nothing was measured", err=True)
        return _INTERRUPTED
    command = shlex.join(["redline", *state.argv])
    click.echo(f"\nstopped; the finished trials are kept in {directory}. To continue:\n{_INDENT}{command}", err=True)
    return _INTERRUPTED


def _traceback(error: Exception, state: _State) -> str:
    """Write it to a log beside the measurements, or where temporary files go; where that is, in words."""
    import tempfile
    import traceback

    directory = state.directory
    folder = directory / "logs" if directory is not None and directory.is_dir() else Path(tempfile.gettempdir())
    try:
        folder.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="redline-error-", suffix=".log", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)))
    except OSError as unwritable:
        return f"its traceback could not be written ({unwritable.strerror})"
    return f"please report it with the traceback in {name}"
