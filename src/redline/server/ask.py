"""Questions put to a server over HTTP, apart from the load: who it is, whether it is ready, busy or quick."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

from redline.model import Endpoint, RedlineError, ServerConfig, UsageError

_LONGEST_REPLY = 4 * 2**20


class NoReplyError(RedlineError):
    """The server could not be reached, broke off, or did not speak HTTP."""


class SlowReplyError(NoReplyError):
    """There is a server, but it took longer than we wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came back, whatever its status."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def ask(endpoint: Endpoint, path: str, payload: Mapping[str, object] | None = None, *, timeout_s: float = 5.0) -> Reply:
    """GET, or POST where there is a payload; NoReplyError when none comes. Redirects are not followed."""
    with _opened(endpoint, path, payload, timeout_s) as response:
        try:
            body = response.read(_LONGEST_REPLY).decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise _no_reply(endpoint.url + path, error) from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(status=response.status, body=body, headers=headers)


def first_token_s(endpoint: Endpoint, api: str, nonce: str, *, timeout_s: float) -> float | None:
    """Time to the first token of one small streamed request; None when it was refused or made no token."""
    prompt = f"{nonce} Say hello."
    small: dict[str, object] = {"model": endpoint.model, "max_tokens": 2, "temperature": 0, "stream": True}
    if api == "chat":
        path, payload = "/v1/chat/completions", {**small, "messages": [{"role": "user", "content": prompt}]}
    else:
        path, payload = "/v1/completions", {**small, "prompt": prompt}
    began = time.monotonic()
    first = None
    with _opened(endpoint, path, payload, timeout_s) as response:
        if response.status != 200:
            return None
        try:
            for line in response:
                if first is None and _holds_token(line):
                    first = time.monotonic() - began
                if time.monotonic() - began > timeout_s:
                    break
        except (OSError, HTTPException) as error:
            raise _no_reply(endpoint.url + path, error) from error
    return first


def headers_of(config: ServerConfig) -> dict[str, str]:
    """The headers of every request, with the key from the environment."""
    headers = {name: expand(value, f"header {name}") for name, value in config.headers.items()}
    if config.api_key_env:
        headers["Authorization"] = "Bearer " + expand(f"${{{config.api_key_env}}}", "--api-key-env")
    return headers


def expand(text: str, where: str) -> str:
    """`${NAME}` replaced from the environment; UsageError names what is not set."""

    def value(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise UsageError(
                f"environment variable {match[1]} is not set ({where}); set it: export {match[1]}=..."
            ) from None

    return re.sub(r"\$\{(\w+)\}", value, text)


def _holds_token(line: bytes) -> bool:
    if not line.startswith(b"data:"):
        return False
    try:
        choices = json.loads(line[5:])["choices"]
        parts = [{**choice, **(choice.get("delta") or {})} for choice in choices]
    except (ValueError, KeyError, TypeError):  # [DONE], usage, an error
        return False
    return any(part.get(name) for part in parts for name in ("content", "reasoning_content", "reasoning", "text"))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:  # noqa: ARG002 - urllib's signature, none of it is wanted
        return None


@contextmanager
def _opened(
    endpoint: Endpoint, path: str, payload: Mapping[str, object] | None, timeout_s: float
) -> Iterator[HTTPResponse]:
    url = endpoint.url + path
    headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", **endpoint.headers}
    data = None if payload is None else json.dumps(payload).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        response = _opener(endpoint.insecure).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        response = error
    except (OSError, HTTPException) as error:  # URLError is an OSError
        raise _no_reply(url, getattr(error, "reason", error)) from error
    with response:
        yield cast("HTTPResponse", response)


def _no_reply(url: str, reason: object) -> NoReplyError:
    if isinstance(reason, TimeoutError):
        return SlowReplyError(f"{url} does not answer in time")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return NoReplyError(
            f"{url}: {reason.verify_message}; for a certificate of your own, --insecure skips the check"
        )
    return NoReplyError(f"{url} does not answer: {reason}")


@cache
def _opener(insecure: bool) -> urllib.request.OpenerDirector:
    """Without proxies: what is measured is the server."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
    )
