"""Questions to a server that runs: what is asked of it, from named options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from redline.bench import reader_of
from redline.codec import load_workload_file
from redline.experiment.build import bench_experiment, find_experiment
from redline.experiment.configurations import with_scheme
from redline.experiment.datasets import is_dataset
from redline.experiment.inputs import reader
from redline.model import CommandWorkload, Experiment, Workload
from redline.server.address import is_local


class SearchOptions(TypedDict, total=False):
    """How to search; names and texts are those of the command line and of an experiment's file."""

    by: str
    precision: float | str
    confidence: float | str
    min: float
    max: float
    max_time: float | str
    max_requests: int
    max_trials: int
    sustain: float | str
    loads: Sequence[float] | str
    seed: int


class FindOptions(SearchOptions, total=False):
    """What else can be said of a server that runs, and of what is sent to it."""

    workload: str  # a preset, random:in=512,out=128, or a file
    api: str
    model: str
    headers: Mapping[str, str]
    api_key_env: str
    insecure: bool
    request_timeout: float | str


def search_of(url: str, slas: Sequence[str], options: Mapping[str, Any]) -> Experiment:
    """How much load does it carry? UsageError has everything that is wrong with the question."""
    given, workload = _with_file(options)
    return find_experiment(url, slas, given, workload, reader(Path(), absolute=True))


def loads_of(url: str, slas: Sequence[str], options: Mapping[str, Any]) -> Experiment:
    """How does it do at these loads? UsageError has everything that is wrong with the question."""
    given, workload = _with_file(options)
    return bench_experiment(url, slas, given, workload, reader(Path(), absolute=True))


def elsewhere(experiment: Experiment) -> str | None:
    """The address of a running server that is not on this machine."""
    urls = [config.url or "" for config in experiment.servers if config.attached]
    return next((url for url in urls if not is_local(urlsplit(with_scheme(url)).hostname or "")), None)


def _with_file(options: Mapping[str, Any]) -> tuple[dict[str, Any], Workload | CommandWorkload | None]:
    """The options without the workload where that is a file, and what the file says."""
    given = dict(options)
    named = str(given.get("workload", ""))
    if named.endswith(".toml") or (Path(named).is_file() and not is_dataset(named)):
        return given, load_workload_file(Path(given.pop("workload")), reader_of)
    return given, None
