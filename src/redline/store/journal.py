"""The trials of an experiment directory: a line for each, and a file with its requests, added so that a kill at any
moment loses at most the trial that was being added.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from redline.codec import StoredTrial, read_trial, trial_to_json
from redline.model import Measured, RedlineError, Trial
from redline.records import Records
from redline.store.durable import TEMPORARY, append_line, cannot_write, cut, replace_file, sync_directory

LINES = "trials.jsonl"
REQUESTS = "requests"


@dataclass(frozen=True, kw_only=True, slots=True)
class Journal:
    """What was read, and what a crash left that belongs to no trial."""

    trials: tuple[Trial, ...]
    ids: frozenset[str]  # of all lines, also of trials that cannot be used
    notes: tuple[str, ...]
    good_bytes: int = 0  # of the lines; what comes after is torn
    unended: bool = False  # the last line is whole but has no end
    strays: tuple[Path, ...] = field(default=())


def read_journal(directory: Path) -> Journal:
    """The trials of a directory; writes nothing. RedlineError where a line before the last cannot be read."""
    path = directory / LINES
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise RedlineError(f"cannot read {path}: {error.strerror}; check its rights") from error
    end = data.rfind(b"\n") + 1
    stored = [_read_line(line, path, n) for n, line in enumerate(data[:end].splitlines(), 1) if line.strip()]
    notes, good, unended = [], end, False
    if tail := data[end:]:
        try:
            stored.append(read_trial(tail))
            good, unended = len(data), True
        except RedlineError:
            notes.append("the last line of trials.jsonl is torn, as after a kill; it was dropped")
    trials = []
    for entry in stored:
        try:
            trials.append(_with_requests(entry, directory))
        except RedlineError as error:
            notes.append(f"trial {entry.trial.id} is not used: {error}")
    ids = frozenset(entry.trial.id for entry in stored)
    return Journal(
        trials=tuple(trials),
        ids=ids,
        notes=tuple(notes),
        good_bytes=good,
        unended=unended,
        strays=_strays(directory, ids),
    )


def repair(directory: Path, journal: Journal) -> tuple[str, ...]:
    """Remove what belongs to no trial; what was done, in words. Only for the holder of the lock."""
    path = directory / LINES
    if path.exists() and path.stat().st_size > journal.good_bytes:
        cut(path, journal.good_bytes)
    if journal.unended:
        append_line(path, "")
    for stray in journal.strays:
        with suppress(FileNotFoundError):
            try:
                stray.unlink()
            except OSError as error:
                raise cannot_write(stray, error) from error
    names = sorted(stray.name for stray in journal.strays if not stray.name.endswith(TEMPORARY))
    return (f"requests without a trial, as after a kill, were dropped: {', '.join(names)}",) if names else ()


def add_trial(directory: Path, trial: Trial, secrets: Sequence[str]) -> None:
    """Write the trial's requests, then its line: with the line it is there, before it is not."""
    line = trial_to_json(trial, secrets)
    lines, file = directory / LINES, _requests_file(directory, trial.id)
    outcome = trial.outcome
    new = not lines.exists()
    if isinstance(outcome, Measured) and outcome.records is not None:
        try:
            file.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(file.parent, error) from error
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **outcome.records.columns())  # type: ignore[arg-type]  # the stub mistakes columns for options
        replace_file(file, buffer.getvalue())
    try:
        append_line(lines, line)
    except RedlineError:
        with suppress(OSError):
            file.unlink()
        raise
    if new:
        sync_directory(directory)


def _requests_file(directory: Path, trial: str) -> Path:
    return directory / REQUESTS / f"{trial}.npz"


def _read_line(line: bytes, path: Path, number: int) -> StoredTrial:
    try:
        return read_trial(line)
    except RedlineError as error:
        raise RedlineError(
            f"{path}, line {number} is damaged: {error}; remove this line to go on without that trial"
        ) from error


def _with_requests(stored: StoredTrial, directory: Path) -> Trial:
    trial = stored.trial
    if stored.requests is None or not isinstance(trial.outcome, Measured):
        return trial
    file = _requests_file(directory, trial.id)
    try:
        # From memory, since numpy leaves a damaged file open.
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as columns:
            records = Records.from_columns({name: columns[name] for name in columns.files})
    except FileNotFoundError as error:
        raise RedlineError(f"its requests file {file.name} is missing") from error
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise RedlineError(f"its requests file {file.name} is damaged ({error})") from error
    if len(records) != stored.requests:
        raise RedlineError(f"its requests file holds {len(records)} requests, not {stored.requests}")
    return replace(trial, outcome=replace(trial.outcome, records=records))


def _strays(directory: Path, ids: frozenset[str]) -> tuple[Path, ...]:
    folder = directory / REQUESTS
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    strays = [
        file for file in files if file.name.endswith(TEMPORARY) or (file.suffix == ".npz" and file.stem not in ids)
    ]
    return (*strays, *sorted(directory.glob(f".*{TEMPORARY}")))
