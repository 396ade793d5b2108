"""The commands: argv to api calls, answers to stdout."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redline.cli.options import CONNECTION, OUTPUT, SEARCH, SLA, YES, connection_options, consent, search_options

if TYPE_CHECKING:
    from redline.api import Prepared, Result
    from redline.model import Sla
    from redline.report import ReportData
    from redline.stored import Opened

# Everything else is imported inside the commands: `redline --help` must load neither numpy nor pydantic.


class State:
    """What the end of a command needs to know about its middle."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.directory: Path | None = None  # set once there is something in it to continue

    def continue_in(self, directory: Path) -> None:
        """The same command again is to go on in this directory, which --again has made."""
        words, left = [], self.argv
        while left:
            word, *left = left
            if word == "--out":
                left = left[1:]
            elif word != "--again" and not word.startswith("--out="):
                words.append(word)
        self.argv = [*words, "--out", str(directory)]


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


@cli.command(short_help="What does a server that runs carry?")
@click.argument("url")
@SLA
@SEARCH
@CONNECTION
@click.option("--reuse", is_flag=True, help="Also use what was measured before the server was started anew.")
@YES
@OUTPUT
@click.pass_obj
def find(state: State, /, url: str, slas: tuple[str, ...], yes: bool, **given: Any) -> int:
    """How much load does the running server at URL carry within its SLA?"""
    from redline import api

    options = search_options(given) | connection_options(given)
    place = api.Place(out=given["out"], again=given["again"], reuse=given["reuse"])
    prepared = api.prepare_find(url, list(slas), place, **options)
    if prepared.elsewhere is not None:
        consent(api.owner_warning(prepared), yes)
    return _carry_out(state, prepared, given)


@cli.command(short_help="Launch, search and compare configurations.")
@click.argument("experiment", type=click.Path(path_type=Path))
@SEARCH
@OUTPUT
@click.pass_obj
def run(state: State, /, experiment: Path, **given: Any) -> int:
    """Launch each configuration in EXPERIMENT.toml, search what it carries, and compare."""
    from redline import api

    place = api.Place(out=given["out"], again=given["again"])
    prepared = api.prepare_run(experiment, place, **search_options(given))
    return _carry_out(state, prepared, given)


@cli.command(short_help="What would run, and about how long.")
@click.argument("experiment", type=click.Path(path_type=Path))
@SEARCH
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where the results are, or would be.")
def plan(experiment: Path, out: Path | None, **given: Any) -> int:
    """What would run, and about how long it would take; nothing is started."""
    from redline import api
    from redline.console import Console

    prepared = api.prepare_run(experiment, api.Place(out=out), **search_options(given))
    Console().plan(prepared.experiment, api.plan(prepared))
    return 0


@cli.command(short_help="Answers again, for any SLA, from what is stored.")
@click.argument("directories", nargs=-1, required=True, metavar="DIRECTORY...", type=click.Path(path_type=Path))
@SLA
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON (schema redline.answer/1) on stdout.")
@click.option("--requests", "trial", metavar="TRIAL", help="Every request of this trial, as CSV.")
def show(directories: tuple[Path, ...], slas: tuple[str, ...], as_json: bool, trial: str | None) -> int:
    """The answers again, from what each DIRECTORY holds; any new SLA too."""
    from redline import api
    from redline.model import UsageError

    if trial is not None and (as_json or slas):
        raise UsageError("--requests prints one trial's requests as CSV: leave out --json and --sla")
    if directories[1:] and (as_json or trial is not None):
        what = "--json" if as_json else "--requests"
        raise UsageError(f"{what} is of one experiment: name one of the {len(directories)} directories")
    experiments = [api.open_experiment(directory) for directory in directories]
    if trial is not None:
        for line in experiments[0].requests_csv(trial):
            click.echo(line, nl=False)
        return 0
    codes = []
    for opened in experiments:
        if directories[1:]:
            click.echo(f"{opened.directory}:")
        for note in opened.notes:
            click.echo(f"note: {note}", err=True)
        result = api.Result(directory=opened.directory, answers=opened.answers(slas), listed=opened.listed)
        codes.append(_deliver(result, as_json, opened, opened.slas(slas)))
    return api.worst(codes)


@cli.command(short_help="Answers and what they rest on, as a page.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: report.html in it.")
def report(directory: Path, output: Path | None) -> int:
    """The answers and what they rest on, as one self-contained HTML page."""
    from redline import api
    from redline.report import write_report

    opened = api.open_experiment(directory)
    path = output or opened.directory / "report.html"
    write_report(_report_data(opened), path)
    click.echo(str(path))
    return 0


def _report_data(opened: Opened) -> ReportData:
    from redline.report import ReportCase, ReportData

    slas = opened.slas()
    return ReportData(
        title=opened.experiment.name,
        directory=str(opened.directory),
        cases=tuple(
            ReportCase(
                case=case,
                slas=slas,
                trials=opened.trials.get(case.key, ()),
                answers=tuple(opened.answer(case, sla) for sla in slas),
            )
            for case in opened.cases
        ),
        confidence=opened.experiment.goal.confidence,
        notes=opened.notes,
        environment=opened.about,
    )


@cli.command(short_help="The main job on a simulated server.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: redline-demo.")
@click.option("--again", is_flag=True, help="Start anew in a new directory instead of continuing.")
@click.option("--json", "as_json", is_flag=True, help="The answers as JSON, with the true capacity in each.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_obj
def demo(state: State, /, out: Path | None, again: bool, as_json: bool, quiet: bool) -> int:
    """The main job on a simulated server whose true capacity is known."""
    from redline import demo as main_job
    from redline.console import Console
    from redline.store import next_directory

    out = out or main_job.DIRECTORY
    if again:
        out = next_directory(out)
        state.continue_in(out)
    state.directory = out
    return main_job.run(out, as_json, again=False, console=Console(quiet=quiet))


@cli.command(
    "sim-server",
    short_help="The simulated LLM server, over HTTP.",
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
    docs/reference/command-line.md lists the profiles and their fields.
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


# ---- what find and run share -----------------------------------------------------------------------------------------


def _carry_out(state: State, prepared: Prepared, given: Mapping[str, Any]) -> int:
    from redline import api
    from redline.console import Console

    state.directory = prepared.directory
    if given["again"]:
        state.continue_in(prepared.directory)
    with Console(quiet=given["quiet"]) as console:
        console.begin(prepared.experiment)
        result = api.carry_out(prepared, console.on_event)
    opened = api.open_experiment(prepared.directory) if prepared.experiment.goal.lists else None
    code = _deliver(result, given["as_json"], opened, prepared.experiment.slas)
    if not given["quiet"]:
        place = shlex.quote(str(result.directory))
        click.echo(f"kept in {place}: redline show {place}, redline report {place}", err=True)
    return code


def _deliver(result: Result, as_json: bool, opened: Opened | None, slas: Sequence[Sla]) -> int:
    """The answers on stdout; with `opened` also what each trial proves, and on stderr what is missing."""
    if as_json:
        import json

        from redline.codec import answers_document

        listed = opened.verdicts(slas) if opened and opened.experiment.goal.lists else None
        document = answers_document(result.directory, result.answers, listed)
        click.echo(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        from redline.console import Console

        console = Console()
        if result.listed:
            console.listed(result.answers)
        else:
            console.answers(result.answers)
        if opened is not None:
            console.trials(opened, slas)
    if opened is not None and (missing := opened.missing(slas)):
        click.echo(missing, err=True)
    return result.exit_code
