"""Parameter files of vLLM's sweep, and what becomes of their records: command lines, names, folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from redline.experiment.commands import NAME_KEY, apply_parameters
from redline.model import JsonValue, UsageError, Variable

Record: TypeAlias = Mapping[str, JsonValue]
Link: TypeAlias = tuple[str, str]  # (key of a serve record, key of a bench record)

VARIABLES: Mapping[str, Variable] = {"request_rate": "rate", "max_concurrency": "concurrency"}
_MISSING = object()


class BadTypeError(UsageError, TypeError):
    """Something in a file of vLLM's sweep has another type than it must have."""


class BadValueError(UsageError, ValueError):
    """Something in a file or option of vLLM's sweep cannot be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One serve record with one bench record: a folder of the tree."""

    serve: Record = field(default_factory=dict)
    bench: Record = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Its folder's name below the experiment's; empty where both records are."""
        return _folder(record_text(self.serve), record_text(self.bench))

    @property
    def named_folder(self) -> str:
        """What later versions of vLLM's sweeps call that folder: a record that has a name goes by it."""
        return _folder(*(str(record.get(NAME_KEY, record_text(record))) for record in (self.serve, self.bench)))

    @property
    def label(self) -> str:
        """How to call it in a message."""
        return self.folder or "the base commands"

    def overrides(self, variable: str, load: float) -> dict[str, JsonValue]:
        """What is written into each of its run objects."""
        return {**self.serve, **self.bench, variable: int(load) if float(load).is_integer() else load}


# ---- files -----------------------------------------------------------------------------------------------------------


def records_of(data: object) -> tuple[dict[str, JsonValue], ...]:
    """The records of a parameter file: a list of objects, or an object of objects, whose keys become their names."""
    if isinstance(data, Mapping):
        data = [{NAME_KEY: name, **entry} if isinstance(entry, Mapping) else entry for name, entry in data.items()]
    if not isinstance(data, list):
        raise BadTypeError(f"must be a list of objects, or an object of objects, not {_kind(data)}")
    for number, entry in enumerate(data, 1):
        if not isinstance(entry, Mapping):
            raise BadTypeError(f'item {number} must be an object such as {{"max_num_seqs": 64}}, not {_kind(entry)}')
    names = [entry[NAME_KEY] for entry in data if NAME_KEY in entry]
    if twice := list(dict.fromkeys(str(name) for name in names if names.count(name) > 1)):
        raise BadValueError(f"{NAME_KEY} {', '.join(twice)} is there twice; names must differ")
    return tuple(dict(entry) for entry in data)


def record_text(record: Record) -> str:
    """The pairs as `k=v`, joined with `-`, as Python writes the values: what serve_sla names folders with."""
    return "-".join(f"{key}={value}" for key, value in record.items() if key != NAME_KEY)


def _folder(serve: str, bench: str) -> str:
    return safe_name("-".join(label + text for label, text in (("SERVE--", serve), ("BENCH--", bench)) if text))


def safe_name(text: str) -> str:
    """The text as one name of a file."""
    return text.replace("/", "_").replace("..", "__")


def parse_links(text: str | None) -> tuple[Link, ...]:
    """The links of `serve_key=bench_key,...`."""
    links = []
    for part in (text or "").split(","):
        if not (part := part.strip()):
            continue
        serve_key, equals, bench_key = (piece.strip() for piece in part.partition("="))
        if not (equals and serve_key and bench_key):
            raise BadValueError(
                f"--link-vars {part!r}: write serve_key=bench_key, such as max_num_seqs=max_concurrency"
            )
        links.append((serve_key, bench_key))
    return tuple(links)


# ---- pairs -----------------------------------------------------------------------------------------------------------


def pairs_of(
    serves: Sequence[Record], benches: Sequence[Record], links: Sequence[Link] = ()
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Every pair that runs, serve records outside, in file order; and what does not run, in words."""
    notes: list[str] = []
    pairs: list[Pair] = []
    for serve in _once(serves, "serve", notes):
        for bench in _once(benches, "bench", notes):
            pair = Pair(serve=serve, bench=bench)
            if why := _unlinked(pair, links):
                notes.append(f"{pair.label} is left out by --link-vars: {why}")
            else:
                pairs.append(pair)
    folders = [pair.folder for pair in pairs]
    if twice := list(dict.fromkeys(folder for folder in folders if folders.count(folder) > 1)):
        raise BadValueError(
            f"two pairs of records would share the folder {twice[0]}; change a value so that their names differ"
        )
    return tuple(pairs), tuple(dict.fromkeys(notes))


def _once(records: Sequence[Record], which: str, notes: list[str]) -> list[Record]:
    """Records with the same pairs are one: they would share a folder."""
    kept: dict[str, Record] = {}
    for record in records:
        text = record_text(record)
        if text in kept:
            notes.append(f"the {which} record {text or '{}'} is there twice and runs once")
        kept.setdefault(text, record)
    return list(kept.values())


def _unlinked(pair: Pair, links: Sequence[Link]) -> str:
    for serve_key, bench_key in links:
        serve, bench = _find(pair.serve, serve_key), _find(pair.bench, bench_key)
        if serve is _MISSING or bench is _MISSING:
            which = f"serve record has no {serve_key}" if serve is _MISSING else f"bench record has no {bench_key}"
            return f"its {which}"
        if serve != bench:
            return f"{serve_key} is {serve}, {bench_key} is {bench}"
    return ""


def _find(record: Record, key: str) -> object:
    """The value of a key in either spelling."""
    wanted = key.replace("-", "_")
    return next((value for name, value in record.items() if name.replace("-", "_") == wanted), _MISSING)


# ---- command lines ---------------------------------------------------------------------------------------------------


def applied(command: Sequence[str], record: Record) -> tuple[str, ...]:
    """The command with this record's parameters, by the rules of vLLM's sweep."""
    return apply_parameters(command, record)


def refuse_variable(benches: Sequence[Record], variable: str) -> None:
    """The search sets the variable: no bench record may."""
    for record in benches:
        if (value := _find(record, variable)) is not _MISSING:
            raise BadValueError(
                f"--bench-params sets {variable} to {value}, but that is what is searched; "
                "remove it there, or search the other one with --sla-variable"
            )


def _kind(value: object) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        type(None): "null",
        list: "a list",
    }
    return names.get(type(value), f"a {type(value).__name__}")
