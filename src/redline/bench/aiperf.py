"""Results of `aiperf profile`: profile_export.jsonl holds every request, profile_export_aiperf.json the totals."""

from __future__ import annotations

import math
from pathlib import Path

from redline.bench.parts import Part, first_line, lines_in, object_in
from redline.bench.reading import Reading, ResultError
from redline.bench.requests import Asked, Request, failure, reading_of, totals
from redline.records import Status

_CLIENT = "aiperf"
_LATENCIES = {
    "ttft": "time_to_first_token",
    "tpot": "inter_token_latency",  # (latency - TTFT) / (tokens - 1): its name for what vLLM calls TPOT
    "itl": "inter_chunk_latency",
    "e2el": "request_latency",
}
_THROUGHPUTS = {
    "request_throughput": "request_throughput",
    "output_throughput": "output_token_throughput",
    "total_token_throughput": "total_token_throughput",
}
_MS = {"ms": 1.0, "sec": 1e3, "s": 1e3, "us": 1e-3, "ns": 1e-6}
_TOTALS, _REQUESTS = "profile_export_aiperf.json", "profile_export.jsonl"


def read_aiperf(path: Path) -> tuple[Reading, ...]:
    """A run by its folder or by one of its two files; the other one, where it stands beside it, is read too.

    In open loop latency counts from the moment the request was due: when aiperf issued its credit. Tokens are those
    that the server counted, else what aiperf's tokenizer counts.
    """
    requests, summary = files_of(path)
    found = object_in(summary, _CLIENT) if summary else None
    if found is not None:
        _refuse_unfinished(found)
    asked = _asked(found) if found is not None else Asked()
    if requests is None:
        assert found is not None
        return (_totals(found, asked),)
    reading = reading_of(_requests(requests, asked.rate is not None), asked, str(requests), has_gaps=True)
    if found is not None and (counted := sum(_counts(found))) > reading.requests:
        raise ResultError(f"{requests}: holds {reading.requests} requests, but {summary} counts {counted}")
    return (reading,)


def files_of(path: Path) -> tuple[Path | None, Path | None]:
    """The file of the requests and that of the totals, of which at least one is there."""
    if path.is_dir():
        found = path / _REQUESTS, path / _TOTALS
        if not any(file.is_file() for file in found):
            raise ResultError(f"{path}: holds neither {_REQUESTS} nor {_TOTALS}; is it the --artifact-dir of aiperf?")
        return tuple(file if file.is_file() else None for file in found)  # type: ignore[return-value]  # two of them
    if "metadata" in first_line(path):
        names = (f"{path.stem}_aiperf.json", f"{path.stem}.json")
        return path, next((file for name in names if (file := path.with_name(name)).is_file()), None)
    lines = path.with_name(f"{path.stem.removesuffix('_aiperf')}.jsonl")
    return (lines if lines.is_file() and "metadata" in first_line(lines) else None), path


def _refuse_unfinished(found: Part) -> None:
    if found.data.get("was_cancelled") or found.data.get("is_complete") is False:
        raise ResultError(f"{found.where}: aiperf was stopped before its end; run it again")
    found.part("input_config")


def _asked(found: Part) -> Asked:
    config = found.part("input_config")
    phases = [phase for phase in config.parts("phases") if phase.text("kind") == "profiling"]
    if len(phases) != 1:
        raise ResultError(f"{found.where}: holds {len(phases)} profiling phases; give it one, so that it has one load")
    models = config.maybe("models").data.get("items")
    model = str(models[0].get("name", "")) if isinstance(models, list) and models else ""
    rate, limit = phases[0].number("rate"), phases[0].number("concurrency")
    users = None if limit is None else int(limit)
    return Asked(rate=rate, exact_rate=phases[0].text("type") == "constant", concurrency=users, model=model)


def _requests(path: Path, open_loop: bool) -> list[Request]:
    lines = [line for line in lines_in(path, _CLIENT) if line.part("metadata").text("benchmark_phase") != "warmup"]
    return [_request(line, open_loop) for line in lines]


def _request(line: Part, open_loop: bool) -> Request:
    times, metrics = line.part("metadata"), line.maybe("metrics")
    sent_s = times.required("request_start_ns") / 1e9
    due_ns = times.number("credit_issued_ns") if open_loop else None
    due_s = sent_s if due_ns is None else due_ns / 1e9
    ttft_s = _seconds(metrics, "time_to_first_token")
    first_s = math.nan if ttft_s is None else sent_s + ttft_s
    if times.data.get("was_cancelled"):
        return Request(due_s=due_s, sent_s=sent_s, first_s=first_s, status=Status.RUNNING)
    error = line.data.get("error")
    if error is not None:
        told = line.part("error")
        text = " ".join(part for part in (told.text("code"), told.text("type")) if part)
        end_s = times.required("request_end_ns") / 1e9
        return Request(
            due_s=due_s, sent_s=sent_s, first_s=first_s, end_s=end_s, status=failure(text), error=text or "failed"
        )
    lasted_s = _seconds(metrics, "request_latency")
    if lasted_s is None:
        raise ResultError(f"{line.where}: has neither a request_latency nor an error; is it a complete result?")
    return Request(
        due_s=due_s,
        sent_s=sent_s,
        first_s=first_s,
        end_s=sent_s + lasted_s,
        tokens_in=_tokens(metrics, "usage_prompt_tokens", "input_sequence_length"),
        tokens_out=_tokens(metrics, "usage_completion_tokens", "output_sequence_length"),
        gaps_s=metrics.maybe("inter_chunk_latency").numbers("value") * _unit_ms(metrics, "inter_chunk_latency") / 1e3,
    )


def _seconds(metrics: Part, key: str) -> float | None:
    value = metrics.maybe(key).number("value")
    return None if value is None else value * _unit_ms(metrics, key) / 1e3


def _unit_ms(metrics: Part, key: str) -> float:
    entry = metrics.maybe(key)
    unit = entry.text("unit") or "ms"
    if unit not in _MS:
        raise ResultError(f"{entry.where}: its unit {unit!r} is none of {', '.join(_MS)}")
    return _MS[unit]


def _tokens(metrics: Part, *keys: str) -> int:
    counts = (metrics.maybe(key).number("value") for key in keys)
    return int(next((count for count in counts if count is not None), 0))


def _counts(found: Part) -> tuple[int, int]:
    """Completed and failed requests; the second key is there only where some failed."""
    return tuple(int(found.maybe(key).number("avg") or 0) for key in ("request_count", "error_request_count"))  # type: ignore[return-value]  # two of them


def _totals(found: Part, asked: Asked) -> Reading:
    completed, failed = _counts(found)
    if completed + failed == 0:
        raise ResultError(f"{found.where}: counts no requests; is it a complete result of {_CLIENT}?")
    values: dict[str, float | None] = {}
    for ours, theirs in _LATENCIES.items() if completed else ():
        entry = found.maybe(theirs)
        ms = _unit_ms(found, theirs)
        for name, key in {"mean": "avg", **{p: p for p in ("p50", "p75", "p90", "p95", "p99")}}.items():
            value = entry.number(key)
            values[f"{name}_{ours}_ms"] = None if value is None else value * ms
    values |= {ours: found.maybe(theirs).number("avg") for ours, theirs in _THROUGHPUTS.items()}
    return Reading(
        completed=completed,
        failed=failed,
        duration_s=found.part("benchmark_duration").required("avg"),
        aggregates=totals(values, completed, failed),
        asked_rate=asked.rate,
        exact_rate=asked.exact_rate,
        asked_concurrency=asked.concurrency,
        model=asked.model,
    )
