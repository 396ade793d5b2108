"""Loads, trials and answers in words that a person can repeat; every number the user reads is formatted here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from redline.model import (
    UNITS,
    Answer,
    CommandWorkload,
    Criterion,
    Failed,
    Invalid,
    Measured,
    Probe,
    Sla,
    Trial,
    Variable,
    Workload,
)
from redline.sla import met, ratio

Standing: TypeAlias = Literal["holds", "too much", "open", "lost"]  # lost: it says nothing about the server

_KINDS = {
    "scout": "a quick look",
    "main": "measuring",
    "confirm": "confirming",
    "hold": "holding",
    "list": "measuring",
}
_NEAR = 0.01  # of the capacity: a trial at this load is one at the capacity


def number(x: float) -> str:
    """Three significant digits, thousands separated, never an exponent for what a person meets."""
    if not math.isfinite(x):
        return "?"
    if abs(x) >= 100:
        return f"{x:,.0f}"
    if x != 0 and abs(x) < 0.001:
        return f"{x:.2g}"
    digits = 2 - (math.floor(math.log10(abs(x))) if x else 2)
    text = f"{x:.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """34 s, 2 min 5 s, 1 h 10 min."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def quantity(metric: str, x: float) -> str:
    """A metric's value with its unit."""
    if metric.endswith("_ms"):
        return f"{number(x)} ms"
    if metric == "error_rate" or metric.startswith("attainment"):
        return f"{number(100 * x)} %"
    return f"{number(x)}/s"


def load_text(load: float, by: Variable) -> str:
    return f"{number(load)} {UNITS[by]}"


def unit_of(workload: Workload | CommandWorkload, by: Variable) -> str:
    """What a load counts: users who think are not in flight all the time."""
    thinks = isinstance(workload, Workload) and workload.think_time_s is not None
    return "users" if thinks and by == "concurrency" else UNITS[by]


def capacity_text(answer: Answer) -> str:
    """The load to rely on, with what it counts; - where there is none."""
    unit = answer.unit or UNITS[answer.variable]
    return "-" if answer.capacity is None else f"{number(answer.capacity)} {unit}"


def trial_number(name: str) -> str:
    """A trial's id as it is shown and typed: 1 for 0001."""
    return name.lstrip("0") or name


def kind_text(probe: Probe) -> str:
    return _KINDS[probe.kind]


def criterion_text(criterion: Criterion, stat: float | None) -> str:
    """p99_ttft_ms 240 ms > 200 ms, or 184 of 200 ms where it is met."""
    bound = quantity(criterion.metric, criterion.bound)
    if stat is None or not math.isfinite(stat):
        return f"{criterion.metric} {criterion.op} {bound}"
    value = quantity(criterion.metric, stat)
    if met(criterion, stat):
        return f"{criterion.metric} {value} of {bound}"
    broken = {"<=": ">", "<": ">=", ">=": "<", ">": "<="}[criterion.op]
    return f"{criterion.metric} {value} {broken} {bound}"


def tightest(sla: Sla, stats: Mapping[str, float]) -> Criterion | None:
    """The criterion nearest to its bound, or furthest beyond it; None without numbers."""
    known = [c for c in sla.criteria if not math.isnan(stats.get(c.metric, math.nan))]
    return max(known, key=lambda c: ratio(c, stats[c.metric]), default=None)


def outcome_text(trial: Trial, sla: Sla | None, stats: Mapping[str, float]) -> tuple[Standing, str]:
    """How the trial stands to the SLA that asked for it, and why, in plain words."""
    outcome = trial.outcome
    if isinstance(outcome, Failed):
        return "lost", f"{'the server died' if outcome.server_died else 'broke'}: {_first_line(outcome.reason)}"
    if isinstance(outcome, Invalid):
        return "lost", f"not usable: {_first_line(outcome.reason)}" + (f" ({outcome.cure})" if outcome.cure else "")
    reason = outcome.stop.reason
    if reason == "over":
        return "too much", f"too much: {outcome.stop.detail or 'the queue grows'}"
    if reason == "fail":
        return "too much", f"too much: {_failed_on(outcome.stop.criterion, outcome.stop.detail, sla, stats)}"
    if sla is None:
        return "open", "measured"
    criterion = tightest(sla, stats)
    if criterion is None:
        return "open", "cut short, too early to say" if reason == "budget" else "measured"
    broken = [c for c in sla.criteria if not math.isnan(stats.get(c.metric, math.nan)) and not met(c, stats[c.metric])]
    words = criterion_text(criterion, stats[criterion.metric])
    if reason == "budget":
        return "open", f"ended by the budget: {words}"
    return ("too much", f"too much: {words}") if broken else ("holds", f"holds: {words}")


def _failed_on(text: str | None, detail: str, sla: Sla | None, stats: Mapping[str, float]) -> str:
    criterion = next((c for c in sla.criteria if c.text == text), None) if sla else None
    if criterion is not None and not met(criterion, stats.get(criterion.metric, criterion.bound)):
        return criterion_text(criterion, stats[criterion.metric])
    return f"{text or 'a criterion'} is out of reach" + (f" ({detail})" if detail else "")


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]


# ---- answers ---------------------------------------------------------------------------------------------------------


def interval_text(answer: Answer) -> str:
    """11.8 to 12.8; open ends in words."""
    if answer.low is None and answer.high is None:
        return "-"
    if answer.high is None:
        return f"at least {number(answer.low or 0.0)}"
    if not answer.low:
        return f"below {number(answer.high)}"
    return f"{number(answer.low)} to {number(answer.high)}"


def subject_text(answer: Answer, several: bool) -> str:
    """Which server, workload and SLA the answer is about."""
    return (
        ", ".join(part for part in (answer.server, answer.workload, answer.sla) if part) if several else "This server"
    )


def sentence(answer: Answer, *, several: bool = False) -> str:
    """One answer as a sentence that a person can repeat to another; an error has lines of a log after it."""
    who = subject_text(answer, several)
    unit = answer.unit or UNITS[answer.variable]
    sure = f"{number(100 * answer.confidence)} % confidence"
    bounds = ", ".join(c.text for c in answer.criteria if not c.default) or "its SLA"
    limit = f" What gives way first is {answer.limiting}." if answer.limiting else ""
    match answer.evidence:
        case "edge":
            carries = f"{who} carries {number(answer.capacity or 0.0)} {unit} within {bounds}"
            return f"{carries} ({interval_text(answer)} with {sure}).{limit}"
        case "floor":
            top = number(answer.capacity or 0.0)
            return f"{who} carries at least {top} {unit} within {bounds}; that was the highest load allowed (--max)."
        case "none":
            lowest = number(answer.high or 0.0)
            return f"{who} does not meet {bounds} even at the lowest load tried, {lowest} {unit}.{limit}"
        case "undecided":
            so_far = _so_far(answer, unit)
            if answer.error:
                return f"{who}: undecided within {bounds}. {so_far} What ended it: {answer.error.strip()}"
            return f"{who}: undecided within {bounds}: {answer.stop_reason or 'the budget ended'}. {so_far}"
        case "client_limited":
            why = answer.stop_reason or "the load generator gave out before the server did"
            return f"{who}: {why}. {_so_far(answer, unit)}"
        case "crashed":
            at = f" at {number(answer.high)} {unit}" if answer.high is not None else ""
            return f"{who}: the server died{at}. {_so_far(answer, unit)}"
        case "not_started":
            return f"{who} never became ready: {(answer.error or 'no reason given').strip()}"


def sentences(answers: Sequence[Answer]) -> list[str]:
    """A sentence for each answer; what several of them end with is told once."""
    texts: list[str] = []
    told: set[str | None] = set()
    for answer in answers:
        known = replace(answer, error="as above") if answer.error in told else answer
        texts.append(sentence(known, several=len(answers) > 1))
        told |= {answer.error} if answer.error else set()
    return texts


def tells_error(answer: Answer) -> bool:
    """Does the answer's sentence end with its error, the log's tail included?"""
    return bool(answer.error) and answer.evidence in ("undecided", "not_started")


def notes(answer: Answer, trials: Sequence[Trial]) -> tuple[str, ...]:
    """What to hear with an answer: its own warnings, those of its trials, and whether a cap took part in it."""
    met = [warning for trial in trials for warning in trial.warnings]
    return tuple(dict.fromkeys([*answer.warnings, *_held(answer, trials), *met]))


def _held(answer: Answer, trials: Sequence[Trial]) -> list[str]:
    for trial in trials:
        near = answer.capacity is not None and abs(trial.probe.load - answer.capacity) <= _NEAR * answer.capacity
        client = trial.outcome.client if isinstance(trial.outcome, Measured) and trial.probe.kind != "scout" else None
        if near and client and client.held:
            share = f"{client.held:,} of {client.due:,} requests waited in the client"
            return [f"max_in_flight was reached at {load_text(trial.probe.load, answer.variable)}: {share}"]
    return []


def _so_far(answer: Answer, unit: str) -> str:
    held = f"It held at {number(answer.capacity)} {unit}" if answer.capacity is not None else "It held at no load yet"
    if answer.low is None or answer.high is None:
        return f"{held}."
    return f"{held}; the capacity is believed to be {interval_text(answer)} {unit}."


def listed_text(answer: Answer, *, several: bool = False) -> str:
    """What a list of loads came to; the exact verdicts stand in the table of trials."""
    who = subject_text(answer, several)
    bounds = ", ".join(c.text for c in answer.criteria if not c.default) or "its SLA"
    if answer.capacity is None:
        return f"{who} is not known to meet {bounds} at any of the loads measured."
    return f"{who} met {bounds} at up to {load_text(answer.capacity, answer.variable)} of the loads measured."


def best_text(answers: Sequence[Answer]) -> str:
    """Which configuration carries most, where several answer one question; empty where that is not known."""
    if len({(a.workload, a.sla, a.variable) for a in answers}) != 1:
        return ""
    if any(a.evidence in ("undecided", "client_limited") for a in answers):
        return ""
    known = sorted((a for a in answers if a.capacity), key=lambda a: -(a.capacity or 0.0))
    if len(known) < 2:
        return ""
    first, second = known[:2]
    near = [a for a in known[1:] if _overlap(first, a)]
    if near:
        others = [f"{a.server} ({number(a.capacity or 0.0)})" for a in near]
        named = [f"{first.server} ({load_text(first.capacity or 0.0, first.variable)})", *others]
        cure = "higher --max" if any(a.evidence == "floor" for a in (first, *near)) else "smaller --precision"
        return f"Too near to call: {_listed(named)} overlap; a {cure} may separate them."
    times = number((first.capacity or 0.0) / (second.capacity or 1.0))
    most = load_text(first.capacity or 0.0, first.variable)
    return f"{first.server} carries most: {most}, {times} times as much as {second.server}."


def _overlap(one: Answer, other: Answer) -> bool:
    """Could the other, whose capacity is lower, be the better one?"""
    return one.low is None or other.high is None or one.low <= other.high


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
