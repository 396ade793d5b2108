"""What people write for times, shares and counts, as numbers; every refusal says how to write it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from difflib import get_close_matches

from redline.model import UsageError

_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(rf"(\d+(?:\.\d+)?|\.\d+)\s*({'|'.join(sorted(_SECONDS, key=len, reverse=True))})\s*")
_SHARE = re.compile(r"([^%]+?)\s*(%?)")


def parse_duration(value: object) -> float:
    """Seconds from `90s`, `10m`, `4h`, `1h30m`, or a plain number of seconds."""
    if isinstance(value, str) and (parts := _PART.findall(value.strip())) and not _PART.sub("", value.strip()):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    else:
        seconds = _number(value, "is no duration; write 90s, 10m, 4h or a number of seconds")
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"{_shown(value)} must be longer than 0 seconds")
    return seconds


def parse_share(value: object) -> float:
    """A share between 0 and 1, neither included, from `5%`, `0.05` or .05."""
    found = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    number = _number(found[1] if found else value, "is no share; write 5% or 0.05", shown=value)
    share = round(number / 100, 12) if found and found[2] else number
    if not 0 < share < 1:
        hint = f"; did you mean {number:g}%?" if 1 < number < 100 and not (found and found[2]) else ""
        raise UsageError(f"{_shown(value)} must lie between 0% and 100%{hint or ', and be neither'}")
    return share


def parse_load(value: object) -> float:
    """A load above 0, in requests/s or requests in flight."""
    load = _number(value, "is no load; write a number of requests/s, or of requests in flight")
    if not (math.isfinite(load) and load > 0):
        raise UsageError(f"{_shown(value)} must be above 0, and finite")
    return load


def parse_loads(value: object) -> tuple[float, ...]:
    """Loads from a list, or from text such as `1,2,4`; in the order given."""
    parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        parts = [parts]
    if not parts:
        raise UsageError("is empty; write loads such as 1,2,4")
    return tuple(parse_load(part) for part in parts)


def parse_count(value: object) -> int:
    """A whole number above 0."""
    if (count := parse_whole(value)) <= 0:
        raise UsageError(f"{_shown(value)} must be above 0")
    return count


def parse_whole(value: object) -> int:
    """A whole number, not below 0."""
    number = _number(value, "is no whole number")
    if number != int(number if math.isfinite(number) else 0) or number < 0:
        raise UsageError(f"{_shown(value)} must be a whole number, not below 0")
    return int(number)


def parse_positive(value: object) -> float:
    """A finite number above 0."""
    number = _number(value, "is no number")
    if not (math.isfinite(number) and number > 0):
        raise UsageError(f"{_shown(value)} must be a number above 0")
    return number


def parse_not_negative(value: object) -> float:
    """A finite number, not below 0."""
    number = _number(value, "is no number")
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(f"{_shown(value)} must be a number, not below 0")
    return number


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean X?`, or which names there are."""
    known = list(names)
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}" if known else "there are none"


def _number(value: object, otherwise: str, shown: object = None) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    raise UsageError(f"{_shown(value if shown is None else shown)} {otherwise}")


def _shown(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
