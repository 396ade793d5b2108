"""SLA files of vLLM's sweep: their targets, names and margins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from redline.model import JsonValue, Sla, UsageError
from redline.servesla.parameters import BadTypeError, BadValueError
from redline.sla import LATENCY_METRIC, percentile_word, sla_of

EPS = 1e-8
_MARGINS: Mapping[str, Callable[[float, float], float]] = {  # (actual, bound) -> at most 0 where it is met
    "<=": lambda actual, bound: actual - bound,
    ">=": lambda actual, bound: bound - actual,
    "<": lambda actual, bound: actual + EPS - bound,
    ">": lambda actual, bound: bound + EPS - actual,
}  # the longer operators first: a text that begins with <= begins with < too


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """One criterion of a target, on any numeric key of a result."""

    metric: str
    op: Literal["<=", "<", ">=", ">"]
    number: float

    @property
    def text(self) -> str:
        return f"{self.metric}{self.op}{self.number:.2f}"

    def margin(self, actual: float) -> float:
        """How far the value is beyond the bound, in its own unit; at most 0 where it is met."""
        return _MARGINS[self.op](actual, self.number)

    def relative(self, actual: float) -> float:
        """The same as a share of the bound, so that different units compare."""
        return self.margin(actual) / abs(self.number) if self.number else self.margin(actual)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Criteria that must all hold; each target is searched on its own."""

    bounds: tuple[Bound, ...]

    @property
    def text(self) -> str:
        """As vLLM's sweep names it."""
        return "-".join(bound.text for bound in self.bounds)

    @property
    def words(self) -> str:
        return ", ".join(bound.text for bound in self.bounds)

    @property
    def file_name(self) -> str:
        return f"SLA--{self.text.replace('/', '_')}.json"

    def margin(self, runs: Sequence[Mapping[str, object]]) -> float:
        """As vLLM's sweep took it: the largest of the criteria, in mixed units, each metric averaged over the runs."""
        return max(bound.margin(_mean(bound.metric, runs)) for bound in self.bounds)

    def relative(self, values: Mapping[str, float]) -> float:
        """The largest of the relative margins; NaN where one of the metrics is missing."""
        found = [bound.relative(values.get(bound.metric, math.nan)) for bound in self.bounds]
        return math.nan if any(math.isnan(margin) for margin in found) else max(found)

    def sla(self) -> Sla:
        """As Redline's own search takes it; UsageError for what that cannot promise."""
        try:
            return sla_of("", [f"{bound.metric}{bound.op}{bound.number:.12g}" for bound in self.bounds])
        except UsageError as error:
            raise BadValueError(f"{error} (--search legacy takes any number of a result)") from error


def targets_of(data: object) -> tuple[Target, ...]:
    """The targets of an SLA file: a list of objects such as {"p99_ttft_ms": "<=200"}."""
    if not isinstance(data, list):
        raise BadTypeError(f'must be a list of objects such as {{"p99_ttft_ms": "<=200"}}, not a {type(data).__name__}')
    targets = []
    for number, entry in enumerate(data, 1):
        if not isinstance(entry, Mapping):
            raise BadTypeError(f'item {number} must be an object such as {{"p99_ttft_ms": "<=200"}}')
        if not entry:
            raise BadValueError(f'item {number} holds no criterion; write for example {{"p99_ttft_ms": "<=200"}}')
        targets.append(Target(bounds=tuple(bound_of(metric, text) for metric, text in entry.items())))
    names = [target.file_name for target in targets]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise BadValueError(f"two targets would share the file {twice[0]}: bounds must differ in two decimals")
    return tuple(targets)


def bound_of(metric: str, text: JsonValue) -> Bound:
    """One criterion from its metric and a text such as `<=200`."""
    known = ", ".join(_MARGINS)
    words = text.strip() if isinstance(text, str) else ""
    op = next((op for op in _MARGINS if words.startswith(op)), None)
    if op is None:
        raise BadValueError(f'{metric}: {text!r} begins with none of the operators {known}; write for example "<=200"')
    try:
        number = float(words.removeprefix(op))
    except ValueError:
        raise BadValueError(f'{metric}: {text!r} has no number after {op}; write for example "{op}200"') from None
    if not math.isfinite(number):
        raise BadValueError(f"{metric}: the bound {number} is no finite number")
    return Bound(metric=_as_reported(metric), op=op, number=number)  # type: ignore[arg-type]  # one of the operators


def percentile_of(metric: str) -> str | None:
    """Which percentile this metric is, as --metric-percentiles must name it; None where it is none."""
    found = LATENCY_METRIC.fullmatch(metric)
    return percentile_word(float(found["percent"])) if found and found["percent"] else None


def _as_reported(metric: str) -> str:
    """The key under which vLLM reports it: p99.0_ttft_ms is there as p99_ttft_ms."""
    percent = percentile_of(metric)
    return f"p{percent}_{metric.partition('_')[2]}" if percent else metric


def _mean(metric: str, runs: Sequence[Mapping[str, object]]) -> float:
    numbers = [_numbers(run) for run in runs]
    if not numbers or any(metric not in run for run in numbers):
        known = sorted(numbers[0]) if numbers else []
        raise BadValueError(f"the results have no number {metric}; they have {', '.join(known) or 'none'}")
    return sum(run[metric] for run in numbers) / len(numbers)


def _numbers(run: Mapping[str, object]) -> dict[str, float]:
    """What can be a metric: true and false are none, nor are NaN and infinity."""
    found = {key: value for key, value in run.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}
