"""A whole experiment as one HTML page that needs nothing else: the answers first, then what they rest on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from importlib.resources import files

from redline import wording
from redline.experiment.redaction import redact
from redline.model import Answer, CommandWorkload, Lengths, Sla, Variable, Workload
from redline.report.answers import answers_table, evidence_words
from redline.report.data import ReportCase, ReportData
from redline.report.figures import figures
from redline.report.trials import broken, requests_of, trials_table


def render(data: ReportData) -> str:
    """The page; every text of a server, a file or a user is escaped, secrets in commands are hidden."""
    css = (files("redline.report") / "page.css").read_text()
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(data.title)} – capacity under SLA</title>",
        f"<style>\n{css}</style>",
        "</head>",
        "<body>",
        "<main>",
        *_top(data),
        *(line for number, case in enumerate(data.cases, 1) for line in _case(data, case, number)),
        *_foot(data),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


# ---- the answers -----------------------------------------------------------------------------------------------------


def _top(data: ReportData) -> Iterable[str]:
    answers = data.answers
    yield "<header>"
    yield '<p class="brand">Redline</p>'
    yield f"<h1>{escape(data.title)}</h1>"
    yield f'<p class="facts">{escape(" · ".join(_facts(data)))}</p>'
    yield "</header>"
    yield f'<p class="question">{_question(answers)}</p>'
    several = len(answers) > 1
    sentences = wording.sentences(answers)
    leads = list(_best(answers)) if several else sentences or ["Nothing was answered yet."]
    yield from (f'<p class="lead">{escape(text)}</p>' for text in leads)
    if several:
        yield '<ul class="sentences">'
        yield from (f"<li>{escape(text)}</li>" for text in sentences)
        yield "</ul>"
    if answers:
        yield answers_table(answers)
    warnings = [*data.notes, *(text for answer in answers for text in _warnings(answer, several))]
    if warnings:
        yield '<ul class="notes" aria-label="Warnings">'
        yield from (f"<li>{escape(text)}</li>" for text in warnings)
        yield "</ul>"


def _best(answers: tuple[Answer, ...]) -> Iterable[str]:
    """For each thing asked of several configurations, which carries most of it."""
    asked = dict.fromkeys((answer.workload, answer.sla, answer.variable) for answer in answers)
    for one in asked:
        alike = [answer for answer in answers if (answer.workload, answer.sla, answer.variable) == one]
        if best := wording.best_text(alike):
            about = [text for text, kinds in zip(one, zip(*asked, strict=True), strict=True) if len(set(kinds)) > 1]
            yield f"{', '.join(about)}: {best}" if about else best


def _question(answers: tuple[Answer, ...]) -> str:
    kinds = {answer.variable for answer in answers}
    load = "many requests in flight" if kinds == {"concurrency"} else "many requests per second"
    who = "each configuration" if len({answer.server for answer in answers}) > 1 else "this server"
    return f"How {load if len(kinds) == 1 else 'much load'} does {who} carry before it breaks its SLA?"


def _facts(data: ReportData) -> Iterable[str]:
    trials = data.trials
    yield data.directory
    if when := _when([trial.started for trial in trials]):
        yield when
    yield _count(len(trials), "trial")
    yield f"{sum(requests_of(trial) for trial in trials):,} requests"
    yield f"{wording.duration(sum(trial.outcome.duration_s for trial in trials))} of measurement"


def _when(started: list[str]) -> str:
    """From the first trial to the last, as far as the times can be read."""
    times = []
    for text in started:
        try:
            times.append(datetime.fromisoformat(text.replace("Z", "+00:00")))
        except ValueError:
            continue
    if not times:
        return ""
    first, last = min(times), max(times)
    if first.date() == last.date():
        return f"{first:%Y-%m-%d}, {first:%H:%M} to {last:%H:%M} UTC"
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"


def _warnings(answer: Answer, several: bool) -> Iterable[str]:
    about = f"{wording.subject_text(answer, several)}: " if several else ""
    yield from (f"{about}{warning}" for warning in answer.warnings)
    if answer.error and not wording.tells_error(answer):  # its sentence does
        yield f"{about}{answer.error.strip()}"


# ---- each case -------------------------------------------------------------------------------------------------------


def _case(data: ReportData, case: ReportCase, number: int) -> Iterable[str]:
    server, workload = case.case.server, case.case.workload
    names = [name for name in (server.name, workload.name) if name]
    yield f'<section aria-labelledby="case-{number}">'
    yield f'<h2 id="case-{number}">{escape(" · ".join(names) or "This server")}</h2>'
    command = server.command or server.start
    if command:
        yield f'<p class="command"><code>{escape(shlex.join(redact(command)))}</code></p>'
    elif server.url:
        yield f'<p class="command">Running at <code>{escape(redact(server.url))}</code></p>'
    yield f'<p class="soft small">{escape(redact(workload_text(workload)))}</p>'
    for place, sla in enumerate(case.slas, 1):
        answer = next((each for each in case.answers if each.sla == sla.name), None)
        yield from _sla(data, case, (sla, answer), f"c{number}s{place}")
    if not case.slas:
        yield '<p class="soft">No SLA was asked of it.</p>'
    yield from broken(case.trials)
    yield "</section>"


def _sla(data: ReportData, case: ReportCase, asked: tuple[Sla, Answer | None], key: str) -> Iterable[str]:
    sla, answer = asked
    by: Variable = answer.variable if answer else case.trials[0].probe.by if case.trials else "rate"
    confidence = answer.confidence if answer else data.confidence
    criteria = ", ".join(criterion.text for criterion in sla.criteria)
    yield f'<section class="sla" aria-labelledby="{key}">'
    yield f'<h3 id="{key}">{escape(sla.name)}</h3>'
    if sla.name != criteria:
        yield f'<p class="soft small"><code>{escape(criteria)}</code></p>'
    if answer:
        yield from _found(answer)
        yield from _at_capacity(answer, sla)
    else:
        yield '<p class="soft">Not answered yet.</p>'
    yield from figures(case.trials, asked, (by, confidence), key)
    yield trials_table(case.trials, sla, confidence)
    yield "</section>"


def _found(answer: Answer) -> Iterable[str]:
    """The answer in short; its sentence stands at the top of the page."""
    load = "–" if answer.capacity is None else wording.capacity_text(answer)
    facts = {
        "capacity": load,
        f"{wording.number(100 * answer.confidence)} % interval": wording.interval_text(answer),
        "evidence": answer.evidence.replace("_", " "),
        "limited by": answer.limiting or "",
        "stopped since": answer.stop_reason,
    }
    yield _values(facts)


def _at_capacity(answer: Answer, sla: Sla) -> Iterable[str]:
    """What the trial at the capacity showed: first what was promised, then how much came out."""
    names = [criterion.metric for criterion in sla.criteria]
    names += [name for name in ("request_throughput", "output_throughput") if name not in names]
    shown = {name: wording.quantity(name, answer.at_capacity[name]) for name in names if name in answer.at_capacity}
    if shown and answer.capacity is not None:
        at = f"verdict at {wording.capacity_text(answer)}"
        yield _values({at: answer.verdict_at_capacity, **shown})


def _values(facts: Mapping[str, str]) -> str:
    pairs = (f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items() if text)
    return f'<dl class="values">{"".join(pairs)}</dl>'


def workload_text(workload: Workload | CommandWorkload) -> str:
    """What was sent, in a line."""
    if isinstance(workload, CommandWorkload):
        return f"Measured by {' '.join(workload.command)} (results read as {workload.reader})"
    kind = "random tokens" if workload.prompt_kind == "tokens" else "text"
    prompt, output = _lengths(workload.prompt), _lengths(workload.output)
    replayed = f", as they came in {workload.trace.file}" if workload.trace and workload.arrivals == "trace" else ""
    if workload.dataset is not None:
        kind = f"from {workload.dataset.file}"
    return f"{workload.api}, prompts of {prompt} tokens ({kind}), answers of {output} tokens{replayed}"


def _lengths(lengths: Lengths) -> str:
    if lengths.cv == 0:
        return wording.number(lengths.mean)
    return f"{wording.number(lengths.mean)} ± {wording.number(lengths.mean * lengths.cv)}"


# ---- how to read it --------------------------------------------------------------------------------------------------


def _foot(data: ReportData) -> Iterable[str]:
    confidence = f"{wording.number(100 * data.confidence)} %"
    yield "<footer>"
    yield "<h2>How to read this</h2>"
    yield (
        "<p>Capacity is the load to rely on: the model gives at least 80 % that it meets the SLA. "
        f"The true capacity lies in the interval with {confidence} confidence. "
        "Each mark is one trial, and its line shows one-sided bounds on the metric, "
        f"each at {confidence}; they take into account that requests of one trial share a queue. "
        "A trial passes or fails only where the bounds clear the line of the SLA; "
        "with few requests it is undecided, whatever its value. "
        "Latency counts from the time a request was due, and failed requests are over every latency bound.</p>"
    )
    kinds = dict.fromkeys(answer.evidence for answer in data.answers)
    if kinds or data.environment:
        yield "<dl>"
        yield from (f"<dt>{kind}</dt><dd>{evidence_words(kind)}</dd>" for kind in kinds)
        if any(answer.quality == "aggregates" for answer in data.answers):
            yield "<dt>aggregates</dt><dd>the benchmark command left no data on single requests for some criterion</dd>"
        yield from (
            f"<dt>{escape(name)}</dt><dd>{escape(redact(text))}</dd>" for name, text in data.environment.items()
        )
        yield "</dl>"
    yield "</footer>"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
