"""Which client wrote a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from redline.bench.reading import ResultError

_SIGNS: Mapping[str, frozenset[str]] = {  # reader -> keys that its files have, and no other's
    "guidellm": frozenset({"metadata", "benchmarks"}),
    "sglang": frozenset({"backend", "completed", "mean_e2e_latency_ms"}),
    "inference-perf": frozenset({"load_summary", "successes", "failures"}),
    "vllm": frozenset({"completed", "duration", "endpoint_type"}),
}
_AIPERF = ({"aiperf_version"}, {"metadata", "metrics"}, {"metadata", "error"})


def client_of(path: Path) -> str:
    """The reader for a result file, or for the folder of a run; ResultError where it is nobody's that we know."""
    if path.is_dir():
        return _of_folder(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ResultError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{path}: cannot be read ({error})") from error
    data = _document(text, path)
    if isinstance(data, list) and data and isinstance(data[0], dict) and {"start_time", "end_time"} <= data[0].keys():
        return "inference-perf"
    keys = frozenset(data) if isinstance(data, dict) else frozenset()
    if any(signs <= keys for signs in _AIPERF):
        return "aiperf"
    for reader, signs in _SIGNS.items():
        if signs <= keys:
            return reader
    if {"completed", "duration", "request_throughput"} <= keys:
        return "vllm"  # before it wrote endpoint_type
    raise _nobody(path)


def _of_folder(path: Path) -> str:
    names = [file.name for file in path.iterdir()]
    if any(name in ("profile_export.jsonl", "profile_export_aiperf.json") for name in names):
        return "aiperf"
    if any(name.endswith("_lifecycle_metrics.json") for name in names):
        return "inference-perf"
    raise ResultError(f"{path}: is a folder of neither aiperf nor inference-perf; name the files in it")


def _document(text: str, path: Path) -> object:
    """The whole, or the first line of a file of lines."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        first = next((line for line in text.splitlines() if line.strip()), "")
        try:
            return json.loads(first)
        except (json.JSONDecodeError, RecursionError):
            raise ResultError(f"{path}: no complete JSON ({error})") from None


def _nobody(path: Path) -> ResultError:
    return ResultError(
        f"{path}: is no result of vllm, sglang, guidellm, aiperf or inference-perf; name what reads it with --reader"
    )
