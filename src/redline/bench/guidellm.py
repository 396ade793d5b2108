"""Reports of `guidellm run --output kind=json`: every request, or the distributions where only a sample was kept."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from redline.bench.parts import Part, object_in
from redline.bench.reading import Reading, ResultError
from redline.bench.requests import Asked, Request, failure, reading_of, totals
from redline.records import Status

_CLIENT = "guidellm"
_LATENCIES = {  # ours -> theirs, and how many ms one of theirs has
    "ttft": ("time_to_first_token_ms", 1.0),
    "tpot": ("inter_token_latency_ms", 1.0),  # its own time_per_output_token counts the first token in
    "e2el": ("request_latency", 1e3),
}
_QUANTILES = {"p50": "p50", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999"}


def read_guidellm(path: Path) -> tuple[Reading, ...]:
    """Each benchmark of the report.

    A request's end is its last token, as in guidellm's time per token; its request_latency ends with the connection.
    In open loop latency counts from the time of the schedule, in closed loop from the send. It keeps no single gaps.
    """
    benchmarks = object_in(path, _CLIENT).parts("benchmarks")
    if not benchmarks:
        raise ResultError(f"{path}: holds no benchmark; did guidellm run to its end?")
    return tuple(_benchmark(benchmark) for benchmark in benchmarks)


def _benchmark(benchmark: Part) -> Reading:
    config = benchmark.part("config")
    asked = _asked(config.part("strategy"), config.maybe("backend").text("model"))
    requests, made = benchmark.part("requests"), benchmark.part("metrics").part("request_totals")
    kept = [(kind, request) for kind in ("successful", "errored", "incomplete") for request in requests.parts(kind)]
    if made.count("total") == 0:
        raise ResultError(f"{benchmark.where}: guidellm made no request")
    if len(kept) != made.count("total"):
        return _totals(benchmark, made, asked)
    if asked.rate is not None:
        _refuse_early_schedule(benchmark, kept)
    return reading_of(list(_requests(kept, asked.rate is not None)), asked, benchmark.where, has_gaps=False)


def _asked(strategy: Part, model: str) -> Asked:
    kind = strategy.text("type_")
    if kind in ("constant", "poisson"):
        return Asked(rate=strategy.required("rate"), exact_rate=kind == "constant", model=model)
    if kind == "concurrent":
        return Asked(concurrency=strategy.count("streams"), model=model)
    return Asked(concurrency=1 if kind == "synchronous" else None, model=model)


def _refuse_early_schedule(benchmark: Part, kept: list[tuple[str, Part]]) -> None:
    """guidellm's poisson workers may begin before its clock is set: such requests were due in 1970."""
    start_s = benchmark.part("scheduler_metrics").required("start_time")
    due_s = [request.part("info").part("timings").data.get("targeted_start") for _, request in kept]
    early = sum(isinstance(due, int | float) and due < start_s - 1 for due in due_s)
    if early:
        raise ResultError(
            f"{benchmark.where}: guidellm planned {early} of {len(kept)} requests for a time before its start, and "
            "sent them off schedule; run it again, or use its kind=constant"
        )


def _requests(kept: list[tuple[str, Part]], open_loop: bool) -> Iterator[Request]:
    for kind, request in kept:
        info = request.part("info")
        times = info.part("timings")
        if times.number("request_start") is None and kind == "incomplete":
            continue  # never sent
        sent_s = times.required("request_start") if kind != "errored" else _first(times, "request_start", "finalized")
        due_s = times.number("targeted_start") if open_loop else None
        due_s = sent_s if due_s is None else due_s
        if kind == "incomplete":
            yield Request(due_s=due_s, sent_s=sent_s, first_s=_first_token(times), status=Status.RUNNING)
            continue
        error = re.split(r" for url |\\n|\n", info.text("error"))[0]
        ok = kind == "successful"
        yield Request(
            due_s=due_s,
            sent_s=sent_s,
            first_s=_first_token(times),
            end_s=_first(times, *(("last_token_iteration",) if ok else ()), "request_end", "resolve_end", "finalized"),
            tokens_in=int(request.number("prompt_tokens") or 0),
            tokens_out=int(request.number("output_tokens") or 0),
            status=Status.OK if ok else failure(error),
            error="" if ok else error or "failed",
        )


def _first_token(times: Part) -> float:
    first_s = times.number("first_token_iteration")
    return math.nan if first_s is None else first_s


def _first(times: Part, *keys: str) -> float:
    """The first of these that is there; the last one must be."""
    for key in keys[:-1]:
        if (value := times.number(key)) is not None:
            return value
    return times.required(keys[-1])


def _totals(benchmark: Part, made: Part, asked: Asked) -> Reading:
    """What the distributions say, which weight the time per token by tokens, where each request counts once here."""
    metrics, duration_s = benchmark.part("metrics"), benchmark.required("duration")
    completed, failed = made.count("successful"), made.count("errored")
    found: dict[str, float | None] = {}
    for ours, (theirs, ms) in _LATENCIES.items() if completed else ():
        spread = metrics.part(theirs).part("successful")
        if not spread.number("count"):
            continue
        quantiles = spread.part("percentiles")
        values = {"mean": spread.number("mean")} | {p: quantiles.number(key) for p, key in _QUANTILES.items()}
        found |= {f"{p}_{ours}_ms": None if value is None else value * ms for p, value in values.items()}
    if duration_s > 0:
        found["request_throughput"] = completed / duration_s
        for name, key in (("output_throughput", "output_token_count"), ("total_token_throughput", "total_token_count")):
            tokens = metrics.part(key).part("successful").number("total_sum")
            found[name] = None if tokens is None else tokens / duration_s
    return Reading(
        completed=completed,
        failed=failed,
        unfinished=made.count("incomplete"),
        duration_s=duration_s,
        aggregates=totals(found, completed, failed),
        asked_rate=asked.rate,
        exact_rate=asked.exact_rate,
        asked_concurrency=asked.concurrency,
        model=asked.model,
    )
