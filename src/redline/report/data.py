"""What a report is made from: stored answers and trials, nothing live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from redline.model import Answer, Case, Sla, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportCase:
    """One configuration under one workload: what was asked, measured and answered."""

    case: Case
    slas: tuple[Sla, ...]
    trials: tuple[Trial, ...]
    answers: tuple[Answer, ...]  # one for each SLA, found by its name


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """A whole experiment."""

    title: str
    directory: str
    cases: tuple[ReportCase, ...]
    confidence: float = 0.9
    notes: tuple[str, ...] = ()  # what the reader must know of the whole: dropped lines, another environment
    environment: Mapping[str, str] = field(default_factory=dict)  # what it ran on, in the order to show

    @property
    def answers(self) -> tuple[Answer, ...]:
        return tuple(answer for case in self.cases for answer in case.answers)

    @property
    def trials(self) -> tuple[Trial, ...]:
        return tuple(trial for case in self.cases for trial in case.trials)
