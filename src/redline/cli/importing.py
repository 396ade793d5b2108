"""`redline import`: results of other tools as an experiment."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from redline.cli.options import SLA


@click.command("import", short_help="Results of other tools, as an experiment.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="The new directory.")
@SLA
@click.option("--reader", metavar="NAME", help="What reads the files (default: seen from each).")
def import_command(files: tuple[Path, ...], out: Path, slas: tuple[str, ...], reader: str | None) -> int:
    """Make an experiment of what vllm, sglang, guidellm, aiperf or inference-perf left in each FILE.

    `redline show` and `redline report` answer from it, for any SLA. All files are of one server and one client, each
    run at a load of its own.
    """
    from redline.importing import WITHOUT_SLA, import_results
    from redline.wording import load_text

    for run in import_results(files, out, slas, reader):
        load, requests = load_text(run.load, run.by), f"{run.reading.requests:,} requests"
        lost = f"; not used: {run.not_offered[0]}" if run.not_offered else ""
        click.echo(f"{load}: {requests}, known by {run.known_by} ({run.source}){lost}")
    place = shlex.quote(str(out))
    if not slas:
        asked = '--sla "p99_ttft_ms<=200"'
        click.echo(
            f"no SLA was given, so that {WITHOUT_SLA} is kept; ask for yours: redline show {place} {asked}", err=True
        )
    click.echo(f"kept in {place}: redline show {place}, redline report {place}", err=True)
    return 0
