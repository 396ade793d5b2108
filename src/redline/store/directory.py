"""An experiment directory: who may write in it, what it is about, what was measured."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from redline.experiment.plan import Identity
from redline.experiment.redaction import redact
from redline.model import RedlineError, Trial, UsageError
from redline.process import Marker, shielded
from redline.store.durable import TEMPORARY, cannot_write, replace_file
from redline.store.environment import collect
from redline.store.holding import LOCK, MARKER, Held, hold
from redline.store.journal import LINES, REQUESTS, Journal, add_trial, read_journal, repair

EXPERIMENT = "experiment.toml"
ENVIRONMENT = "environment.json"

_LOGS = "logs"
_ENVIRONMENT_SCHEMA = "redline.environment/1"
_KEPT_RUNS = 100
_FRESH = timedelta(hours=24)
_SAFE = re.compile(r"[^A-Za-z0-9=,._+-]+")
_LONGEST_NAME = 100


class Store:
    """The measurements of one experiment, on disk."""

    def __init__(self, directory: Path, experiment_text: str, about: Mapping[str, Any], journal: Journal) -> None:
        self.directory = directory
        self.experiment_text = experiment_text
        self.environment = about
        self.notes = list(journal.notes)  # what was dropped or cannot be used, in words
        self.trials: dict[str, tuple[Trial, ...]] = {}  # by case key, in the order they were measured
        self._writable = False
        self._secrets: Sequence[str] = ()
        self._last_id = _last_id(directory, journal.ids)
        for trial in journal.trials:
            self._remember(trial)

    def append(self, trial: Trial) -> None:
        """Keep a finished trial; when this returns it is on the disk. RedlineError where it cannot be written.

        An interrupt waits until that is done.
        """
        self._require_lock()
        with shielded():
            try:
                add_trial(self.directory, trial, self._secrets)
            except RedlineError as error:
                raise RedlineError(f"{error}; what was finished before is kept") if self.trials else error from error
            self._remember(trial)

    def next_id(self) -> str:
        """An id that no trial has had, not even one that a kill cut off."""
        self._last_id += 1
        return f"{self._last_id:04d}"

    def log_dir(self, name: str) -> Path:
        """A folder for the logs of this server or trial; it is made."""
        self._require_lock()
        folder = self.directory / _LOGS / _file_name(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        return folder

    def server_marker(self) -> Marker | None:
        """The server that was up when this directory was last written, if it was not seen to end."""
        return Held(self.directory).server_marker()

    def note(self, marker: Marker | None) -> None:
        """The server that is up from now on; None: there is none any more."""
        self._require_lock()
        Held(self.directory).note(marker)

    def _remember(self, trial: Trial) -> None:
        self.trials[trial.case] = (*self.trials.get(trial.case, ()), trial)

    def _require_lock(self) -> None:
        if not self._writable:
            raise RuntimeError(f"{self.directory} was opened for reading")

    def _begin(self, identity: Identity, experiment_text: str, files: Mapping[str, str]) -> None:
        """Take the directory over for this experiment: the texts as given, and the machine they run on now."""
        self._writable, self._secrets = True, identity.secrets
        self.experiment_text = redact(experiment_text, identity.secrets)
        self._write(EXPERIMENT, self.experiment_text)  # first: it marks the directory as ours after a kill
        for name, text in files.items():
            self._write(name, redact(text, identity.secrets))
        run = {**collect(), "servers": {name: list(words) for name, words in identity.commands.items()}}
        self.environment = {
            "schema": _ENVIRONMENT_SCHEMA,
            "variable": identity.variable,
            "cases": {**self.environment.get("cases", {}), **identity.cases},
            "runs": [*self.environment.get("runs", []), redact(run, identity.secrets)][-_KEPT_RUNS:],
        }
        self._write(ENVIRONMENT, json.dumps(self.environment, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        replace_file(self.directory / name, text.encode(errors="replace"))


@contextmanager
def open_store(
    directory: Path,
    experiment_text: str = "",
    identity: Identity | None = None,
    *,
    write: bool = True,
    files: Mapping[str, str] | None = None,
) -> Iterator[Store]:
    """An experiment directory: made where there is none, taken up again where it holds this experiment.

    To read it (`write=False`) takes no lock, needs no identity and changes nothing. `files` are what the
    experiment's text refers to. A UsageError of the body leaves nothing behind where nothing was there before.

    Raises:
        UsageError: it holds another experiment, something else, or (to read) nothing.
        RedlineError: somebody else writes in it, or nobody can.
    """
    if not write:
        yield _open_to_read(directory)
        return
    if identity is None:
        raise ValueError("to write, say which experiment it is")
    made = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        _refuse_strangers(directory)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(directory, error) from error
    with hold(directory):
        journal, about = read_journal(directory), _about(directory)
        _refuse_another(directory, about, journal, identity, experiment_text)
        done = repair(directory, journal)
        store = Store(directory, experiment_text, about, journal)
        store.notes += done
        store._begin(identity, experiment_text, files or {})
        try:
            yield store
        except UsageError:
            if made and not store.trials:
                _unmake(made)
            raise


def next_directory(directory: Path) -> Path:
    """The first of NAME, NAME-2, NAME-3 ... that is not there."""
    number, free = 2, directory
    while free.exists():
        free, number = directory.with_name(f"{directory.name}-{number}"), number + 1
    return free


def reusable(trials: Sequence[Trial], now: datetime, server_start: str) -> tuple[tuple[Trial, ...], str]:
    """Which trials of an attached server still say something about it, and a sentence on the others.

    Not those older than 24 h, and not those of another start of the server, where both starts are known.
    """
    old = [trial for trial in trials if now - _started(trial) > _FRESH]
    other = [t for t in trials if t not in old and server_start and t.server_start not in ("", server_start)]
    used = tuple(trial for trial in trials if trial not in old and trial not in other)
    reasons = [f"{len(old)} older than 24 h"] if old else []
    reasons += [f"{len(other)} from before the server was started anew"] if other else []
    if not reasons:
        return used, ""
    count = len(old) + len(other)
    what = "1 earlier trial is" if count == 1 else f"{count} earlier trials are"
    return used, f"{what} kept but not used ({' and '.join(reasons)}); --reuse uses them all the same"


# ---- opening ---------------------------------------------------------------------------------------------------------


def _open_to_read(directory: Path) -> Store:
    if not any((directory / name).is_file() for name in (EXPERIMENT, LINES)):
        there = "holds no experiment" if directory.is_dir() else "is not there"
        raise UsageError(f"{directory} {there}; give the directory that a `redline find` or `redline run` named")
    try:
        path = directory / EXPERIMENT
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RedlineError(f"cannot read {directory / EXPERIMENT}: {error}; check its rights") from error
    return Store(directory, text, _about(directory), read_journal(directory))


def _unmake(made: Sequence[Path]) -> None:
    """The directory that was made, and the empty ones above it that were made for it."""
    shutil.rmtree(made[0], ignore_errors=True)
    with suppress(OSError):
        for place in made[1:]:
            place.rmdir()


def _refuse_strangers(directory: Path) -> None:
    """Never write among files that are not ours."""
    if directory.is_dir():
        names = {path.name for path in directory.iterdir() if not path.name.endswith(TEMPORARY)}
        if names <= {LOCK, MARKER, _LOGS} or names & {EXPERIMENT, LINES, ENVIRONMENT}:
            return
        shown = ", ".join(sorted(names)[:3])
        raise UsageError(
            f"{directory} holds other files ({shown}) and no experiment of Redline; choose a new directory with --out"
        )
    if directory.exists() or directory.is_symlink():
        raise UsageError(f"{directory} is no directory; choose another place with --out")


def _refuse_another(directory: Path, about: Mapping[str, Any], journal: Journal, identity: Identity, text: str) -> None:
    """More SLAs, configurations or workloads make no other experiment; no case in common, or another load, does."""
    kept: Mapping[str, str] = about.get("cases", {})
    known = kept.keys() | {trial.case for trial in journal.trials}
    variable = about.get("variable") or next((trial.probe.by for trial in journal.trials), identity.variable)
    if not known or (known & identity.cases.keys() and variable == identity.variable):
        return
    theirs, ours = _labels(kept.values()), _labels(identity.cases.values())
    if variable != identity.variable:
        theirs, ours = f"{theirs}, by {variable}", f"{ours}, by {identity.variable}"
    changed = ""
    if theirs == ours:
        what = _differing(directory, redact(text, identity.secrets)) or "the command, its environment or the workload"
        changed = f"; the names are the same, what differs is {what}"
    raise UsageError(
        f"{directory} holds another experiment ({theirs}) than this one ({ours}){changed}; "
        "keep this one elsewhere with --out DIR, or beside it with --again"
    )


def _differing(directory: Path, text: str) -> str:
    """The settings of servers and workloads that are not those of the experiment in the directory, by name."""
    try:
        theirs, ours = (dict(_settings(tomllib.loads(toml))) for toml in ((directory / EXPERIMENT).read_text(), text))
    except (OSError, ValueError, AttributeError):  # changed by hand
        return ""
    return ", ".join(key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key))


def _settings(data: Any) -> Iterator[tuple[str, object]]:
    """Every setting of [server] and [workload.NAME], called `key of the server` or `key of workload NAME`."""
    sections = {f"workload {name}": section for name, section in data.get("workload", {}).items()}
    for whose, section in {"the server": data.get("server", {}), **sections}.items():
        for key, value in section.items():
            inner = value.items() if isinstance(value, dict) else ()
            yield from ((f"{key}.{name} of {whose}", entry) for name, entry in inner)
            if not inner:
                yield f"{key} of {whose}", value


def _labels(labels: Any) -> str:
    known = list(labels)
    more = f" and {len(known) - 2} more" if len(known) > 2 else ""
    return " | ".join(known[:2]) + more if known else "of which only trials are left"


def _about(directory: Path) -> dict[str, Any]:
    """What environment.json says; nothing where it is missing or unreadable, since it only describes."""
    with suppress(OSError, ValueError):
        about = json.loads((directory / ENVIRONMENT).read_text(encoding="utf-8"))
        if isinstance(about, dict) and isinstance(about.get("cases", {}), dict):
            return about
    return {}


def _last_id(directory: Path, ids: frozenset[str]) -> int:
    names = set(ids)
    for folder in (directory / REQUESTS, directory / _LOGS):
        if folder.is_dir():
            names |= {path.stem for path in folder.iterdir()}
    return max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


def _file_name(name: str) -> str:
    """A name that any file system takes; other names never become the same one."""
    safe = _SAFE.sub("_", name).lstrip(".")[:_LONGEST_NAME]
    return safe if safe and safe == name else f"{safe}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def _started(trial: Trial) -> datetime:
    try:
        started = datetime.fromisoformat(trial.started)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return started if started.tzinfo else started.replace(tzinfo=UTC)
