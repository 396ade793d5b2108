"""Secrets replaced by *** in what is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar, cast

HIDDEN = "***"

_REFERENCE = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
_REFERENCE_ONLY = re.compile(rf"(?:(?:Bearer|Basic|Token)\s+)?{_REFERENCE}\W*", re.IGNORECASE)
_SECRET_NAME = re.compile(
    r"(?:.*[^a-z0-9])?(?:(?:proxy-)?authorization|cookie|(?:x-)?api[-_]?key|apikey|(?:access|auth|secret)[-_]key|token"
    r"|secret|passwo?r?d|credentials?)",
    re.IGNORECASE,
)
_NAMES = (
    r"(?:[\w-]*[^a-z0-9\s])?(?:authorization|(?:x[-_])?api[-_]?key|(?:access|auth|secret)[-_]key)"
    r"|(?:[a-z0-9_]*_)?password|(?:hf|auth|access|bearer)_token|(?-i:(?:[A-Z0-9_]+_)?(?:TOKEN|SECRET|PASSWD))"
)
_SCHEME = r"(?:(?:Bearer|Basic|Token)\s+)?"
_WORD = r"[^\s\"',;\[\]\\]+"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # --api-key VALUE, --api-key=VALUE, "--api-key", "VALUE"
        rf"(?P<keep>(?<![\w-])--?api[-_]key\\*[\"']?(?:\s*,\s*|\s+|=)\\*[\"']?)(?P<secret>{_WORD})",
        # Authorization: Bearer VALUE, api_key = "VALUE", "api-key": "VALUE", api_key=['VALUE']
        rf"(?P<keep>(?<![\w-])(?:{_NAMES})\\*[\"']?\s*[:=]\s*\[?\s*\\*[\"']{{1,3}})(?P<secret>[^\"'\\\r\n]+)",
        rf"(?P<keep>(?<![\w-])(?:{_NAMES})\s*[:=]\s*{_SCHEME})(?P<secret>{_WORD})",
        r"(?P<keep>\bBearer\s+)(?P<secret>[A-Za-z0-9._~+/=-]{6,})",
        r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s/@:\"']*:)(?P<secret>[^\s/@\"']+)(?=@)",
    )
)
_KEY_OPTION = re.compile(r"--?api[-_]key", re.IGNORECASE)
_SCHEME_BEFORE = re.compile(rf"^{_SCHEME}", re.IGNORECASE)
_EMPTY = ("none", "null", "true", "false", HIDDEN)

T = TypeVar("T")


def redact(value: T, secrets: Sequence[str] = ()) -> T:
    """The same text, mapping or list with literal secrets replaced: authorization headers, API keys, passwords.

    `${NAME}` stays, since it is no secret. `secrets` are literals that are known to be some. Not covered: a key
    that stands in free text under no name, unless it is among `secrets`.
    """
    if isinstance(value, str):
        return cast(T, _text(value, secrets))
    if isinstance(value, Mapping):
        entries = {redact(key, secrets): _entry(key, entry, secrets) for key, entry in value.items()}
        return cast(T, entries)
    if isinstance(value, (list, tuple)):
        return cast(T, type(value)(_words(value, secrets)))
    return value


def literals(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The values in headers or an environment that are secrets, without the scheme before them."""
    named = (_SCHEME_BEFORE.sub("", value.strip()) for name, value in settings.items() if _SECRET_NAME.fullmatch(name))
    return tuple(value for value in dict.fromkeys(named) if _worth_hiding(value))


def literals_in(command: Sequence[str]) -> tuple[str, ...]:
    """The secrets among a command's words."""
    matches = (match for word in command for pattern in _PATTERNS for match in pattern.finditer(word))
    found = [match["secret"] for match in matches]
    found += [word for option, word in pairwise(command) if _KEY_OPTION.fullmatch(option)]
    return tuple(value for value in dict.fromkeys(found) if _worth_hiding(value))


def _worth_hiding(value: str) -> bool:
    """Short ones would hide harmless text wherever it looks the same."""
    return len(value) >= 6 and "${" not in value and value.lower() not in _EMPTY


def _entry(key: object, entry: object, secrets: Sequence[str]) -> object:
    if isinstance(key, str) and isinstance(entry, str) and _SECRET_NAME.fullmatch(key):
        return entry if not entry or _REFERENCE_ONLY.fullmatch(entry.strip()) else HIDDEN
    return redact(entry, secrets)


def _words(values: Sequence[object], secrets: Sequence[str]) -> list[object]:
    """A command's words: the value of --api-key may be the word after it."""
    result: list[object] = []
    hide = False
    for value in values:
        if hide and isinstance(value, str) and not value.startswith("-"):
            result.append(value if _REFERENCE_ONLY.fullmatch(value) else HIDDEN)
        else:
            result.append(redact(value, secrets))
        hide = isinstance(value, str) and _KEY_OPTION.fullmatch(value) is not None
    return result


def _text(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(_hide, text)
    return text


def _hide(match: re.Match[str]) -> str:
    secret = match["secret"]
    harmless = _REFERENCE_ONLY.fullmatch(secret.strip()) or secret.strip(" }{").lower() in _EMPTY
    return match[0] if harmless else match["keep"] + HIDDEN
