"""Events as live progress on stderr; what they come to goes to stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console as Screen
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from redline import wording
from redline.console import tables
from redline.console.benches import benches
from redline.console.fitting import hanging
from redline.events import (
    Answered,
    Event,
    Noted,
    Progress,
    ServerReady,
    ServerStarting,
    ServerStopped,
    TrialEnded,
    TrialStarted,
    Warned,
)
from redline.experiment.estimate import Estimate
from redline.model import Answer, Case, Experiment, Measured, Sla, Trial
from redline.sla import met
from redline.stored import Opened, values
from redline.verdict import usable

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
        self._several_cases = False
        self._live: Live | None = None
        self._spinner = Spinner("dots" if _unicode(self._err) else "line")
        self._doing = ""
        self._since = time.monotonic()
        self._progress: Progress | None = None
        self._last_stats: Mapping[str, float] = {}
        self._told_s = 0.0
        self._warned: set[str] = set()

    def begin(self, experiment: Experiment) -> None:
        """Learn the bounds that progress is shown against."""
        self._slas = {sla.name: sla for sla in experiment.slas}
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
                self._now("checking what the server takes")
                ready = "answers" if server.attached else f"ready after {wording.duration(took_s)}"
                self.say(f"{server.name or 'server'}: {ready} at {endpoint.url}, model {endpoint.model}")
            case ServerStopped(server=server):
                self._now("")
                if not server.attached:
                    self.say(f"{server.name or 'server'}: stopped")
            case TrialStarted(case=case, probe=probe):
                self._told_s, self._last_stats = 0.0, {}
                self._now(f"{self._about(case)}{wording.load_text(probe.load, probe.by)}, {wording.kind_text(probe)}")
            case Progress():
                self._progress, self._last_stats = event, event.stats
                self._tell_plainly(event)
            case TrialEnded(trial=trial):
                self._progress = None
                self._now("choosing the next load")
                lines = (self._trial_line(trial, short=False), self._trial_line(trial, short=True))
                self._print(next((line for line in lines if line.cell_len <= self._err.width), lines[-1]), indent=6)
            case Answered(answer=answer):
                arrow = "→" if _unicode(self._err) else ">"
                self._print(Text(f"  {arrow} {self._answered(answer)}", "bold"), indent=6)
            case Warned(text=text):
                self.warn(text)
            case Noted(text=text):
                self.say(text)

    def say(self, text: str, indent: int = 2) -> None:
        """One line of progress; where it is too long for the terminal, what follows is indented."""
        self._print(Text(text), indent)

    def warn(self, text: str) -> None:
        """A warning, where it was not said before: several configurations may have the same."""
        if text in self._warned:
            return
        self._warned.add(text)
        self._print(Text("warning: ", "yellow").append(text, "default"))

    def _print(self, line: Text, indent: int = 2) -> None:
        if self._quiet:
            return
        if self._err.width == _PLAIN_WIDTH:  # a pipe has no width to wrap at
            self._err.print(line, soft_wrap=True)
        else:
            lines = line.split("\n")
            self._err.print(Text("\n").join(hanging(each, self._err.width, indent) for each in lines))

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
        load = wording.capacity_text(answer)
        return f"{about}: {answer.evidence}, {load} ({wording.interval_text(answer)})"

    def _trial_line(self, trial: Trial, *, short: bool) -> Text:
        """How it went; `short` leaves out what its sign and its values say too, and how many requests it had."""
        standing, why = self._outcome(trial)
        style = {"holds": "green", "too much": "red", "open": "cyan", "lost": "yellow"}[standing]
        took = wording.duration(trial.outcome.duration_s)
        line = Text("  ").append(_sign(self._err, standing), style)
        line.append(f" trial {wording.trial_number(trial.id):<{2 if short else 3}} ")
        line.append(f"{wording.load_text(trial.probe.load, trial.probe.by):<{16 if short else 22}} ", "bold")
        line.append(f"{wording.kind_text(trial.probe)}, {took}: ", "dim")
        line.append(why.removeprefix(f"{standing}: ") if short else why, style)
        return line if short else line.append(_count(trial), "dim")

    def _outcome(self, trial: Trial) -> tuple[wording.Standing, str]:
        sla = self._asking(trial.probe.asked_by)
        if sla is None or not isinstance(trial.outcome, Measured):
            return wording.outcome_text(trial, sla, {})
        good, why = usable(trial, sla)
        if not good:
            return "lost", f"not usable: {why}"
        return wording.outcome_text(trial, sla, values(trial, sla) or self._last_stats)

    def _asking(self, name: str) -> Sla | None:
        return self._slas.get(name) or (next(iter(self._slas.values())) if len(self._slas) == 1 else None)

    def _tell_plainly(self, progress: Progress) -> None:
        if self._live is not None or progress.now_s < self._told_s + _PLAIN_EVERY_S:
            return
        self._told_s = progress.now_s
        stats = ", ".join(self._standing(progress))
        self.say(f"    {wording.duration(progress.now_s)}: {_traffic(progress)}" + (f"; {stats}" if stats else ""), 6)

    def _standing(self, progress: Progress) -> list[str]:
        sla = self._asking(progress.probe.asked_by)
        known = [c for c in sla.criteria if c.metric in progress.stats] if sla else []
        return [*(wording.criterion_text(c, progress.stats[c.metric]) for c in known), *self._unbounded(progress)]

    def _unbounded(self, progress: Progress) -> list[str]:
        """What is shown beside the criteria of the SLA that asked."""
        sla = self._asking(progress.probe.asked_by)
        bounded = {c.metric for c in sla.criteria} if sla else set()
        return [
            f"{name} {wording.quantity(name, stat)}" for name, stat in progress.stats.items() if name not in bounded
        ]

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
        if others := self._unbounded(progress):
            parts.append(Text(f"  {', '.join(others)}", "dim"))
        return Group(*parts)

    # ---- what it comes to --------------------------------------------------------------------------------------------

    def answers(self, answers: Sequence[Answer], *, columns: Mapping[str, Sequence[str]] | None = None) -> None:
        """The table on stdout, what to know about it, and a sentence to repeat; `columns` are set beside it."""
        self._show(tables.answers(answers, columns or {}, self._out))

    def listed(self, answers: Sequence[Answer]) -> None:
        """What a list of loads came to, on stdout."""
        self._show(tables.listed(answers))

    def trials(self, opened: Opened, slas: Sequence[Sla]) -> None:
        """Each trial on stdout, with its verdict on each of these SLAs."""
        self._show(tables.trials(opened, slas, self._out))

    def benches(self, results: Sequence[Mapping[str, Any]]) -> None:
        """What loads measured by hand came to, on stdout."""
        self._show(benches(results, self._out))

    def plan(self, experiment: Experiment, estimate: Estimate) -> None:
        """What would run, on stdout."""
        self._show(tables.plan(experiment, estimate))

    def _show(self, table: RenderableType) -> None:
        self._out.print(table, soft_wrap=self._out.width == _PLAIN_WIDTH)  # a pipe has no width to wrap at


def _screen(*, stderr: bool) -> Screen:
    stream = sys.stderr if stderr else sys.stdout
    plain = not stream.isatty() and "COLUMNS" not in os.environ
    return Screen(
        file=stream, width=_PLAIN_WIDTH if plain else None, markup=False, highlight=False, emoji=False, soft_wrap=False
    )


def _unicode(screen: Screen) -> bool:
    return not screen.options.ascii_only


def _sign(screen: Screen, standing: wording.Standing) -> str:
    signs = "✓✗·!" if _unicode(screen) else "+x.!"
    return dict(zip(("holds", "too much", "open", "lost"), signs, strict=True))[standing]


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
