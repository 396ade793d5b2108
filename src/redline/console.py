"""Events as live progress on stderr, answers as tables on stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console as Screen
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from redline import wording
from redline.model import (
    Answer,
    Answered,
    Case,
    Event,
    Experiment,
    Measured,
    Progress,
    ServerReady,
    ServerStarting,
    ServerStopped,
    Sla,
    Trial,
    TrialEnded,
    TrialStarted,
    Warned,
)
from redline.sla import met
from redline.verdict import judge

_PLAIN_WIDTH = 200  # a pipe or a file has no width: do not wrap
_PLAIN_EVERY_S = 30.0  # without a terminal a long trial says that often how it goes
_BAR_WIDTH = 24


class Console:
    """What the user sees while it runs, and the answers at the end.

    A context manager: the live part is drawn between enter and exit.
    Without a terminal the same facts come as plain lines.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._err = _screen(stderr=True)
        self._out = _screen(stderr=False)
        self._quiet = quiet
        self._slas: dict[str, Sla] = {}
        self._confidence = 0.9
        self._several_cases = False
        self._live: Live | None = None
        self._spinner = Spinner("dots" if _unicode(self._err) else "line")
        self._doing = ""
        self._since = time.monotonic()
        self._progress: Progress | None = None
        self._trial_number = 0
        self._told_s = 0.0

    def begin(self, experiment: Experiment) -> None:
        """Learn the bounds that progress is shown against."""
        self._slas = {sla.name: sla for sla in experiment.slas}
        self._confidence = experiment.goal.confidence
        self._several_cases = len(experiment.servers) * len(experiment.workloads) > 1

    def __enter__(self) -> Console:
        if not self._quiet and self._err.is_terminal and not self._err.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=self._err,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *exc: tuple[type[BaseException], BaseException, TracebackType]) -> None:
        self._doing = ""
        self._progress = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    # ---- while it runs -----------------------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        match event:
            case ServerStarting(server=server):
                self._now(f"{server.name or 'the server'} is starting")
                if not server.attached:
                    self.say(f"{server.name or 'server'}: starting")
            case ServerReady(server=server, endpoint=endpoint, took_s=took_s):
                self._now(f"{server.name or 'the server'} is ready")
                ready = "answers" if server.attached else f"ready after {wording.duration(took_s)}"
                self.say(f"{server.name or 'server'}: {ready} at {endpoint.url}, model {endpoint.model}")
            case ServerStopped(server=server):
                self._now("")
                if not server.attached:
                    self.say(f"{server.name or 'server'}: stopped")
            case TrialStarted(case=case, probe=probe, number=trial_number):
                self._trial_number, self._told_s = trial_number, 0.0
                load = wording.load_text(probe.load, probe.by)
                self._now(f"{self._about(case)}trial {trial_number}, {load}, {wording.kind_text(probe)}")
            case Progress():
                self._progress = event
                self._tell_plainly(event)
            case TrialEnded(trial=trial):
                self._progress = None
                self._now("choosing the next load")
                self._print(self._trial_line(trial))
            case Answered(answer=answer):
                self._print(
                    Text("  ").append(_sign(self._err, True), "cyan").append(f" {self._answered(answer)}", "bold")
                )
            case Warned(text=text):
                self.warn(text)

    def say(self, text: str) -> None:
        """One line of progress."""
        self._print(Text(text))

    def warn(self, text: str) -> None:
        self._print(Text("warning: ", "yellow").append(text, "default"))

    def _print(self, text: RenderableType) -> None:
        if not self._quiet:
            self._err.print(text)

    def _now(self, doing: str) -> None:
        self._doing, self._since = doing, time.monotonic()

    def _about(self, case: Case) -> str:
        if not self._several_cases:
            return ""
        return ", ".join(part for part in (case.server.name, case.workload.name) if part) + ": "

    def _answered(self, answer: Answer) -> str:
        names = [answer.server, answer.workload] if self._several_cases else []
        about = ", ".join(part for part in (*names, answer.sla) if part)
        if answer.capacity is None:
            return f"{about}: {answer.evidence}"
        load = wording.load_text(answer.capacity, answer.variable)
        return f"{about}: {answer.evidence}, {load} ({wording.interval_text(answer)})"

    def _trial_line(self, trial: Trial) -> Text:
        sla = self._asking(trial.probe.asked_by)
        stats: Mapping[str, float] = {}
        if sla is not None and isinstance(trial.outcome, Measured):
            stats = {c.criterion.metric: c.stat for c in judge(trial, sla, self._confidence).criteria}
        met, why = wording.outcome_text(trial, sla, stats)
        style = {True: "green", False: "red", None: "yellow"}[met]
        took = wording.duration(trial.outcome.duration_s)
        line = Text("  ").append(_sign(self._err, met), style)
        line.append(f" trial {self._trial_number:<3} ")
        line.append(f"{wording.load_text(trial.probe.load, trial.probe.by):<22} ", "bold")
        line.append(f"{wording.kind_text(trial.probe)}, {took}: ", "dim")
        line.append(why, style)
        return line.append(_count(trial), "dim")

    def _asking(self, name: str) -> Sla | None:
        return self._slas.get(name) or (next(iter(self._slas.values())) if len(self._slas) == 1 else None)

    def _tell_plainly(self, progress: Progress) -> None:
        if self._live is not None or progress.now_s < self._told_s + _PLAIN_EVERY_S:
            return
        self._told_s = progress.now_s
        stats = ", ".join(self._standing(progress))
        self.say(f"    {wording.duration(progress.now_s)}: {_traffic(progress)}" + (f"; {stats}" if stats else ""))

    def _standing(self, progress: Progress) -> list[str]:
        sla = self._asking(progress.probe.asked_by)
        known = [c for c in sla.criteria if c.metric in progress.stats] if sla else []
        return [wording.criterion_text(c, progress.stats[c.metric]) for c in known]

    def _render(self) -> RenderableType:
        if not self._doing:
            return Text("")
        progress = self._progress
        elapsed_s = progress.now_s if progress else time.monotonic() - self._since
        self._spinner.update(text=Text(self._doing, "bold").append(f"  {wording.duration(elapsed_s)}", "dim"))
        if progress is None:
            return self._spinner
        parts: list[RenderableType] = [self._spinner, Text(f"  {_traffic(progress)}", "dim")]
        sla = self._asking(progress.probe.asked_by)
        if sla is not None:
            parts.append(_meters(sla, progress.stats, self._err.width))
        return Group(*parts)

    # ---- the answers -------------------------------------------------------------------------------------------------

    def answers(self, answers: Sequence[Answer], *, columns: Mapping[str, Sequence[str]] | None = None) -> None:
        """The table on stdout, what to know about it, and a sentence to repeat; `columns` are set beside it."""
        columns = columns or {}
        self._out.print()
        table = _table(answers, columns)
        unlimited = self._out.options.update(width=10_000)
        if self._out.measure(table, options=unlimited).maximum <= self._out.width:
            self._out.print(table)
        else:
            for index, answer in enumerate(answers):
                self._out.print(_block(answer, {name: texts[index] for name, texts in columns.items()}))
        several = len(answers) > 1
        for answer in answers:
            if not several or answer.evidence not in ("edge", "floor"):
                self._out.print(Text(wording.sentence(answer, several=several)))
        best = wording.best_text(answers)
        if best:
            self._out.print(Text(best))
        for answer in answers:
            self._notes(answer, several)

    def _notes(self, answer: Answer, several: bool) -> None:
        about = f"{wording.subject_text(answer, several)}: " if several else ""
        if answer.stop_reason and answer.evidence != "undecided":
            self._out.print(Text(f"{about}stopped since {answer.stop_reason}", "dim"))
        for warning in answer.warnings:
            self._out.print(Text("warning: ", "yellow").append(f"{about}{warning}", "default"))
        if answer.error and answer.evidence in ("crashed", "not_started"):
            self._out.print(Text(f"{about}{answer.error.strip()}", "red"))


def _screen(*, stderr: bool) -> Screen:
    stream = sys.stderr if stderr else sys.stdout
    plain = not stream.isatty() and "COLUMNS" not in os.environ
    return Screen(
        file=stream, width=_PLAIN_WIDTH if plain else None, markup=False, highlight=False, emoji=False, soft_wrap=False
    )


def _unicode(screen: Screen) -> bool:
    return not screen.options.ascii_only


def _sign(screen: Screen, met: bool | None) -> str:
    signs = {True: "✓", False: "✗", None: "!"} if _unicode(screen) else {True: "+", False: "x", None: "!"}
    return signs[met]


def _traffic(progress: Progress) -> str:
    return f"{progress.sent:,} sent, {progress.finished:,} finished, {progress.failed:,} failed"


def _count(trial: Trial) -> str:
    if not isinstance(trial.outcome, Measured) or trial.outcome.records is None:
        return ""
    return f"  ({len(trial.outcome.records):,} requests)"


def _meters(sla: Sla, stats: Mapping[str, float], width: int) -> Table:
    """Each criterion's value against its bound, as a bar where there is room."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    bars = width >= 80
    for criterion in sla.criteria:
        stat = stats.get(criterion.metric)
        known = stat is not None and stat == stat
        within = known and met(criterion, stat or 0.0)
        value = wording.quantity(criterion.metric, stat or 0.0) if known else "-"
        bound = f"{criterion.op} {wording.quantity(criterion.metric, criterion.bound)}"
        style = "dim" if not known else "green" if within else "red"
        cells: list[RenderableType] = [Text(f"  {criterion.metric}"), Text(value, style), Text(bound, "dim")]
        if bars:
            share = (stat or 0.0) / criterion.bound if known and criterion.bound else 0.0
            cells.append(
                ProgressBar(
                    total=1.0, completed=min(share, 1.0), width=_BAR_WIDTH, complete_style=style, finished_style=style
                )
            )
        grid.add_row(*cells)
    return grid


def _cells(answer: Answer) -> dict[str, str]:
    return {
        "configuration": answer.server or "-",
        "workload": answer.workload or "-",
        "SLA": answer.sla,
        "capacity": "-" if answer.capacity is None else wording.load_text(answer.capacity, answer.variable),
        f"{wording.number(100 * answer.confidence)} % interval": wording.interval_text(answer),
        "evidence": answer.evidence,
        "limited by": answer.limiting or "-",
        "trials": f"{answer.trials}",
        "requests": f"{answer.requests:,}",
        "time": wording.duration(answer.benchmark_s),
    }


_NUMBERS = {"capacity", "trials", "requests", "time"}


def _table(answers: Sequence[Answer], columns: Mapping[str, Sequence[str]]) -> Table:
    """One row per answer; workload and SLA only where they differ."""
    rows = [
        _cells(answer) | {name: texts[index] for name, texts in columns.items()} for index, answer in enumerate(answers)
    ]
    names = [name for name in (rows[0] if rows else {}) if name not in ("workload", "SLA")]
    names[1:1] = [name for name in ("workload", "SLA") if len({row[name] for row in rows}) > 1]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in names:
        table.add_column(
            name,
            no_wrap=True,
            header_style="dim",
            justify="right" if name in _NUMBERS else "left",
            style="bold" if name == "capacity" else "",
        )
    for row in rows:
        table.add_row(*(Text(row[name]) for name in names))
    return table


def _block(answer: Answer, columns: Mapping[str, str]) -> Group:
    """An answer as lines, for narrow terminals."""
    lines = [
        Text(f"{name:<14} ", "dim").append(text, "default") for name, text in {**_cells(answer), **columns}.items()
    ]
    return Group(*lines, Text(""))
