"""Results of `python -m sglang.bench_serving --output-file`, with or without --output-details."""

from __future__ import annotations

import math
from pathlib import Path

from redline.bench.parts import Part, lines_in
from redline.bench.reading import Reading, ResultError
from redline.bench.vllm import result_of

_CLIENT = "sglang.bench_serving"


def read_sglang(path: Path) -> tuple[Reading, ...]:
    """Each run that was appended to the file.

    The lists of --output-details are those of vLLM before 0.32: no send times, so that they are rebuilt.
    """
    return tuple(_run(line) for line in lines_in(path, _CLIENT))


def _run(line: Part) -> Reading:
    completed = line.count("completed")
    for key in ("duration", "request_throughput", "mean_e2e_latency_ms"):
        line.required(key)
    data = {key.replace("_e2e_latency_", "_e2el_"): value for key, value in line.data.items()}
    data["total_token_throughput"] = data.get("total_throughput")
    data["request_rate"] = _rate(line)
    errors = line.data.get("errors")
    if not isinstance(errors, list):
        return result_of({**data, "failed": None, "num_prompts": None}, line.where)  # the finished requests only
    failed = sum(bool(error) for error in errors)
    if completed + failed != len(errors):
        raise ResultError(f"{line.where}: completed is {completed}, but {len(errors) - failed} have no error")
    return result_of({**data, "failed": failed}, line.where)


def _rate(line: Part) -> object:
    """As vLLM writes it: a number, or "inf"; None for a trace, which has no one rate."""
    rate = line.data.get("request_rate")
    if isinstance(rate, float) and math.isinf(rate):
        return "inf"
    return None if rate == "trace" else rate
