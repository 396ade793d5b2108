"""Results that other tools left, as an experiment: read all of them, then write all of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from redline.bench import Reading, ResultError, read_runs, reader_of
from redline.bench.aiperf import files_of
from redline.bench.command import measured, not_offered, warm_up_s
from redline.bench.detection import client_of
from redline.experiment.file import experiment_to_toml
from redline.experiment.plan import identity, jobs
from redline.experiment.settings import Problem, told
from redline.model import (
    LOAD_LIMITS,
    CommandWorkload,
    Experiment,
    Goal,
    Invalid,
    Outcome,
    Probe,
    RedlineError,
    ServerConfig,
    Trial,
    UsageError,
    Variable,
)
from redline.sla import parse_sla
from redline.store import open_store
from redline.stored import OPTIONS

WITHOUT_SLA = "error_rate<=1%"
_ADDRESS = "http://imported"  # nobody answers there: it names the server in tables


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of a client, and the load that it offered."""

    source: str  # the file, and which of its runs
    reader: str
    reading: Reading
    by: Variable
    load: float

    @property
    def not_offered(self) -> tuple[str, str] | None:
        return not_offered(Probe(by=self.by, load=self.load, kind="list"), self.reading)

    @property
    def known_by(self) -> str:
        """Which of its numbers rest on single requests, in words."""
        if self.reading.records is None:
            return "totals only"
        return "each request, the rest by totals" if self.reading.aggregates else "each request"

    @property
    def warnings(self) -> tuple[str, ...]:
        totals = ("some loads were imported from totals, which say nothing on how sure they are",)
        silent = ("some of the files do not say how many requests failed: their error rate is not known",)
        if not self.reading.aggregates:
            return ()
        return totals + silent if self.reading.failed is None else totals


def import_results(
    files: Sequence[Path], out: Path, slas: Sequence[str] = (), reader: str | None = None
) -> tuple[Run, ...]:
    """Make the experiment directory `out` of these files; the runs that it holds, by load.

    Raises:
        UsageError: everything that is wrong with the files, or `out` holds something. Nothing is written then.
    """
    _refuse_taken(out)
    problems: list[Problem] = []
    runs = _runs(files, reader, problems)
    asked = []
    for text in slas or (WITHOUT_SLA,):
        try:
            asked.append(parse_sla(text))
        except UsageError as error:
            problems.append(Problem(path=(), text=str(error)))
    problems += [Problem(path=(), text=text) for text in _mixtures(runs)]
    if not problems and all(run.not_offered for run in runs):
        problems += [Problem(path=(), text=f"{run.source}: {'; '.join(run.not_offered or ())}") for run in runs]
    if problems:
        raise told(problems, "nothing was imported")
    ordered = tuple(sorted(runs, key=lambda run: run.load))
    experiment = Experiment(
        name=out.name,
        servers=(ServerConfig(name="imported", url=_ADDRESS, model=ordered[0].reading.model or None),),
        workloads=(_workload(ordered[0]),),
        slas=tuple(asked),
        goal=_goal(ordered),
    )
    _write(experiment, ordered, out)
    return ordered


def _runs(files: Sequence[Path], reader: str | None, problems: list[Problem]) -> list[Run]:
    runs, seen = [], dict[Path, Path]()
    for file in files:
        try:
            if reader is not None:
                reader_of(reader)
            name = reader or client_of(file)
            first = seen.setdefault(_identity(file, name), file)
            if first is not file:
                raise ResultError(f"{file}: is of the same run as {first}; name one of them")
            readings = read_runs(name, file)
            for number, reading in enumerate(readings, 1):
                source = f"{file}, run {number}" if len(readings) > 1 else str(file)
                by, load = _load_of(reading, source)
                runs.append(Run(source=source, reader=name, reading=reading, by=by, load=load))
        except RedlineError as error:
            problems.append(Problem(path=(), text=str(error)))
    return runs


def _identity(file: Path, reader: str) -> Path:
    """The same for all names of one run."""
    if reader == "aiperf" and (file.is_dir() or file.is_file()):
        file = next(path for path in files_of(file) if path is not None)
    return file.resolve()


def _load_of(reading: Reading, source: str) -> tuple[Variable, float]:
    rate, users = reading.asked_rate, reading.asked_concurrency
    if rate is not None and 0 < rate < float("inf"):
        return "rate", rate
    if users:
        return "concurrency", float(users)
    why = "sent all requests at once" if rate else "does not say at which load it ran"
    raise ResultError(f"{source}: {why}; a run needs a request rate, or a number of requests in flight")


def _mixtures(runs: Sequence[Run]) -> list[str]:
    """What one experiment cannot hold together, in words."""
    found = []
    for what, values in (
        ("clients", [run.reader for run in runs]),
        ("models", [run.reading.model for run in runs if run.reading.model]),
        ("kinds of load", [run.by for run in runs]),
    ):
        if len(different := dict.fromkeys(values)) > 1:
            found.append(
                f"the files are of {len(different)} {what} ({', '.join(different)}): import those of each by themselves"
            )
    return found


def _goal(runs: Sequence[Run]) -> Goal:
    low, high = LOAD_LIMITS[runs[0].by]
    loads = dict.fromkeys(run.load for run in runs if run.not_offered is None)
    return Goal(by=runs[0].by, min_load=low, max_load=high, loads=tuple(loads))


def _workload(run: Run) -> CommandWorkload:
    """What stands for the client's command, which no result file tells."""
    return CommandWorkload(
        name=run.reader.rpartition(":")[2], command=("imported", f"{{{run.by}}}", "{result}"), reader=run.reader
    )


def _write(experiment: Experiment, runs: Sequence[Run], out: Path) -> None:
    """The whole directory, or nothing: it is made beside its place and then put there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise RedlineError(
            f"cannot write in {out.parent}: {error.strerror}; choose another place with --out"
        ) from error
    ((case,),) = [job.cases for job in jobs(experiment)]
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    try:
        with open_store(beside, experiment_to_toml(experiment), identity(experiment), files={OPTIONS: "{}\n"}) as store:
            for run in runs:
                store.append(
                    Trial(
                        id=store.next_id(),
                        case=case.key,
                        probe=Probe(by=run.by, load=run.load, kind="list"),
                        seed=0,
                        started=now,
                        outcome=_outcome(run),
                        facts={"imported from": run.source, "reader": run.reader},
                        warnings=run.warnings,
                    )
                )
        beside.chmod(0o755)
        os.replace(beside, out)  # noqa: PTH105 - an empty folder may be there, which Path.rename promises nothing on
    except OSError as error:
        raise RedlineError(f"cannot write {out}: {error.strerror}; choose another place with --out") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _outcome(run: Run) -> Outcome:
    if refusal := run.not_offered:
        return Invalid(reason=refusal[0], cure=refusal[1], duration_s=run.reading.duration_s)
    probe = Probe(by=run.by, load=run.load, kind="list")
    return measured(probe, run.reading, warm_up_s(run.reading))


def _refuse_taken(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} is there already; import all files together into a new directory")
