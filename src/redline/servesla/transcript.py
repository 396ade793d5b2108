"""What a sweep says on stdout, in the lines that scripts look for in the output of vLLM's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from redline.events import Answered, Event, TrialEnded, TrialStarted
from redline.model import Answer, Case, Failed, Invalid, Sla, Trial
from redline.search import seen
from redline.servesla.parameters import Pair
from redline.servesla.targets import Target
from redline.verdict import summary


@dataclass(slots=True)
class Transcript:
    """Prints one block for each pair and target, in the order in which they are searched."""

    say: Callable[[str], None]
    variable: str
    slas: Mapping[str, tuple[Sla, Target]]  # by the name of the SLA
    pairs: Mapping[str, Pair]  # by the key of the case
    answer_of: Callable[[Case, Sla], Answer]  # from what is known so far
    hints: Callable[[Answer], str] = field(default=lambda answer: "")  # noqa: ARG005 - none
    _open: tuple[Case, str] | None = None
    _told: set[tuple[str, str]] = field(default_factory=set)

    def on_event(self, event: Event) -> None:
        match event:
            case TrialStarted(case=case, probe=probe):
                self._begin(case, probe.asked_by)
                self.say(f"Testing {self.variable}: {probe.load:.10g} req/s")
            case TrialEnded(trial=trial):
                self.say(self._found(trial))
            case Answered(case=case, answer=answer):
                if (case.key, answer.sla) not in self._told or self._open == (case, answer.sla):
                    self._begin(case, answer.sla)
                    self._end(answer)

    def _begin(self, case: Case, name: str) -> None:
        if self._open == (case, name):
            return
        if self._open is not None:
            before, sla = self._open
            self._end(self.answer_of(before, self.slas[sla][0]))
        self._open = (case, name)
        self._told.add((case.key, name))
        self.say("[SLA START]")
        if label := self.pairs[case.key].folder:
            self.say(label)
        self.say(f"SLA criteria: {self.slas[name][1].words}")

    def _end(self, answer: Answer) -> None:
        if answer.capacity is not None:
            self.say(f"Maximum {self.variable} for SLA: {answer.capacity:.10g} req/s.")
        else:
            self.say(f"No {self.variable} for SLA: {answer.evidence}.")
        bounds = [f"{bound:.4g}" if bound is not None else "unknown" for bound in (answer.low, answer.high)]
        interval = (
            f", {100 * answer.confidence:g}% interval {bounds[0]} to {bounds[1]}" if answer.low is not None else ""
        )
        self.say(f"Evidence: {answer.evidence}{interval} ({answer.stop_reason})")
        if hint := self.hints(answer):
            self.say(hint)
        if answer.error:
            self.say(f"Error: {answer.error}")
        self.say("[SLA END]")
        self._open = None

    def _found(self, trial: Trial) -> str:
        outcome = trial.outcome
        if isinstance(outcome, Failed):
            return f"No result: {outcome.reason}"
        if isinstance(outcome, Invalid):
            return f"Not used: {outcome.reason}; {outcome.cure}"
        sla, target = self.slas[trial.probe.asked_by]
        if outcome.stop.reason == "over":
            return "SLA criteria are not met. (margin=inf)"
        values = {**summary(outcome), **seen(trial, sla)}
        margin = target.relative(values)
        failing = any(c.default and values.get(c.metric, 0.0) > c.bound for c in sla.criteria)
        share = f"; {100 * values['error_rate']:.3g}% of the requests failed" if failing else ""
        met = not math.isnan(margin) and margin <= 0 and not failing
        return f"SLA criteria are {'' if met else 'not '}met. (margin={margin:.2f}{share})"
