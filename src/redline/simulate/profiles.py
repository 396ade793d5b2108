"""What the simulated server is: its speed, its limits and its faults, by name or from a file."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from redline.model import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What goes wrong, for tests. 0 is never; `every` counts generation requests."""

    reject_every: int = 0  # answered with 429
    error_every: int = 0  # an error event after half of the tokens
    drop_every: int = 0  # the connection is closed after half of the tokens (HTTP only)
    crash_after: int = 0  # the server exits with code 1 when this many requests have come
    crash_above: int = 0  # the server exits with code 1 when more than this many requests are in flight
    hang_after: int = 0  # no token any more once this many requests have come (HTTP only)
    never_ready: bool = False  # answers 503 to everything (HTTP only)
    ready_after_s: float = 0.0  # answers 503 to everything for so long (HTTP only)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One simulated server.

    A step lasts step_ms + prefill_us x prompt tokens + decode_us x decoding requests + kv_ns x tokens of KV cache read.
    """

    name: str
    about: str = ""
    model: str = "simulated"  # the name it serves
    max_num_seqs: int  # requests in the batch
    max_num_batched_tokens: int  # tokens computed in one step
    kv_tokens: int  # tokens that the KV cache holds
    max_model_len: int
    step_ms: float
    prefill_us: float
    decode_us: float
    kv_ns: float
    run_noise: float = 0.0  # standard deviation of ln(speed) from one start or virtual trial to the next
    stall_every_s: float = 0.0  # 0: no stalls
    stall_s: float = 0.0
    drift_per_s: float = 0.0  # share by which steps get longer, per second since the start
    cold_factor: float = 0.0  # share by which steps are longer at the start, fading with cold_s
    cold_s: float = 0.0
    prefix_cache_tokens: int = 0  # of prompts, kept for others that begin alike; 0: no prefix cache
    answer_tokens: float = 64.0  # mean length of an answer that stops by itself, where the client lets it (HTTP only)
    seed: int = 0  # of an HTTP server; a virtual trial brings its own
    faults: Faults = field(default_factory=Faults)


def _known() -> dict[str, Profile]:
    tables = tomllib.loads((files("redline.simulate") / "profiles.toml").read_text(encoding="utf-8"))
    found: dict[str, Profile] = {}
    for name, fields in tables.items():
        base = asdict(found[fields.pop("base")]) if "base" in fields else {}
        found[name] = Profile(**{**base, "faults": Faults(), **fields, "name": name})
    return found


PROFILES: Mapping[str, Profile] = _known()


def load_profile(name_or_file: str, overrides: Mapping[str, object] | None = None) -> Profile:
    """The profile of this name or in this TOML file, with some fields changed; UsageError names every problem.

    A file has the fields of Profile as keys and a [faults] table; `base = "demo"` fills what it leaves out.
    Override keys are field names, and `faults.NAME`; values may be text.
    """
    if name_or_file in PROFILES:
        return _changed(PROFILES[name_or_file], overrides or {}, "override")
    path = Path(name_or_file)
    if not path.is_file():
        raise UsageError(
            f"profile {name_or_file!r}: neither a file nor a known profile{_nearest(name_or_file, PROFILES)}; "
            f"the known ones are {', '.join(PROFILES)}"
        )
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"profile {path}: {error}") from error
    base = given.pop("base", "demo")
    if base not in PROFILES:
        raise UsageError(f"profile {path}: base = {base!r} is not one of {', '.join(PROFILES)}")
    faults = given.pop("faults", {})
    if not isinstance(faults, Mapping):
        raise UsageError(f"profile {path}: faults = {faults!r} must be a table: write [faults] and below it its fields")
    flat = {"name": path.stem, **given, **{f"faults.{key}": value for key, value in faults.items()}}
    return _changed(_changed(PROFILES[base], flat, str(path)), overrides or {}, "override")


def _changed(profile: Profile, changes: Mapping[str, object], where: str) -> Profile:
    """The profile with these fields changed and checked."""
    known = {**asdict(profile), **{f"faults.{key}": value for key, value in asdict(profile.faults).items()}}
    del known["faults"]
    problems: list[str] = []
    values: dict[str, object] = {}
    for given, value in changes.items():
        key = given.replace("-", "_")
        if key not in known:
            problems.append(f"{given}: no such field{_nearest(key, known) or '; there are ' + ', '.join(known)}")
            continue
        try:
            values[key] = _converted(value, known[key])
        except ValueError as error:
            problems.append(f"{given} = {value!r}: {error}")
    if problems:
        raise UsageError(f"profile {profile.name}, {where}: " + "; ".join(problems))
    faults = {key.removeprefix("faults."): value for key, value in values.items() if key.startswith("faults.")}
    own = {key: value for key, value in values.items() if not key.startswith("faults.")}
    changed = replace(profile, **own, faults=replace(profile.faults, **faults))  # type: ignore[arg-type]  # converted above
    if problems := _unusable(changed):
        raise UsageError(f"profile {profile.name}, {where}: " + "; ".join(problems))
    return changed


def _converted(value: object, like: object) -> object:
    """The value as the type that the field has."""
    if isinstance(like, str):
        return str(value)
    text = str(value).strip().replace("_", "")
    if isinstance(like, bool):
        if text.lower() in {"true", "1", "yes", "on"}:
            return True
        if text.lower() in {"false", "0", "no", "off"}:
            return False
        raise ValueError("expected true or false")
    try:
        return int(text) if isinstance(like, int) else float(text)
    except ValueError:
        raise ValueError(f"expected {'a whole number' if isinstance(like, int) else 'a number'}") from None


def _unusable(profile: Profile) -> list[str]:
    """Values that no server can have."""
    least = {"max_num_seqs": 1, "max_num_batched_tokens": 1, "kv_tokens": 2, "max_model_len": 2}
    problems = [f"{key} must be at least {low}" for key, low in least.items() if getattr(profile, key) < low]
    numbers = {**asdict(profile), **{f"faults.{key}": value for key, value in asdict(profile.faults).items()}}
    for key, value in numbers.items():
        if isinstance(value, int | float) and key not in {*least, "seed"} and not 0 <= value < math.inf:
            problems.append(f"{key} must be a number of at least 0")
    if not profile.step_ms > 0:
        problems.append("step_ms must be above 0")
    if profile.max_num_batched_tokens <= profile.max_num_seqs:
        problems.append("max_num_batched_tokens must be above max_num_seqs, or a full batch leaves no room for prompts")
    return problems


def _nearest(word: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
