"""What the result file of a benchmark command says: its requests where it has them, its aggregates where not.

A reader is a name ("vllm") or "package.module:function". The function takes the file's path and returns a `Reading`;
it raises `ResultError` (or ValueError, TypeError, LookupError, OSError) where the file is no usable result.

What a criterion is judged on, by what the file has:

* per-request send time, first token, tokens and gaps (vLLM: --save-detailed): everything on records, no aggregates;
* only the end-to-end latency of each request (vLLM's plain form): E2EL, errors and requests per second on records,
  whose `first_s` is NaN throughout ("not known"); TTFT, TPOT, ITL and token throughput on `aggregates`;
* neither: everything on `aggregates`, and there are no records.

Aggregates carry our metric names, and the counts `completed` and `failed`, of which the statistics need the size.
So a metric is answered by the records unless they lack what it needs, see `knows`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from redline.bench.aiperf import read_aiperf
from redline.bench.guidellm import read_guidellm
from redline.bench.inferenceperf import read_inference_perf
from redline.bench.reading import Reading, ResultError
from redline.bench.requests import counts
from redline.bench.sglang import read_sglang
from redline.bench.vllm import read_vllm
from redline.model import UsageError

Reader: TypeAlias = Callable[[Path], Reading]
RunsReader: TypeAlias = Callable[[Path], Sequence[Reading]]


def read(reader: str, path: Path) -> Reading:
    """What `path` says, read as the result of that tool; ResultError says what is wrong with it."""
    return reader_of(reader)(path)


def read_runs(reader: str, path: Path) -> Sequence[Reading]:
    """The same for a file that may hold several runs."""
    return _READERS[reader](path) if reader in _READERS else (reader_of(reader)(path),)


def reader_of(name: str) -> Reader:
    """The function for a reader's name or import string; UsageError says which there are."""
    if name in _READERS:
        return _one_run(_READERS[name])
    if ":" in name:
        return _imported(name)
    known = ", ".join(f'"{known}"' for known in _READERS)
    raise UsageError(f'reader "{name}" is unknown: use {known}, or your own as "package.module:function"')


def _one_run(reader: RunsReader) -> Reader:
    def read_file(path: Path) -> Reading:
        runs = reader(path)
        if len(runs) != 1:
            raise ResultError(f"{path}: holds {len(runs)} runs; have the command make one, at one load")
        return runs[0]

    return read_file


def _imported(name: str) -> Reader:
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise UsageError(f'reader "{name}" cannot be imported: {error}; is it on the PYTHONPATH?') from error
    if not callable(function):
        raise UsageError(f'reader "{name}" is no function')

    def read_file(path: Path) -> Reading:
        try:
            reading = function(path)
        except (ValueError, TypeError, LookupError, OSError) as error:
            raise ResultError(f'{path}: reader "{name}" failed: {type(error).__name__}: {error}') from error
        if not isinstance(reading, Reading):
            raise UsageError(f'reader "{name}" returned a {type(reading).__name__}, not a redline.bench.Reading')
        for metric, value in reading.aggregates.items():
            if not (math.isfinite(value) and value >= 0):
                raise ResultError(f'{path}: reader "{name}" says {metric} is {value:g}')
        if reading.records is not None:
            return reading
        return replace(reading, aggregates=counts(reading.completed, reading.failed) | dict(reading.aggregates))

    return read_file


_READERS: Mapping[str, RunsReader] = {
    "vllm": read_vllm,
    "sglang": read_sglang,
    "guidellm": read_guidellm,
    "aiperf": read_aiperf,
    "inference-perf": read_inference_perf,
}
