"""Reports of `inference-perf`: stage_N_lifecycle_metrics.json with totals, per_request_lifecycle_metrics.json."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np

from redline.bench.parts import Part, object_in
from redline.bench.reading import Reading, ResultError
from redline.bench.requests import Asked, Request, failure, reading_of, totals
from redline.records import Status

_CLIENT = "inference-perf"
_REQUESTS = "per_request_lifecycle_metrics.json"
_STAGE = re.compile(r"stage_\d+_lifecycle_metrics\.json")
_LATENCIES = {
    "ttft": "time_to_first_token",
    "tpot": "time_per_output_token",
    "itl": "inter_token_latency",
    "e2el": "request_latency",
}
_THROUGHPUTS = {
    "request_throughput": "requests_per_sec",
    "output_throughput": "output_tokens_per_sec",
    "total_token_throughput": "total_tokens_per_sec",
}
_PERCENTILE = re.compile(r"p\d+(?:\.\d+)?|mean|median")


def read_inference_perf(path: Path) -> tuple[Reading, ...]:
    """The stages of a report's folder, or those of one of its files.

    The requests of several stages are not told apart in the file, so that each stage is then known by its totals.
    Requests have no time of a schedule: latency counts from the send.
    """
    stages, requests = files_of(path)
    found = [object_in(stage, _CLIENT) for stage in stages]
    if requests is not None and len(found) <= 1:
        return (_requests(requests, _asked(found[0]) if found else Asked()),)
    return tuple(_totals(stage) for stage in found)


def files_of(path: Path) -> tuple[list[Path], Path | None]:
    """The files of the stages, in their order, and that of the requests."""
    if not path.is_dir():
        return ([], path) if _is_list(path) else ([path], None)
    names = (file for file in path.iterdir() if _STAGE.search(file.name))
    stages = sorted(names, key=lambda file: int(file.name.split("stage_")[-1].split("_")[0]))
    requests = next(iter(sorted(path.glob(f"*{_REQUESTS}"))), None)
    if not stages and requests is None:
        raise ResultError(f"{path}: holds no stage_0_lifecycle_metrics.json; is it the report's folder?")
    return stages, requests


def _is_list(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(64).lstrip().startswith("[")
    except (OSError, UnicodeDecodeError):
        return False  # who reads it complains


def _asked(stage: Part) -> Asked:
    load = stage.part("load_summary")
    users = load.number("concurrency")
    if users is not None:
        return Asked(concurrency=int(users))
    return Asked(rate=load.number("requested_rate"))


def _requests(path: Path, asked: Asked) -> Reading:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path}: no complete JSON ({error}); did {_CLIENT} run to its end?") from error
    entries = Part(data={"requests": rows}, where=str(path), client=_CLIENT).parts("requests")
    found = [_request(entry) for entry in entries]
    return reading_of(found, asked, str(path), has_gaps=any(len(request.gaps_s) for request in found))


def _request(entry: Part) -> Request:
    sent_s, end_s = entry.required("start_time"), entry.required("end_time")
    if entry.data.get("error") is not None:
        error = entry.part("error").text("error_type") or "failed"
        return Request(due_s=sent_s, sent_s=sent_s, end_s=end_s, status=failure(error), error=error)
    if "info" not in entry.data:
        return Request(due_s=sent_s, sent_s=sent_s, end_s=end_s)
    info = entry.part("info")
    response = info.maybe("response_metrics")
    usage = response.maybe("server_usage")
    events_s = np.unique(response.numbers("output_token_times"))  # the tokens of one event have its time
    tokens = usage.number("completion_tokens")
    return Request(
        due_s=sent_s,
        sent_s=sent_s,
        first_s=float(events_s[0]) if len(events_s) else math.nan,
        end_s=float(events_s[-1]) if len(events_s) else end_s,
        tokens_in=int(info.maybe("request_metrics").maybe("text").number("input_tokens") or 0),
        tokens_out=int(response.number("output_tokens") or 0) if tokens is None else int(tokens),
        status=Status.OK,
        gaps_s=np.diff(events_s),
    )


def _totals(stage: Part) -> Reading:
    asked, good, bad = _asked(stage), stage.part("successes"), stage.part("failures")
    completed, failed = good.count("count"), bad.count("count")
    if completed + failed == 0:
        raise ResultError(f"{stage.where}: counts no requests; did {_CLIENT} run to its end?")
    values: dict[str, float | None] = {}
    for ours, theirs in _LATENCIES.items() if completed else ():
        spread = good.part("latency").maybe(theirs)
        for key in filter(_PERCENTILE.fullmatch, spread.data):
            value = spread.number(key)
            values[f"{'p50' if key == 'median' else key}_{ours}_ms"] = None if value is None else value * 1e3
    rates = good.maybe("throughput")
    values |= {ours: rates.number(theirs) for ours, theirs in _THROUGHPUTS.items()}
    sending_s = stage.part("load_summary").number("send_duration")
    return Reading(
        completed=completed,
        failed=failed,
        duration_s=stage.required("benchmark_time_seconds"),
        aggregates=totals(values, completed, failed),
        asked_rate=asked.rate,
        asked_concurrency=asked.concurrency,
        sending_s=sending_s,
    )
