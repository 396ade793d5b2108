"""From the text of a criterion to the requests that break it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache, reduce
from typing import Literal, TypeAlias

import numpy as np

from redline.model import Criterion, Sla, UsageError
from redline.records import Floats, Records, Status

Kind: TypeAlias = Literal["quantile", "mean", "throughput", "error_rate", "attainment"]

LATENCIES = ("ttft", "tpot", "itl", "e2el")
THROUGHPUTS = ("request_throughput", "output_throughput", "total_token_throughput")
DEFAULT_ERROR_RATE = Criterion(metric="error_rate", op="<=", bound=0.01, default=True)

_OPS = ("<=", ">=", "<", ">")
_CRITERION = re.compile(r"(?P<metric>.+?)\s*(?P<op>[<>=!]=?)\s*(?P<number>[^\s<>=!%a-zA-Z]\S*?)\s*(?P<unit>us|ms|s|%)?")
_NAME = re.compile(r"\s*(?P<name>[^:<>=(),]+?)\s*:(?P<rest>.*)", re.DOTALL)
LATENCY_METRIC = re.compile(rf"(?P<what>mean|median|p(?P<percent>\d+(?:\.\d+)?))_(?P<field>{'|'.join(LATENCIES)})_ms")
_REPORTED_ONLY = re.compile(rf"(?P<what>min|max|std)_(?P<field>{'|'.join(LATENCIES)})_ms")
_ATTAINMENT = re.compile(r"attainment\s*\((?P<bounds>.*)\)", re.DOTALL)
_TO_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """What a metric's name means."""

    name: str
    kind: Kind
    field: str = ""  # ttft, tpot, itl, e2el; request, output, total for throughputs
    q: float = math.nan  # of a quantile: .99
    bounds: tuple[Criterion, ...] = ()  # of an attainment: bounds on `ttft_ms`, `tpot_ms`, `e2el_ms` of one request

    @property
    def upward(self) -> bool:
        """More is better."""
        return self.kind in ("throughput", "attainment")

    @property
    def fields(self) -> frozenset[str]:
        """The latencies that it looks at."""
        if self.kind == "attainment":
            return frozenset(bound.metric.removesuffix("_ms") for bound in self.bounds)
        return frozenset({self.field}) if self.kind in ("quantile", "mean") else frozenset()


def percentile_word(percent: float) -> str:
    """A percentile as the name of a metric spells it, vLLM's too: 99, 99.9, 99.99999."""
    return str(int(percent)) if percent.is_integer() else str(percent)


def allowed_share(criterion: Criterion) -> float | None:
    """The share of units that may break the criterion's bound; None where it is no share (means, throughputs)."""
    metric = metric_of(criterion.metric)
    match metric.kind:
        case "quantile":
            return round(1.0 - metric.q, 12)
        case "error_rate":
            return criterion.bound
        case "attainment":
            return round(1.0 - criterion.bound, 12)
        case _:
            return None


def ratio(criterion: Criterion, stat: float) -> float:
    """How far a value is from its bound: above 1 on the wrong side, whichever way the criterion looks.

    An attainment is turned into the share that missed, so that small shares compare as ratios too.
    """
    metric = metric_of(criterion.metric)
    if metric.kind == "attainment":
        return (1.0 - stat) / (1.0 - criterion.bound)
    if metric.upward:
        return criterion.bound / stat if stat > 0 else math.inf
    return stat / criterion.bound


def met(criterion: Criterion, stat: float) -> bool:
    """Does this value keep the criterion? NaN does not."""
    match criterion.op:
        case "<=":
            return stat <= criterion.bound
        case "<":
            return stat < criterion.bound
        case ">=":
            return stat >= criterion.bound
        case ">":
            return stat > criterion.bound


# ---- which requests break it ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One criterion's view of each request: so many units known (`weight`), so many of them over the bound (`over`).

    The unit is the request, for inter-token latencies the gap. `value` is the request's own figure in ms (of its gaps
    the mean; for an attainment the worst ratio of a latency to its bound), infinite for a failed request, a lower bound
    while unfinished, and NaN where it has none.
    """

    weight: Floats
    over: Floats
    value: Floats


def judged(criterion: Criterion, records: Records) -> Judged:
    """What each request says on this criterion, as far as is known.

    Failed requests are over every latency bound. Unfinished ones are over as soon as their age is.
    """
    metric = metric_of(criterion.metric)
    if metric.kind == "error_rate":
        broken = records.broken
        return Judged(weight=(broken | records.ok).astype(float), over=broken.astype(float), value=broken.astype(float))
    if metric.kind == "attainment":
        parts = [_judged_latency(b.metric.removesuffix("_ms"), b, records) for b in metric.bounds]
        over = np.logical_or.reduce([p.over > 0 for p in parts])
        # A single token has no TPOT and keeps any bound on it; where no first token is known at all, nothing is known.
        traced = ~(records.ok & np.isnan(records.first_s)) | (metric.fields == {"e2el"})
        known = over | (traced & np.logical_and.reduce([(p.weight > 0) | np.isnan(p.value) for p in parts]))
        ratios = [p.value / b.bound for p, b in zip(parts, metric.bounds, strict=True)]
        value = np.nan_to_num(reduce(np.fmax, ratios), nan=0.0, posinf=np.inf)
        return Judged(weight=known.astype(float), over=over.astype(float), value=value)
    if metric.field == "itl":
        return _judged_gaps(criterion, records)
    return _judged_latency(metric.field, criterion, records)


def latency_ms(field: str, records: Records) -> Floats:
    """The latency of each request in ms: infinite when it failed, its lower bound while unfinished, NaN without one."""
    running = records.running
    if field == "ttft":
        # Finished without a known first token (a benchmark command that kept only E2EL): not known, not its age.
        value = np.where(np.isnan(records.first_s) & ~records.ok, records.age_s() * 1e3, records.ttft_ms())
    elif field == "e2el":
        value = np.where(running, records.age_s() * 1e3, records.e2el_ms())
    else:
        # A running request has spent observed - first on at most asked - 1 further tokens: so much it costs at least.
        left = np.maximum(records.tokens_asked - 1, 1)
        so_far = np.where(records.tokens_asked > 1, (records.observed_s - records.first_s) * 1e3 / left, np.nan)
        value = np.where(running, so_far, records.tpot_ms())
    return np.where(records.broken, np.inf, value)


def _judged_latency(field: str, criterion: Criterion, records: Records) -> Judged:
    value = latency_ms(field, records)
    final = ~records.running
    if field == "ttft":
        final |= ~np.isnan(records.first_s)
    with np.errstate(invalid="ignore"):
        over = value >= criterion.bound if criterion.op == "<" else value > criterion.bound
    known = ~np.isnan(value) & (final | over)
    return Judged(weight=known.astype(float), over=over.astype(float), value=value)


def _judged_gaps(criterion: Criterion, records: Records) -> Judged:
    n = len(records)
    if len(records.gap_offsets) != n + 1:
        return Judged(weight=np.zeros(n), over=np.zeros(n), value=np.full(n, np.nan))
    ms = records.gaps_us / 1e3
    above = ms >= criterion.bound if criterion.op == "<" else ms > criterion.bound
    weight = np.diff(records.gap_offsets).astype(float)
    over = np.diff(np.concatenate(([0.0], np.cumsum(above)))[records.gap_offsets])
    total = np.diff(np.concatenate(([0.0], np.cumsum(ms)))[records.gap_offsets])
    value = np.where(weight > 0, total / np.maximum(weight, 1), np.nan)
    # A failed request owes the gaps that it never delivered: as many as a good one has.
    good = records.status == Status.OK
    owed = max(1.0, float(np.ceil(np.median(weight[good])))) if good.any() else 1.0
    broken = records.broken
    return Judged(
        weight=np.where(broken, np.maximum(weight, owed), weight),
        over=np.where(broken, np.maximum(weight, owed), over),
        value=np.where(broken, np.inf, value),
    )


# ---- text ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def metric_of(name: str) -> Metric:
    """What this metric is; UsageError, with the nearest name, for what is none."""
    name = name.strip()
    if name in THROUGHPUTS:
        return Metric(name=name, kind="throughput", field=name.split("_")[0])
    if name == "error_rate":
        return Metric(name=name, kind="error_rate")
    if found := _ATTAINMENT.fullmatch(name):
        return _attainment(found["bounds"])
    if found := LATENCY_METRIC.fullmatch(name):
        if found["what"] == "mean":
            return Metric(name=name, kind="mean", field=found["field"])
        percent = 50.0 if found["what"] == "median" else float(found["percent"])
        if not 1.0 <= percent <= 99.99:
            raise UsageError(f"{name}: a percentile lies between p1 and p99.99; for the very worst say p99.9")
        return Metric(name=name, kind="quantile", field=found["field"], q=round(percent / 100, 8))
    raise UsageError(_why_unknown(name))


def _why_unknown(name: str) -> str:
    if found := _REPORTED_ONLY.fullmatch(name):
        field = found["field"]
        attainment = (
            "" if field == "itl" else f", or the share of requests that keep a bound: attainment({field}_ms<=...)"
        )
        return f"{name} is reported but cannot be promised (one request decides it): say p99.9_{field}_ms{attainment}"
    if name == "request_goodput":
        return (
            "request_goodput needs `goodput = [...]` bounds in the workload, which this version cannot read; "
            "say what share of requests must keep them: attainment(ttft_ms<=..., tpot_ms<=...)>=..."
        )
    percent = re.match(r"p\d+(?:\.\d+)?(?=_)", name)
    stems = ["mean", "median", percent.group() if percent else "p99"]
    names = [f"{stem}_{field}_ms" for stem in stems for field in LATENCIES]
    names += [*THROUGHPUTS, "error_rate", "attainment(...)"]
    near = get_close_matches(name if "(" not in name else name.split("(")[0] + "(...)", names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are, for example, {', '.join(names[8:])}"
    return f"unknown metric {name}: {hint}"


def _attainment(text: str) -> Metric:
    bounds: list[Criterion] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        found = _CRITERION.fullmatch(part)
        field = found["metric"] if found else ""
        if not found or found["op"] not in ("<=", "<") or field not in ("ttft_ms", "tpot_ms", "e2el_ms"):
            raise UsageError(
                f"attainment(...): cannot read {part!r}; inside the parentheses stand bounds on one request, "
                "such as ttft_ms<=200, tpot_ms<=50 or e2el_ms<=5s"
            )
        bound = _positive(part, found["number"]) * _TO_MS[_unit(part, found["unit"], "ms", tuple(_TO_MS))]
        bounds.append(Criterion(metric=field, op=found["op"], bound=bound))  # type: ignore[arg-type]  # checked above
    if not bounds:
        raise UsageError("attainment(...) needs at least one bound, such as attainment(ttft_ms<=200)>=95%")
    name = f"attainment({', '.join(bound.text for bound in bounds)})"
    return Metric(name=name, kind="attainment", bounds=tuple(bounds))


def _positive(text: str, number: str) -> float:
    try:
        bound = float(number)
    except ValueError:
        raise UsageError(f"{text!r}: {number!r} is no number") from None
    if not (math.isfinite(bound) and bound > 0):
        raise UsageError(f"{text!r}: the bound must be a finite number above 0")
    return bound


def _unit(text: str, given: str | None, default: str, allowed: Sequence[str]) -> str:
    if given and given not in allowed:
        raise UsageError(f"{text!r}: the unit {given} does not fit; use {' or '.join(allowed) or 'a plain number'}")
    return given or default


def parse_criterion(text: str) -> Criterion:
    """One criterion, such as `p99_ttft_ms<=200ms`, in its metric's own unit; UsageError says what is wrong with it."""
    text = " ".join(text.split())
    # The bound is what follows the last operator outside parentheses; an attainment has operators inside them.
    head, paren, tail = text.rpartition(")")
    found = _CRITERION.fullmatch(f"x{tail}" if paren else text)
    if not found:
        raise UsageError(
            f"cannot read {text!r}: a criterion is METRIC OP NUMBER[us|ms|s|%], such as p99_ttft_ms<=200ms"
        )
    metric = metric_of(head + ")" if paren else found["metric"].strip())
    op = found["op"]
    if op not in _OPS:
        raise UsageError(f"{text!r}: the operator must be one of {' '.join(_OPS)}")
    if op.startswith(">") != metric.upward:
        want = ">=" if metric.upward else "<="
        raise UsageError(
            f"{text!r}: {metric.name} is bounded from {'below' if metric.upward else 'above'}; write {want}"
        )
    bound = _bound(text, metric, found["number"], found["unit"])
    return Criterion(metric=metric.name, op=op, bound=bound)  # type: ignore[arg-type]  # op is one of _OPS


def _bound(text: str, metric: Metric, number: str, unit: str | None) -> float:
    if metric.kind in ("quantile", "mean"):
        return _positive(text, number) * _TO_MS[_unit(text, unit, "ms", tuple(_TO_MS))]
    if metric.kind == "throughput":
        _unit(text, unit, "", ())
        return _positive(text, number)
    if metric.kind == "error_rate" and not number.strip("0."):
        raise UsageError(f"{text!r}: no measurement can show that nothing ever fails; say error_rate<=0.1%")
    share = _positive(text, number) / (100 if _unit(text, unit, "", ("%",)) == "%" else 1)
    if share >= 1:
        other = "no measurement can show that every request keeps it" if metric.upward else "every server keeps it"
        raise UsageError(
            f"{text!r}: a share lies between 0 and 1, or 0% and 100% ({other}); did you forget the % sign?"
        )
    return round(share, 12)


def _split(text: str) -> list[str]:
    """At commas outside parentheses."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def parse_sla(text: str, name: str = "") -> Sla:
    """An SLA such as `chat: p99_ttft_ms<=200, p90_tpot_ms<=50`; `name` overrides the one in the text."""
    found = _NAME.fullmatch(text)
    rest = found["rest"] if found else text
    return sla_of(name or (found["name"] if found else ""), [rest])


def sla_of(name: str, texts: Sequence[str]) -> Sla:
    """The SLA of these criteria, with a default bound on the error rate; UsageError has all that is wrong with them."""
    parts = [part for text in texts for part in _split(text)]
    name = name.strip() or ", ".join(parts)
    criteria: list[Criterion] = []
    problems: list[str] = []
    for part in parts:
        try:
            criterion = parse_criterion(part)
        except UsageError as error:
            problems.append(str(error))
            continue
        if any(criterion.metric == other.metric for other in criteria):
            problems.append(f"{criterion.metric} has two bounds; keep the stricter one")
        criteria.append(criterion)
    if not parts:
        problems.append("it has no criterion; write for example p99_ttft_ms<=200ms")
    if problems:
        raise UsageError(f"SLA {name!r}: " + "\n  ".join(["", *problems] if len(problems) > 1 else problems))
    if all(criterion.metric != "error_rate" for criterion in criteria):
        criteria.append(DEFAULT_ERROR_RATE)
    return Sla(name=name, criteria=tuple(criteria))
