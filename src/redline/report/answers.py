"""The answers as a table, with each interval drawn on one common scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from redline import wording
from redline.model import UNITS, Answer, EvidenceClass

_WORDS: Mapping[EvidenceClass, str] = {
    "edge": "a full trial at the capacity meets the SLA, and a trial above it does not",
    "floor": "the SLA holds at the highest load that was allowed: the capacity is at least that",
    "none": "the SLA does not hold even at the lowest load",
    "undecided": "the budget ended before the precision was reached; low and high are what is believed so far",
    "client_limited": "the load generator gave out before the server did",
    "crashed": "the server died at a load no lower than this",
    "not_started": "the configuration never became ready",
}
_SOUND = ("edge", "floor")
_BAD = ("none", "crashed", "not_started")
_SPAN = 132.0  # width of the drawn interval


def evidence_words(kind: EvidenceClass) -> str:
    return _WORDS[kind]


def answers_table(answers: Sequence[Answer]) -> str:
    """One row per answer; workload and SLA only where they differ."""
    columns = ["configuration"]
    columns += ["workload"] * (len({answer.workload for answer in answers}) > 1)
    columns += ["SLA"] * (len({answer.sla for answer in answers}) > 1)
    confidence = sorted({wording.number(100 * answer.confidence) for answer in answers})
    interval = f"{' or '.join(confidence)} % interval"
    columns += ["capacity", interval, "evidence", "limited by", "headroom", "trials", "requests", "time"]
    numeric = ("capacity", "trials", "requests", "time")
    heads = (f'<th scope="col"{_class(name in numeric)}>{name}</th>' for name in columns)
    rows = (_row(answer, answers, columns, numeric) for answer in answers)
    return "\n".join(
        [
            '<div class="scroll" role="region" tabindex="0" aria-label="Answers">',
            '<table class="answers">',
            "<caption>Capacity of each configuration</caption>",
            f"<thead><tr>{''.join(heads)}</tr></thead>",
            f"<tbody>{''.join(rows)}</tbody>",
            "</table>",
            "</div>",
        ]
    )


def _row(answer: Answer, answers: Sequence[Answer], columns: Sequence[str], numeric: Sequence[str]) -> str:
    cells = {
        "workload": escape(answer.workload),
        "SLA": escape(answer.sla),
        "capacity": _capacity(answer),
        "evidence": _evidence(answer),
        "limited by": escape(answer.limiting or ""),
        "headroom": _headroom(answer),
        "trials": f"{answer.trials}",
        "requests": f"{answer.requests:,}",
        "time": wording.duration(answer.benchmark_s),
    }
    parts = [f'<th scope="row">{escape(answer.server or "this server")}</th>']
    for name in columns[1:]:
        content = (
            cells[name] if name in cells else f"<div>{wording.interval_text(answer)}{_span(answer, answers)}</div>"
        )
        parts.append(f'<td data-label="{name}"{_class(name in numeric)}>{content}</td>')
    return f"<tr>{''.join(parts)}</tr>"


def _class(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def _capacity(answer: Answer) -> str:
    if answer.capacity is None:
        return "–"
    value = f'<span class="key">{wording.number(answer.capacity)}</span>'
    return f'<span>{value} <span class="unit">{answer.unit or UNITS[answer.variable]}</span></span>'


def _evidence(answer: Answer) -> str:
    bad = " bad" if answer.evidence in _BAD else ""
    kind = answer.evidence.replace("_", " ")
    chip = f'<span class="chip{bad}" title="{_WORDS[answer.evidence]}">{kind}</span>'
    return chip if answer.quality == "records" else f"<span>{chip} {answer.quality}</span>"


def _headroom(answer: Answer) -> str:
    """How many times the bound is above what was seen at the capacity, the tightest first."""
    texts = [
        f"{escape(criterion.split('<')[0].split('>')[0] if '(' not in criterion else criterion)} {wording.number(x)}×"
        for criterion, x in sorted(answer.headroom.items(), key=lambda item: item[1])
        if math.isfinite(x)
    ]
    return f"<span>{'<br>'.join(texts)}</span>" if texts else ""


def _span(answer: Answer, answers: Sequence[Answer]) -> str:
    """The interval and the capacity on a scale that all answers of this kind share."""
    alike = [other for other in answers if other.variable == answer.variable]
    loads = [load for other in alike for load in (other.low, other.capacity, other.high) if load]
    if not any((answer.low, answer.capacity)) or len(alike) < 2 or not loads or max(loads) <= min(loads):
        return ""
    low, high = math.log(min(loads)), math.log(max(loads))

    def x(load: float) -> str:
        return f"{6 + (_SPAN - 12) * (math.log(load) - low) / (high - low):.1f}"

    return "".join(
        [
            f'<svg class="span" viewBox="0 0 {_SPAN:g} 12" aria-hidden="true">',
            f'<line class="rail" x1="0" x2="{_SPAN:g}" y1="6" y2="6"/>',
            *_reach(answer, x),
            f'<circle class="dot" cx="{x(answer.capacity)}" cy="6" r="3.5"/>' if answer.capacity else "",
            "</svg>",
        ]
    )


def _reach(answer: Answer, x: Callable[[float], str]) -> Iterable[str]:
    if answer.low and answer.high:
        yield f'<line class="reach" x1="{x(answer.low)}" x2="{x(answer.high)}" y1="6" y2="6"/>'
    elif answer.low:
        yield f'<line class="reach" x1="{x(answer.low)}" x2="{_SPAN:g}" y1="6" y2="6"/>'
