"""The files that workloads name: read once, and known by their digest ever after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from redline.experiment.datasets import parse_dataset
from redline.experiment.tokenizer import Tokenizer, tokenizer_of
from redline.experiment.traces import parse_trace
from redline.experiment.vocabulary import whole_words
from redline.lengths import prompt_tokens
from redline.model import CommandWorkload, Dataset, Lengths, Trace, UsageError, Vocabulary, Workload

INPUTS = "inputs.json"  # beside a stored experiment: what its files held, since they may be gone
_DATASET, _TOKENIZER = "dataset:", "tokenizer:"  # before the name of one in there
_File = TypeVar("_File", Trace, Dataset)


@dataclass(frozen=True, kw_only=True, slots=True)
class Described(Generic[_File]):
    """A trace or prompts, and how long the requests are; None where the file does not say."""

    file: _File
    prompt: Lengths | None
    output: Lengths | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How each kind of file is read, by its name; UsageError has everything that is wrong with one."""

    trace: Callable[[str], Described[Trace]]
    dataset: Callable[[str, str | None], Described[Dataset]]  # and the name of a tokenizer that counts
    tokenizer: Callable[[str], Vocabulary]


def reader(base: Path, *, absolute: bool = False) -> Load:
    """Reads files named relative to `base`.

    With `absolute`, the workload remembers a name that holds wherever it will be written down.
    """

    def kept(name: str) -> str:
        return str((base / name).absolute()) if absolute else name

    tokenizer_at = cache(_tokenizer)

    @cache
    def trace(name: str) -> Described[Trace]:
        read = _parsed(base / name, kept(name), parse_trace)
        return Described(file=read, **_lengths(read))

    @cache
    def dataset(name: str, by: str | None) -> Described[Dataset]:
        count = tokenizer_at(base / by)[0].count if by else None
        read = _parsed(base / name, kept(name), lambda text, file: parse_dataset(text, file, count))
        return Described(file=read, **_lengths(read))

    @cache
    def tokenizer(name: str) -> Vocabulary:
        read, digest = tokenizer_at(base / name)
        try:
            words = whole_words(read.pieces, read.count)
        except UsageError as error:
            raise UsageError(f"{base / name}: {error}") from error
        return Vocabulary(file=kept(name), sha256=digest, text="\n".join(words).encode())

    return Load(trace=trace, dataset=dataset, tokenizer=tokenizer)


def remembered(directory: Path) -> Load:
    """Knows of the files of a stored experiment what was written down; the rest it reads."""
    path = directory / INPUTS
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}; it says which files this experiment used") from error
    read = reader(directory)

    def lengths(facts: Mapping[str, Any]) -> dict[str, Lengths | None]:
        return {key: Lengths(**facts[key]) if facts[key] else None for key in ("prompt", "output")}

    def trace(name: str) -> Described[Trace]:
        if (facts := known.get(name)) is None:
            return read.trace(name)
        found = lengths(facts)
        blocks = facts.get("blocks", False)
        file = Trace(file=name, sha256=facts["sha256"], has_lengths=found["prompt"] is not None, has_blocks=blocks)
        return Described(file=file, **found)

    def dataset(name: str, by: str | None) -> Described[Dataset]:
        if (facts := known.get(_counted(name, by))) is None:
            return read.dataset(name, by)
        found = lengths(facts)
        file = Dataset(file=name, sha256=facts["sha256"], has_lengths=found["output"] is not None)
        return Described(file=file, **found)

    def tokenizer(name: str) -> Vocabulary:
        facts = known.get(_TOKENIZER + name)
        return Vocabulary(file=name, sha256=facts["sha256"]) if facts else read.tokenizer(name)

    return Load(trace=trace, dataset=dataset, tokenizer=tokenizer)


def _unreadable(name: str, *_: object) -> Any:
    raise UsageError(f"{name} cannot be read here; write the workload into a file")


nowhere = Load(trace=_unreadable, dataset=_unreadable, tokenizer=_unreadable)  # for who has no folder to read files in


def noted(workloads: Iterable[Workload | CommandWorkload]) -> dict[str, str]:
    """The file that `remembered` reads, by its name; nothing where these workloads name no file."""
    known: dict[str, Any] = {}
    for workload in workloads:
        if not isinstance(workload, Workload):
            continue
        vocabulary = workload.tokenizer
        if (trace := workload.trace) is not None:
            facts = {"sha256": trace.sha256, "requests": len(trace.times_s), "blocks": bool(trace.blocks)}
            known[trace.file] = {**facts, **_described(trace)}
        if (dataset := workload.dataset) is not None:
            facts = {"sha256": dataset.sha256, "prompts": len(dataset.sizes), **_described(dataset)}
            known[_counted(dataset.file, vocabulary.file if vocabulary else None)] = facts
        if vocabulary is not None:
            known[_TOKENIZER + vocabulary.file] = {"sha256": vocabulary.sha256, "words": len(vocabulary.words)}
    return {INPUTS: json.dumps(known, indent=2) + "\n"} if known else {}


def _counted(dataset: str, by: str | None) -> str:
    """Its name in there: prompts are as long as a tokenizer says."""
    return f"{_DATASET}{dataset} by {by}" if by else _DATASET + dataset


def _described(file: Trace | Dataset) -> Mapping[str, Any]:
    return {key: asdict(lengths) if lengths else None for key, lengths in _lengths(file).items()}


def _lengths(file: Trace | Dataset) -> dict[str, Lengths | None]:
    prompts = file.prompt_tokens if isinstance(file, Trace) else prompt_tokens(file)
    counts = {"prompt": prompts, "output": file.output_tokens}
    return {key: _like(numbers) if len(numbers) else None for key, numbers in counts.items()}


def _like(numbers: object) -> Lengths:
    """In a few figures, for who reads of the workload; what is sent are the numbers themselves."""
    tokens = np.asarray(numbers)
    mean = float(tokens.mean())
    return Lengths(
        mean=round(mean, 1), cv=round(float(tokens.std()) / mean, 3), low=int(tokens.min()), high=int(tokens.max())
    )


def _parsed(path: Path, name: str, parse: Callable[[str, str], _File]) -> _File:
    text = _text_of(path)
    try:
        return parse(text, name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _tokenizer(path: Path) -> tuple[Tokenizer, str]:
    """The tokenizer of a file, or of the file in a model's folder; and the file's digest."""
    if path.is_dir():
        path = path / "tokenizer.json"
    text = _text_of(path)
    try:
        return tokenizer_of(text), hashlib.sha256(text.encode()).hexdigest()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; a name counts from the folder of the file that names it") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text; save it as UTF-8") from error
