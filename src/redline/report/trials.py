"""The trials of one SLA as a table, and what the broken ones left in their logs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from redline import wording
from redline.experiment.redaction import redact
from redline.model import Failed, Invalid, Measured, Sla, Trial
from redline.sla import met
from redline.stored import values
from redline.verdict import judge, summary, usable


def trials_table(trials: Sequence[Trial], sla: Sla, confidence: float) -> str:
    """Every trial in the order measured, seen through this SLA."""
    if not trials:
        return '<p class="soft small">No trials yet.</p>'
    metrics = [criterion.metric for criterion in sla.criteria]
    extra = [] if "request_throughput" in metrics else ["request_throughput"]
    heads = ["load", "requests", "duration", *metrics, *extra]
    return "\n".join(
        [
            '<div class="scroll" role="region" tabindex="0" aria-label="Trials">',
            '<table class="trials">',
            f"<caption>Trials, as {escape(sla.name)} sees them</caption>",
            '<thead><tr><th scope="col">trial</th><th scope="col">kind</th>',
            *(f'<th scope="col" class="n">{_breakable(name)}</th>' for name in heads),
            '<th scope="col">verdict</th><th scope="col">outcome</th></tr></thead>',
            "<tbody>",
            *(_row(trial, sla, confidence, extra) for trial in trials),
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def _row(trial: Trial, sla: Sla, confidence: float, extra: Sequence[str]) -> str:
    outcome = trial.outcome
    seen = values(trial, sla)
    stats = {criterion.metric: seen.get(criterion.metric, math.nan) for criterion in sla.criteria}
    good, why = usable(trial, sla)
    _, words = wording.outcome_text(trial, sla, seen)
    if isinstance(outcome, Measured) and not good:
        words = f"not usable: {why}"
    further = summary(outcome) if isinstance(outcome, Measured) else {}
    judged = good and trial.probe.kind != "scout"  # a quick look only sets the range
    cells = [
        f'<th scope="row">{escape(wording.trial_number(trial.id))}</th>',
        f"<td>{trial.probe.kind}</td>",
        f'<td class="n">{wording.number(trial.probe.load)}</td>',
        f'<td class="n">{requests_of(trial):,}</td>',
        f'<td class="n">{wording.duration(outcome.duration_s)}</td>',
        *(_value(c.metric, stats[c.metric], not met(c, stats[c.metric])) for c in sla.criteria),
        *(_value(name, further.get(name, math.nan), False) for name in extra),
        f"<td>{judge(trial, sla, confidence).verdict if judged else '–'}</td>",
        f"<td>{escape(redact(words))}</td>",
    ]
    tag = "<tr>" if good else '<tr class="idle">'
    return f"{tag}{''.join(cells)}</tr>"


def _breakable(name: str) -> str:
    """A metric's name that may be broken after an underscore."""
    return escape(name).replace("_", "_<wbr>")


def _value(metric: str, stat: float, over: bool) -> str:
    if math.isnan(stat):
        return '<td class="n">–</td>'
    text = wording.quantity(metric, stat) if math.isfinite(stat) else "∞"
    return f'<td class="n{" over" if over else ""}">{text}</td>'


def requests_of(trial: Trial) -> int:
    """How many requests the trial sent, as far as it says."""
    outcome = trial.outcome
    if not isinstance(outcome, Measured):
        return 0
    return len(outcome.records) if outcome.records is not None else outcome.client.sent


def broken(trials: Sequence[Trial]) -> Iterable[str]:
    """What failed and invalid trials said, log included, folded away."""
    for trial in trials:
        outcome = trial.outcome
        if not isinstance(outcome, Failed | Invalid):
            continue
        tail = outcome.log_tail if isinstance(outcome, Failed) else outcome.cure
        load = wording.load_text(trial.probe.load, trial.probe.by)
        what = "the server died" if isinstance(outcome, Failed) and outcome.server_died else "broke"
        what = "not usable" if isinstance(outcome, Invalid) else what
        yield f"<details><summary>Trial {escape(wording.trial_number(trial.id))} at {load}: {what}</summary>"
        yield f"<pre>{escape(redact(outcome.reason.strip()))}"
        yield f"\n{escape(redact(tail.strip()))}</pre></details>" if tail.strip() else "</pre></details>"
