"""`redline bench`: one load, or a few, measured by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redline.cli.options import CONNECTION, LOAD_WORKERS, SLA, YES, connection_options, consent

if TYPE_CHECKING:
    from redline.measuring import Found, Plan, Row

# Everything else is imported inside the command: `redline --help` must load neither numpy nor pydantic.

_FILE = click.Path(path_type=Path, dir_okay=False)
_LOADS = ("rate", "concurrency", "loads")


@click.command("bench", short_help="How does a server do at one load?", options_metavar="[OPTIONS]")
@click.argument("words", nargs=-1, metavar="URL")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="R", help="Offer so many requests/s.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="C", help="Keep so many requests in flight.")
@click.option("--loads", metavar="A,B,C", help="Measure each of these loads, one after the other.")
@click.option("--by", type=click.Choice(["rate", "concurrency"]), help="What --loads are (default rate).")
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    metavar="N",
    help="Send so many at each load, and wait for all (default 1000, more of a high load).",
)
@click.option("--duration", metavar="TIME", help="Send for so long at each load, and wait for the last: 60s, 5m.")
@SLA
@click.option("--confidence", metavar="SHARE", help="Of the verdicts on --sla: 0.9 (the default).")
@CONNECTION
@LOAD_WORKERS
@click.option("--seed", type=int, metavar="N", help="Draw the same requests as the run whose result has this seed.")
@click.option(
    "--goodput",
    multiple=True,
    metavar="NAME:MS...",
    help="Bounds on one request, for request_goodput: ttft:200 tpot:50 (or e2el); may be given several times.",
)
@click.option(
    "--metric-percentiles",
    default="50,90,95,99",
    show_default=True,
    metavar="P,P",
    help="Which percentiles of the latencies to report.",
)
@click.option("--label", metavar="TEXT", help="Stands in the result.")
@click.option("-o", "--out", type=_FILE, metavar="FILE", help="Write the result as `vllm bench serve` does.")
@click.option("--save-detailed", is_flag=True, help="In the JSON, also the lists with one entry for each request.")
@click.option("--save-requests", type=_FILE, metavar="FILE", help="Every request: FILE.csv, or FILE.jsonl.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout; of several loads one in a line.")
@YES
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def bench(words: tuple[str, ...], yes: bool, **given: Any) -> int:
    """Measure the running server at URL at one load, whole, as a benchmark client does.

    The result has the keys of `vllm bench serve --save-result`. docs/how-to/measure-one-load.md says what differs.
    """
    from redline import measuring
    from redline.console import Console
    from redline.model import UsageError
    from redline.questions import elsewhere

    plan = _plan(words, given)
    for path in (given["out"], given["save_requests"]):
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no directory {path.parent}")
    table = _table_of(given["save_requests"])
    if where := elsewhere(plan.experiment):
        loads = "; ".join(plan.in_words(load) for load in plan.experiment.goal.loads)
        consent(
            f"{where} is not on this machine. Redline will send it {loads}. Whoever else uses it will feel that.", yes
        )
    with Console(quiet=given["quiet"]) as console:
        console.begin(plan.experiment)
        found = measuring.measure(plan, console.on_event)
    results = [result for row in found.rows if (result := measuring.result_of(plan, row)) is not None]
    lines = list(_documents(results, given["save_detailed"]))
    if given["as_json"]:
        click.echo("".join(lines), nl=False)
    elif results:
        Console().benches(results)
    if given["out"] is not None:
        _write(given["out"], lines)
    if given["save_requests"] is not None:
        _write(given["save_requests"], table(plan, found.rows))
    _complain(plan, found)
    return measuring.exit_code(plan, found)


def _plan(words: Sequence[str], given: Mapping[str, Any]) -> Plan:
    from redline import measuring
    from redline.bench.vllmresult import goodput_of, is_bound, percentiles_of
    from redline.model import UsageError
    from redline.units import parse_duration

    more = [word for word in words if given["goodput"] and is_bound(word)]
    urls = [word for word in words if word not in more]
    if not urls:
        raise click.UsageError("Missing argument 'URL'.")
    if len(urls) > 1:
        raise click.UsageError(f"Got unexpected extra argument ({urls[1]})")
    named = [name for name in _LOADS if given[name] is not None]
    if len(named) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in named)}: one of them says which load; remove the others"
        )
    options = connection_options(given) | {
        key: given[key] for key in ("seed", "confidence", "by", "loads", "load_workers") if given[key] is not None
    }
    for name in named:
        if name != "loads":
            if given["by"] not in (None, name):
                raise UsageError(f"--by {given['by']} contradicts --{name}; remove it")
            options |= {"by": name, "loads": [float(given[name])]}
    saying = measuring.Saying(
        label=given["label"],
        goodput_ms=goodput_of([*given["goodput"], *more]),
        percentiles=percentiles_of(given["metric_percentiles"]),
        detailed=given["save_detailed"],
    )
    limit_s = None if given["duration"] is None else parse_duration(given["duration"])
    extent = measuring.Extent(requests=given["requests"], duration_s=limit_s)
    return measuring.prepare(urls[0], list(given["slas"]), options, extent, saying)


def _documents(results: Sequence[Mapping[str, Any]], detailed: bool) -> Iterator[str]:
    """One document, or one in each line, as vLLM appends them."""
    indent = 2 if len(results) == 1 and not detailed else None
    for result in results:
        yield json.dumps(result, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"


def _table_of(path: Path | None) -> Callable[[Plan, Sequence[Row]], Iterator[str]]:
    """What writes the requests, by the file's suffix."""
    from redline.measuring import csv_of, json_of
    from redline.model import UsageError

    if path is None or path.suffix == ".csv":
        return csv_of
    if path.suffix in (".jsonl", ".ndjson"):
        return json_of
    raise UsageError(f"--save-requests {path}: end the name with .csv or .jsonl, which says how to write it")


def _write(path: Path, lines: Iterable[str]) -> None:
    from redline.store.durable import replace_file

    data = "".join(lines).encode(errors="replace")
    if path.exists() and not path.is_file():  # /dev/stdout
        path.write_bytes(data)
    else:
        replace_file(path, data)
    click.echo(f"written to {path}", err=True)


def _complain(plan: Plan, found: Found) -> None:
    """What was not measured, and why."""
    from redline.model import Measured
    from redline.wording import load_text

    by, loads = plan.experiment.goal.by, plan.experiment.goal.loads
    for row in found.rows:
        outcome, load = row.trial.outcome, load_text(row.trial.probe.load, by)
        if not isinstance(outcome, Measured):
            cure = getattr(outcome, "cure", "")
            click.echo(f"redline: {load} was not measured: {outcome.reason}" + (f"; {cure}" if cure else ""), err=True)
        elif not found.stopped and outcome.records is not None and not len(outcome.records):
            click.echo(f"redline: {load}: no request was due in that time; raise --duration", err=True)
    left = ", ".join(f"{load:g}" for load in loads[len(found.rows) :])
    cut = ": what is shown was cut short" if any(row.cut_short for row in found.rows) else ""
    words = [f"stopped{cut}"] * found.stopped + [f"not measured: {left}"] * bool(left)
    if words:
        click.echo("; ".join(words), err=True)
