"""Results of `vllm bench serve`, plain or with --save-detailed."""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redline.bench.checked import count, floats, json_object, lists, number, required
from redline.bench.parts import first_line, lines_in
from redline.bench.reading import Reading, ResultError
from redline.bench.requests import totals
from redline.records import Floats, Records, Status

_LATENCY = re.compile(r"(?:mean|median|p\d+(?:\.\d+)?)_(?:ttft|tpot|itl|e2el)_ms")
_CLIENT = "vllm bench serve"
_THROUGHPUTS = ("request_throughput", "output_throughput", "total_token_throughput")


def read_vllm(path: Path) -> tuple[Reading, ...]:
    """Each run of a result of `vllm bench serve`: --save-result leaves one, --append-result adds a line for each.

    vLLM counts TTFT and E2EL from the moment a request is sent, its TTFT ends at the first event even if that holds no
    text, and its percentiles are over successful requests. In open loop under --max-concurrency a request can wait in
    the client before it is sent; `queue_times` (0.32 and later) tell how long, and that wait counts here.
    """
    try:
        data = json_object(path)
    except ResultError:
        if not first_line(path):
            raise
        return tuple(_run(line.data, line.where) for line in lines_in(path, _CLIENT))
    return (_run(data, path),)


def _run(data: Mapping[str, object], path: Path | str) -> Reading:
    if "mean_e2e_latency_ms" in data:
        raise ResultError(f'{path}: is a result of sglang.bench_serving; say reader = "sglang"')
    return result_of(data, path)


def result_of(data: Mapping[str, object], path: Path | str) -> Reading:
    """The run that these keys of vLLM's describe; `path` is for complaints."""
    completed = count(data, "completed", path)
    failed = _failed(data, completed, path)
    duration_s = required(data, "duration", path)
    if (failed or 0) < 0 or completed + (failed or 0) == 0:
        raise ResultError(f"{path}: {completed} completed and {failed} failed requests")
    columns = _columns(data, completed + (failed or 0), path)
    rate = math.inf if data.get("request_rate") == "inf" else number(data, "request_rate", path)
    limit = number(data, "max_concurrency", path)
    users = int(limit) if limit is not None else None
    detailed = columns.ttft_s is not None
    records = _records(columns, duration_s, rate, users) if columns.e2e_s is not None else None
    if records is not None and int(records.broken.sum()) != (failed or 0):
        marked = int(records.broken.sum())
        raise ResultError(f"{path}: failed is {failed}, but {marked} of its requests are marked as failed")
    if records is not None and not detailed and completed:
        records = _with_mean_tokens(records, data, completed, path)
    return Reading(
        completed=completed,
        failed=failed,
        duration_s=duration_s,
        records=records,
        aggregates={} if detailed and records is not None else _aggregates(data, completed, failed, path),
        asked_rate=rate,
        exact_rate="latencies" in data and "redline" not in data,  # vLLM since then scales the gaps to that sum
        asked_concurrency=users,
        sending_s=_sending_s(columns, duration_s),
        in_flight_max=_in_flight_max(columns, data, failed or 0, path),
        errors=Counter(error for error in columns.errors if error),
        model=str(data.get("model_id") or ""),
    )


def _failed(data: Mapping[str, object], completed: int, path: Path | str) -> int | None:
    """How many failed; None where nothing tells, which is not the same as none."""
    if data.get("failed") is not None:
        return count(data, "failed", path)
    return count(data, "num_prompts", path) - completed if data.get("num_prompts") is not None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """The per-request lists of a vLLM result, checked; None where the file lacks them."""

    n: int
    e2e_s: Floats | None  # 0: failed
    ttft_s: Floats | None
    start_s: Floats | None  # since the first send
    queued_s: Floats | None
    itls_s: Sequence[Sequence[float]]
    tokens_in: NDArray[np.int32]
    tokens_out: NDArray[np.int32]
    errors: Sequence[str]


def _columns(data: Mapping[str, object], n: int, path: Path | str) -> _Columns:
    ttft_s = floats(data, "ttfts", n, path)
    itls_s = lists(data, "itls", n, path)
    e2e_s = floats(data, "latencies", n, path)
    errors = data.get("errors") or []
    if not isinstance(errors, list) or len(errors) not in (0, n):
        raise ResultError(f"{path}: errors is no list of {n} texts, one for each request")
    errors = [str(error) if error else "" for error in errors]
    if e2e_s is None and ttft_s is not None and itls_s is not None:  # before 0.32
        e2e_s = ttft_s + np.array([math.fsum(gaps) for gaps in itls_s])
    if e2e_s is not None and errors:
        e2e_s = np.where(np.array([bool(error) for error in errors]), 0.0, e2e_s)
    start_s = floats(data, "start_times", n, path)
    zeros = np.zeros(n)
    return _Columns(
        n=n,
        e2e_s=e2e_s,
        ttft_s=ttft_s,
        start_s=None if start_s is None else start_s - start_s.min(),
        queued_s=floats(data, "queue_times", n, path),
        itls_s=itls_s or [],
        tokens_in=_or(floats(data, "input_lens", n, path), zeros).astype(np.int32),
        tokens_out=_or(floats(data, "output_lens", n, path), zeros).astype(np.int32),
        errors=errors,
    )


def _records(columns: _Columns, duration_s: float, rate: float | None, users: int | None) -> Records:
    """Every request; where the file has no send times they are rebuilt, while order and latencies stay exact.

    A failed request ends when it was sent: the file does not say when it failed.
    """
    assert columns.e2e_s is not None
    e2e_s = columns.e2e_s
    closed = rate is None or math.isinf(rate)
    if columns.start_s is not None:
        sent_s = columns.start_s
    elif closed:
        sent_s = _sends_of_users(e2e_s, users or columns.n)
    else:
        sent_s = np.linspace(0.0, max(duration_s - float(e2e_s[-1]), 0.0), columns.n)
    waited_s = np.zeros(columns.n) if closed or columns.queued_s is None else columns.queued_s
    ttft_s = np.full(columns.n, np.nan) if columns.ttft_s is None else columns.ttft_s
    order = np.argsort(sent_s - waited_s, kind="stable")
    gaps = [columns.itls_s[i] for i in order] if columns.itls_s else []
    gaps_us = np.rint(np.fromiter(chain.from_iterable(gaps), np.float64) * 1e6)
    shift_s = float((sent_s - waited_s).min())  # times start at the first request
    end_s = sent_s + e2e_s
    return Records(
        observed_s=max(duration_s, float(end_s.max()) - shift_s),
        scheduled_s=(sent_s - waited_s - shift_s)[order],
        sent_s=(sent_s - shift_s)[order],
        first_s=np.where(ttft_s > 0, sent_s + ttft_s - shift_s, np.nan)[order],
        end_s=(end_s - shift_s)[order],
        tokens_in=columns.tokens_in[order],
        tokens_out=columns.tokens_out[order],
        tokens_asked=columns.tokens_out[order],
        status=np.where(e2e_s > 0, Status.OK, Status.FAILED).astype(np.uint8)[order],
        gaps_us=np.clip(gaps_us, 0, np.iinfo(np.int32).max).astype(np.int32),
        gap_offsets=np.cumsum([0, *map(len, gaps)]) if gaps else np.zeros(0, np.int64),
    )


def _sends_of_users(e2e_s: Floats, users: int) -> Floats:
    """When each request was sent if `users` send the next one as soon as the last one ended."""
    free_s = [0.0] * min(users, len(e2e_s))
    sent_s = np.empty(len(e2e_s))
    for i, latency_s in enumerate(e2e_s):
        sent_s[i] = heapq.heappop(free_s)
        heapq.heappush(free_s, sent_s[i] + latency_s)
    return sent_s


def _with_mean_tokens(records: Records, data: Mapping[str, object], completed: int, path: Path | str) -> Records:
    """Give each finished request the run's mean token counts, so that totals are right where no lengths are known."""
    ok = records.ok

    def each(key: str) -> NDArray[np.int32]:
        total = count(data, key, path) if key in data else 0
        share = np.zeros(len(records), np.int32)
        share[ok] = np.diff(np.arange(completed + 1) * total // completed)
        return share

    tokens_out = each("total_output_tokens")
    return replace(records, tokens_in=each("total_input_tokens"), tokens_out=tokens_out, tokens_asked=tokens_out)


def _aggregates(data: Mapping[str, object], completed: int, failed: int | None, path: Path | str) -> dict[str, float]:
    """The file's numbers under our metric names; latencies only where a request finished, since vLLM writes 0 there."""
    keys = [key for key in data if _LATENCY.fullmatch(key)] if completed else []
    values = {key: number(data, key, path) for key in [*keys, *_THROUGHPUTS] if key in data}
    return totals(values, completed, failed)


def _sending_s(columns: _Columns, duration_s: float) -> float | None:
    if columns.start_s is not None:
        return float(columns.start_s.max())
    if columns.e2e_s is None:
        return None
    return max(duration_s - float(columns.e2e_s.max()), 0.0)  # whichever ended last was sent by then


def _in_flight_max(columns: _Columns, data: Mapping[str, object], failed: int, path: Path | str) -> int | None:
    """An upper bound; failed requests count as in flight all the time, since the file does not say when they ended.

    vLLM's own max_concurrent_requests counts the requests that touch a whole second, so it is an upper bound too.
    """
    bounds = [columns.n]
    own = number(data, "max_concurrent_requests", path)
    if own:
        bounds.append(int(own) + failed)
    if columns.start_s is not None and columns.e2e_s is not None:
        moments = np.concatenate([columns.start_s, columns.start_s + columns.e2e_s])
        change = np.repeat([1, -1], columns.n)
        at_once = np.cumsum(change[np.lexsort((change, moments))])  # at a tie the end comes first
        bounds.append(int(at_once.max(initial=0)) + failed)
    return min(bounds)


def _or(values: Floats | None, otherwise: Floats) -> Floats:
    return otherwise if values is None else values
