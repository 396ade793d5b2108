"""One criterion against load, as an SVG figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, TypeAlias

from redline.wording import number

Standing: TypeAlias = Literal["pass", "fail", "undecided", "early", "unusable", "broken"]

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 40, 46
_X0, _X1, _Y0, _Y1 = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, _TOP  # y grows downwards
_FAR = 8.0  # values so many times over a bound are drawn at the edge, lest they flatten the rest
_NEAR = 2.0  # loads within this factor of the interval are shown
_LINE = 13.0  # height of a line of text
_SMALL = 0.68  # how large scouts are drawn


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One trial on the chart."""

    load: float
    value: float  # NaN: none, drawn on the floor
    standing: Standing
    met: bool = True  # does the point estimate keep the bound?
    low: float = math.nan
    high: float = math.nan
    small: bool = False
    words: str = ""  # shown when pointed at


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """What is drawn; loads and values in the units of their labels."""

    key: str  # unique on the page
    title: str
    description: str
    x_label: str
    y_label: str
    bound: float
    linear: bool = False
    percent: bool = False
    whole: bool = False  # loads are whole numbers
    points: tuple[Point, ...] = ()
    low: float | None = None
    high: float | None = None
    capacity: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    """Values onto pixels, linear or logarithmic; `place` clamps to the axis."""

    low: float
    high: float
    start: float
    end: float
    linear: bool = False

    def place(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.linear:
            share = (value - self.low) / (self.high - self.low)
        else:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def svg(chart: Chart) -> str:
    """The figure; it has a title and a description for those who do not see it."""
    x, y = _x_scale(chart), _y_scale(chart)
    left_out = sum(not x.holds(point.load) for point in chart.points)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="{chart.key}-t {chart.key}-d">',
        f'<title id="{chart.key}-t">{escape(chart.title)}</title>',
        f'<desc id="{chart.key}-d">{escape(chart.description)}</desc>',
        *_band(chart, x),
        *_axes(chart, x, y),
        *_bound(chart, y),
        *(_whisker(point, x, y) for point in chart.points if x.holds(point.load)),
        *(_mark(point, x, y) for point in _big_last(chart.points) if x.holds(point.load)),
    ]
    if left_out:
        text = f"{left_out} trial{'' if left_out == 1 else 's'} outside, see the table"
        parts.append(f'<text class="note" x="{_X1}" y="{_HEIGHT - 6}" text-anchor="end">{text}</text>')
    return "\n".join([*parts, "</svg>"])


def glyph(standing: Standing, met: bool, *, small: bool = False) -> str:
    """The mark alone, for the legend."""
    return f'<svg class="glyph" viewBox="-8 -8 16 16" aria-hidden="true">{_shape(standing, met, small)}</svg>'


def line_glyphs() -> Mapping[str, str]:
    """What is drawn beside the marks, for the legend."""
    shapes = {
        "bound": '<path class="bound" d="M-8 0 H8"/>',
        "interval": '<rect class="interval" x="-8" y="-6" width="16" height="12"/>',
        "open": '<line class="whisker within open" x1="0" x2="0" y1="-8" y2="8"/>',
    }
    return {
        name: f'<svg class="glyph" viewBox="-8 -8 16 16" aria-hidden="true">{shape}</svg>'
        for name, shape in shapes.items()
    }


# ---- axes ------------------------------------------------------------------------------------------------------------


def _x_scale(chart: Chart) -> _Scale:
    """Around the interval, as wide as the trials near it: what is far away would only squeeze the part that decides."""
    answer = [load for load in (chart.low, chart.high, chart.capacity) if load]
    judged = [point.load for point in chart.points if not point.small] or [point.load for point in chart.points]
    if answer:
        judged = [load for load in judged if min(answer) / _NEAR <= load <= max(answer) * _NEAR]
    loads = [*judged, *answer]
    low, high = min(loads, default=1.0), max(loads, default=1.0)
    middle, reach = math.sqrt(low * high), max(math.sqrt(high / low) * 1.08, 1.4)
    return _Scale(low=middle / reach, high=middle * reach, start=_X0, end=_X1)


def _y_scale(chart: Chart) -> _Scale:
    values = [v for point in chart.points for v in (point.value, point.low, point.high) if math.isfinite(v)]
    if chart.linear:
        low = min([chart.bound, *values])
        high = max([chart.bound, *values])
        room = 0.15 * (high - low) or 0.5 * high or 1.0
        return _Scale(low=max(low - room, 0.0), high=min(high + room, 1.0), start=_Y0, end=_Y1, linear=True)
    near = [v for v in values if chart.bound / _FAR**2 <= v <= chart.bound * _FAR]
    low = min([chart.bound / 1.5, *near]) / 1.25
    high = max([chart.bound * 1.5, *near]) * 1.25
    return _Scale(low=low, high=high, start=_Y0, end=_Y1)


def _ticks(scale: _Scale, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers on the scale, as many as fit."""
    if scale.linear:
        step = 10 ** math.floor(math.log10((scale.high - scale.low) / most))
        step = next(s for s in (step, 2 * step, 5 * step, 10 * step) if (scale.high - scale.low) / s <= most)
        first = math.ceil(scale.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(scale.high / step + 1e-9) + 1)]
    decades = range(math.floor(math.log10(scale.low)) - 1, math.ceil(math.log10(scale.high)) + 1)
    steps = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), *map(_every, (1.0, 0.5, 0.2, 0.1)))
    fits = [
        [d for d in (f * 10.0**decade for decade in decades for f in factors) if scale.holds(d)] for factors in steps
    ]
    if whole:
        fits = [[tick for tick in ticks if tick == round(tick)] for ticks in fits]
    return max((ticks for ticks in fits if len(ticks) <= most), key=len, default=[])


def _every(step: float) -> Sequence[float]:
    return [round(1 + i * step, 6) for i in range(round(9 / step))]


def _axes(chart: Chart, x: _Scale, y: _Scale) -> Iterable[str]:
    bound_at = y.place(chart.bound)
    for tick in _ticks(y, 6):
        at = y.place(tick)
        yield f'<line class="grid" x1="{_X0}" x2="{_X1}" y1="{_px(at)}" y2="{_px(at)}"/>'
        if abs(at - bound_at) > _LINE:
            yield _y_text(chart, tick, at, "tick")
    for tick in _ticks(x, 7, whole=chart.whole):
        left = _px(x.place(tick))
        yield f'<line class="axis" x1="{left}" x2="{left}" y1="{_Y0}" y2="{_Y0 + 4}"/>'
        yield f'<text class="tick" x="{left}" y="{_Y0 + 17}" text-anchor="middle">{number(tick)}</text>'
    yield f'<line class="axis" x1="{_X0}" x2="{_X1}" y1="{_Y0}" y2="{_Y0}"/>'
    yield f'<text class="label" x="{_X0}" y="{_HEIGHT - 6}">{escape(chart.x_label)}</text>'
    yield f'<text class="label" x="{_X0}" y="14">{escape(chart.y_label)}</text>'


def _band(chart: Chart, x: _Scale) -> Iterable[str]:
    """The interval of the capacity, and the load to rely on."""
    if chart.low is not None and chart.high is not None and chart.high > chart.low:
        left, right = x.place(max(chart.low, x.low)), x.place(chart.high)
        width, height = max(right - left, 1), _Y0 - _Y1
        yield (
            f'<rect class="interval" x="{_px(left)}" y="{_Y1}" width="{_px(width)}" height="{height}">'
            f"<title>capacity between {number(chart.low)} and {number(chart.high)}</title></rect>"
        )
    if chart.capacity is not None:
        at = x.place(chart.capacity)
        side, gap = ("end", 3) if at > (_X0 + _X1) / 2 else ("start", -3)
        yield f'<line class="capacity" x1="{_px(at)}" x2="{_px(at)}" y1="{_Y1 - 3}" y2="{_Y0}"/>'
        yield (
            f'<text class="capacity-text" x="{_px(at + gap)}" y="{_Y1 - 5}" text-anchor="{side}">'
            f"capacity {number(chart.capacity)}</text>"
        )


def _bound(chart: Chart, y: _Scale) -> Iterable[str]:
    """The line of the SLA; its value stands at the axis, where no mark can cover it."""
    at = y.place(chart.bound)
    yield f'<line class="bound" x1="{_X0}" x2="{_X1}" y1="{_px(at)}" y2="{_px(at)}"/>'
    yield _y_text(chart, chart.bound, at, "bound-text")


def _y_text(chart: Chart, value: float, at: float, kind: str) -> str:
    text = f"{number(100 * value)} %" if chart.percent else number(value)
    return f'<text class="{kind}" x="{_X0 - 7}" y="{_px(at)}" dy="0.33em" text-anchor="end">{text}</text>'


# ---- marks -----------------------------------------------------------------------------------------------------------


def _big_last(points: Sequence[Point]) -> list[Point]:
    """Judged trials on top of scouts and of what could not be used."""
    return sorted(points, key=lambda point: (not point.small, point.standing not in ("broken", "unusable")))


def _whisker(point: Point, x: _Scale, y: _Scale) -> str:
    if point.standing in ("broken", "unusable") or math.isnan(point.low) or math.isnan(point.high):
        return ""
    at, low, high = _px(x.place(point.load)), _px(y.place(point.low)), _px(y.place(point.high))
    tone = "within" if point.met else "over"
    open_end = "" if math.isfinite(point.high) else " open"
    return f'<line class="whisker {tone}{open_end}" x1="{at}" x2="{at}" y1="{low}" y2="{high}"/>'


def _mark(point: Point, x: _Scale, y: _Scale) -> str:
    """The point's shape at its place; beyond the axis it stands at the edge, with an arrow."""
    known = not math.isnan(point.value)
    at_x, at_y = _px(x.place(point.load)), _px(y.place(point.value) if known else _Y0 - 9)
    arrow = ""
    if known and point.value > y.high:
        arrow = '<path class="arrow" d="M-3.5 -8 L0 -12.5 L3.5 -8"/>'
    title = f"<title>{escape(point.words)}</title>" if point.words else ""
    return f'<g transform="translate({at_x} {at_y})">{title}{_shape(point.standing, point.met, point.small)}{arrow}</g>'


def _shape(standing: Standing, met: bool, small: bool) -> str:
    tone = "within" if met else "over"
    scale = f' transform="scale({_SMALL})"' if small else ""
    match standing:
        case "pass":
            return f'<circle class="mark within" r="4.6"{scale}/>'
        case "fail":
            return f'<path class="mark over" d="M0 -5.8 L5.8 0 L0 5.8 L-5.8 0 Z"{scale}/>'
        case "undecided":
            return f'<circle class="mark hollow {tone}" r="4.4"{scale}/>'
        case "early":
            return f'<path class="mark over" d="M0 -5.6 L5.4 4.4 L-5.4 4.4 Z"{scale}/>'
        case "unusable":
            return f'<path class="mark cross muted" d="M-4 -4 L4 4 M4 -4 L-4 4"{scale}/>'
        case "broken":
            return f'<path class="mark cross over" d="M-4 -4 L4 4 M4 -4 L-4 4"{scale}/>'


def _px(pixels: float) -> str:
    return f"{pixels:.1f}".removesuffix(".0")
