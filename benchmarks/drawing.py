"""Small SVG figures: a canvas with panels, readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH = 640
_STYLE = """
svg{--paper:#fff;--ink:#1b1d20;--soft:#5d636b;--line:#cfd1cd;--grid:#ecece9;--band:#dfe5ee;--good:#2f6f9f;--bad:#b8322a}
@media (prefers-color-scheme:dark){svg{--paper:#15171a;--ink:#e7e8ea;--soft:#a3a9b1;--line:#474c54;--grid:#24272c;
--band:#2b3543;--good:#6fb1e0;--bad:#f0776b}}
text{font:11.5px system-ui,"Segoe UI",Helvetica,Arial,sans-serif;fill:var(--soft)}
.head{fill:var(--ink);font-weight:600}.ink{stroke:var(--ink);fill:none}.soft{stroke:var(--soft);fill:none}
.good{stroke:var(--good);fill:none}.bad{stroke:var(--bad);fill:none}.axis{stroke:var(--line)}.grid{stroke:var(--grid)}
.full{stroke:none}.good.full{fill:var(--good)}.bad.full{fill:var(--bad)}.soft.full{fill:var(--soft)}
.ink.full{fill:var(--ink)}.band{fill:var(--band)}.dash{stroke-dasharray:5 4}
.truth{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:6 4}
text.ink{fill:var(--ink);stroke:none}
"""
_SHAPES = {
    "disc": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
    "diamond": "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    "triangle": "M0 -5.2L5 4L-5 4Z",
    "dot": "M-1.5 0a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0 -3 0Z",
    "ring": "M-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0 -5.2 0Z",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A rectangle of the canvas with linear axes; what lies outside is drawn at its edge."""

    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[str, str]:
        return self.at_x(x), self.at_y(y)

    def at_x(self, x: float) -> str:
        return _px(self.left + _share(x, self.x) * (self.right - self.left))

    def at_y(self, y: float) -> str:
        return _px(self.bottom - _share(y, self.y) * (self.bottom - self.top))


def figure(title: str, caption: str, height: int, parts: Iterable[str]) -> str:
    """The whole file; the caption is its description, for those who do not see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="t d">\n<title id="t">{escape(title)}</title>\n'
        f'<desc id="d">{escape(caption)}</desc>\n<style>{_STYLE}</style>\n'
        f'<rect width="{WIDTH}" height="{height}" rx="6" style="fill:var(--paper)"/>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def axes(panel: Panel, x_label: str, y_label: str, *, x_ticks: int = 6, y_ticks: int = 5) -> list[str]:
    """Grid, ticks and labels. No ticks where their number is 0."""
    parts = []
    for tick in round_ticks(*panel.y, y_ticks):
        at = panel.at_y(tick)
        parts.append(f'<path class="grid" d="M{_px(panel.left)} {at}H{_px(panel.right)}"/>')
        parts.append(text(_px(panel.left - 6), at, f"{tick:g}", anchor="end", extra=' dy=".35em"'))
    for tick in round_ticks(*panel.x, x_ticks):
        at = panel.at_x(tick)
        parts.append(f'<path class="axis" d="M{at} {_px(panel.bottom)}v4"/>')
        parts.append(text(at, _px(panel.bottom + 17), f"{tick:g}", anchor="middle"))
    parts.append(f'<path class="axis" d="M{_px(panel.left)} {_px(panel.bottom)}H{_px(panel.right)}"/>')
    parts.append(text(_px(panel.right), _px(panel.bottom + 33), x_label, anchor="end"))
    parts.append(text(_px(panel.left - 30 * (y_ticks > 0)), _px(panel.top - 12), y_label, kind="head"))
    return parts


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, at most so many."""
    if most < 1 or not high > low:
        return []
    step = 10 ** math.floor(math.log10((high - low) / most))
    step = next(s for s in (step, 2 * step, 5 * step, 10 * step, 20 * step) if (high - low) / s <= most)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def line(panel: Panel, xs: Sequence[float], ys: Sequence[float], kind: str, width: float = 1.5) -> str:
    points = " ".join(",".join(panel.at(x, y)) for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="{kind}" stroke-width="{width:g}" points="{points}"/>'


def band(panel: Panel, xs: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str = "band") -> str:
    """The area between two lines."""
    there = [panel.at(x, y) for x, y in zip(xs, low, strict=True)]
    back = [panel.at(x, y) for x, y in zip(xs, high, strict=True)][::-1]
    return f'<polygon class="{kind}" points="{" ".join(",".join(p) for p in there + back)}"/>'


def marks(panel: Panel, xs: Sequence[float], ys: Sequence[float], shape: str, kind: str) -> str:
    """One shape at many places."""
    places = (panel.at(x, y) for x, y in zip(xs, ys, strict=True))
    each = "".join(f'<path d="{_SHAPES[shape]}" transform="translate({x} {y})"/>' for x, y in places)
    return f'<g class="{kind}">{each}</g>'


def dots(panel: Panel, xs: Sequence[float], ys: Sequence[float], kind: str) -> str:
    """Many small dots, in few bytes."""
    path = "".join(f"M{x} {y}h.1" for x, y in (panel.at(x, y) for x, y in zip(xs, ys, strict=True)))
    return f'<path class="{kind}" stroke-width="2.6" stroke-linecap="round" d="{path}"/>'


def bars(
    panel: Panel, xs: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str, width: float
) -> str:
    """Upright strokes from low to high."""
    ends = (f"M{panel.at_x(x)} {panel.at_y(a)}V{panel.at_y(b)}" for x, a, b in zip(xs, low, high, strict=True))
    return f'<path class="{kind}" stroke-width="{width:g}" d="{"".join(ends)}"/>'


def level(panel: Panel, y: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{_px(panel.left)} {panel.at_y(y)}H{_px(panel.right)}"/>'


def text(x: str, y: str, words: str, *, kind: str = "", anchor: str = "start", extra: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    anchor = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text{kind} x="{x}" y="{y}"{anchor}{extra}>{escape(words, quote=False)}</text>'


def legend(x: float, y: float, entries: Sequence[tuple[str, str, str]]) -> list[str]:
    """Shape, class and words, side by side; a shape that is no mark is drawn as a short line."""
    parts = []
    for shape, kind, words in entries:
        if shape in _SHAPES:
            parts.append(
                f'<path class="{kind}" d="{_SHAPES[shape]}" transform="translate({_px(x + 6)} {_px(y - 4)})"/>'
            )
        elif shape == "box":
            parts.append(f'<rect class="{kind}" x="{_px(x)}" y="{_px(y - 9)}" width="12" height="10"/>')
        else:
            parts.append(f'<path class="{kind}" stroke-width="2" d="M{_px(x)} {_px(y - 4)}h13"/>')
        parts.append(text(_px(x + 17), _px(y), words))
        x += 17 + 5.9 * len(words) + 16
    return parts


def _share(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return float(np.clip((value - low) / (high - low), 0, 1))


def _px(pixels: float) -> str:
    return f"{pixels:.1f}".removesuffix(".0")
