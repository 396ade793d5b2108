"""The charts of one SLA: a figure for each criterion that says something, and their legend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from redline import wording
from redline.model import UNITS, Answer, Criterion, Measured, Sla, Trial, Variable
from redline.report.chart import Chart, Point, Standing, glyph, line_glyphs, svg
from redline.report.points import points_of
from redline.sla import metric_of

_NAMES: Mapping[str, str] = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "inter-token latency",
    "e2el": "end-to-end latency",
}
_LEGEND: Sequence[tuple[Standing, bool, str]] = (
    ("pass", True, "passes"),
    ("fail", False, "fails"),
    ("undecided", True, "within the bound, not proven"),
    ("undecided", False, "over the bound, not proven"),
    ("early", False, "ended early: out of reach"),
    ("unusable", True, "not usable: the client was too slow"),
    ("broken", False, "broke: no value"),
)


def figures(
    trials: Sequence[Trial], asked: tuple[Sla, Answer | None], seen_as: tuple[Variable, float], key: str
) -> Iterable[str]:
    """A chart for each criterion, with a legend of what occurs in them.

    Args:
        asked: the SLA and its answer, where there is one
        seen_as: the searched quantity, and the confidence of the bounds
        key: unique on the page
    """
    sla, answer = asked
    by, confidence = seen_as
    shown: list[Point] = []
    charts: list[str] = []
    silent: list[str] = []
    for number, criterion in enumerate(sla.criteria, 1):
        points = points_of(tuple(trials), sla, criterion, by, confidence)
        known = [point for point in points if not math.isnan(point.value)]
        if not known:
            silent.append(f"No trial tells {criterion.metric}.")
        elif criterion.metric == "error_rate" and all(point.value == 0 for point in known):
            silent.append(f"No request failed in any trial ({wording.criterion_text(criterion, None)}).")
        else:
            shown += points
            charts.append(_figure(_chart(criterion, points, answer, by, f"{key}k{number}"), criterion))
    if charts:
        yield f'<div class="charts">{"".join(charts)}</div>'
        yield _legend(shown, bool(answer and answer.low is not None and answer.high))
    if silent and any(isinstance(trial.outcome, Measured) for trial in trials):
        yield f'<p class="soft small">{escape(" ".join(silent))}</p>'


def _figure(chart: Chart, criterion: Criterion) -> str:
    op = {"<=": "≤", ">=": "≥"}.get(criterion.op, criterion.op)
    bound = f"{op} {wording.quantity(criterion.metric, criterion.bound)}"
    default = ", by default" if criterion.default else ""
    caption = f"{escape(criterion.metric)} <span>{escape(bound)}{default}</span>"
    return f"<figure><figcaption>{caption}</figcaption>\n{svg(chart)}</figure>"


def _chart(criterion: Criterion, points: tuple[Point, ...], answer: Answer | None, by: Variable, key: str) -> Chart:
    metric = metric_of(criterion.metric)
    share = metric.kind in ("error_rate", "attainment")
    usable = [point for point in points if point.standing != "broken"]
    loads = [point.load for point in points]
    capacity = f" {wording.sentence(answer)}" if answer else ""
    return Chart(
        key=key,
        title=f"{criterion.metric} against load",
        description=(
            f"{len(usable)} trials from {wording.load_text(min(loads), by)} to {wording.load_text(max(loads), by)}; "
            f"{sum(point.met for point in usable)} of them within the bound, "
            f"{wording.quantity(criterion.metric, criterion.bound)}.{capacity} The table below has the numbers."
        ),
        x_label=UNITS[by],
        y_label=_y_label(criterion),
        bound=criterion.bound,
        linear=share,
        percent=share,
        whole=by == "concurrency",
        points=points,
        low=answer.low if answer else None,
        high=answer.high if answer else None,
        capacity=answer.capacity if answer else None,
    )


def _y_label(criterion: Criterion) -> str:
    metric = metric_of(criterion.metric)
    match metric.kind:
        case "quantile" | "mean":
            which = criterion.metric.split("_")[0]
            return f"{which} {_NAMES[metric.field]}, ms"
        case "throughput":
            return f"{criterion.metric.replace('_', ' ')}, {'requests' if metric.field == 'request' else 'tokens'}/s"
        case "error_rate":
            return "requests that failed"
        case _:
            return "requests that keep all bounds"


def _legend(points: Sequence[Point], interval: bool) -> str:
    present = {(point.standing, point.met) for point in points}
    present |= {(point.standing, True) for point in points if point.standing in ("pass", "unusable")}
    present |= {(point.standing, False) for point in points if point.standing in ("fail", "early", "broken")}
    items = [
        f"<li>{glyph(standing, met)}{words}</li>" for standing, met, words in _LEGEND if (standing, met) in present
    ]
    if any(point.small for point in points):
        items.append(f"<li>{glyph('undecided', True, small=True)}small: a quick look</li>")
    lines = line_glyphs()
    if any(math.isinf(point.high) for point in points):
        items.append(f"<li>{lines['open']}too few requests to bound it from above</li>")
    if interval:
        items.append(f"<li>{lines['interval']}interval of the capacity</li>")
    items.append(f"<li>{lines['bound']}bound</li>")
    return f'<ul class="legend" aria-label="Marks">{"".join(items)}</ul>'
