"""Whether a server answers as an LLM server does, and which model and which start of it that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from redline.model import Endpoint, RedlineError
from redline.process import table
from redline.server import address
from redline.server.ask import NoReplyError, Reply, SlowReplyError, ask

_PATHS = ("/health", "/v1/models")
_LISTED = 8  # models named in a message
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_MADE_NOW_S = 3.0  # a `created` this close to the reply was made for the reply, and names no start


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What /v1/models says, the default model first; no models where the server has no such page."""

    models: tuple[str, ...]
    created: str = ""
    status: int = 200


def wait_until_ready(endpoint: Endpoint, ready: str | None, timeout_s: float, check: Callable[[], None]) -> str:
    """The path that answered 200; `check` raises when waiting is pointless. RedlineError after `timeout_s`."""
    deadline, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while True:
        check()
        path, seen = _ready_path(endpoint, (ready,) if ready else _PATHS)
        if path is not None:
            check()  # that it was not somebody else's server that answered
            return path
        if time.monotonic() >= deadline:
            raise RedlineError(f"server was not ready after {timeout_s:g} s: {seen}")
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)


def answers(endpoint: Endpoint, path: str) -> bool:
    """Is there a server that has not broken? One that is only slow is."""
    try:
        return not _broken(ask(endpoint, path, timeout_s=1.0).status)
    except SlowReplyError:
        return True
    except NoReplyError:
        return False


def listing(endpoint: Endpoint) -> Listing:
    """What the server serves; RedlineError where it does not let us see it."""
    reply = ask(endpoint, "/v1/models", timeout_s=10.0)
    if reply.status in (401, 403):
        raise RedlineError(
            f"{endpoint.url} answers {reply.status}: it wants a key; put the key in an environment variable "
            "and name it: --api-key-env NAME"
        )
    if 300 <= reply.status < 400:
        raise RedlineError(f"{endpoint.url} redirects to {reply.headers.get('location', '?')}; give that URL instead")
    if _broken(reply.status):
        raise RedlineError(f"{endpoint.url}/v1/models answers {reply.status}: {reply.body[:200]}")
    data = reply.json() if reply.status == 200 else None
    rows = data.get("data") if isinstance(data, Mapping) else None
    cards = [row for row in rows if isinstance(row, Mapping) and "id" in row] if isinstance(rows, list) else []
    return Listing(models=tuple(str(card["id"]) for card in cards), created=_created(reply, cards), status=reply.status)


def choose_model(endpoint: Endpoint, listing: Listing, wanted: str | None) -> Endpoint:
    """The endpoint with the wanted model, or the first one that is served."""
    served = listing.models
    if wanted is None and listing.status >= 400:
        raise RedlineError(
            f"{endpoint.url}/v1/models answers {listing.status}: correct the URL, "
            "or, where the server has no such page, say which model to measure: --model NAME"
        )
    if wanted is None and not served:
        raise RedlineError(f"{endpoint.url}/v1/models names no model; say which one to measure: --model NAME")
    if wanted is not None and served and wanted not in served:
        more = f" and {len(served) - _LISTED} more" if len(served) > _LISTED else ""
        raise RedlineError(
            f"model {wanted!r} is not served at {endpoint.url}; it serves {', '.join(served[:_LISTED])}{more}. "
            "Choose with --model"
        )
    return replace(endpoint, model=wanted if wanted is not None else served[0])


def start_of(endpoint: Endpoint, created: str) -> str:
    """What tells this start of a server from another one; empty where nothing does."""
    host, port = address.host_and_port(endpoint.url)
    holder = table.listener(port) if address.is_local(host) else None
    local = f"pid={holder.pid}@{holder.start_time}" if holder else ""
    process = local or _process_start(endpoint)
    facts = {"version": version(endpoint), "process": process, "created": "" if process else created}
    return " ".join(f"{name}={value}" for name, value in facts.items() if value)


def version(endpoint: Endpoint) -> str:
    """The engine's version as /version tells it (vLLM); else empty."""
    try:
        reply = ask(endpoint, "/version")
    except NoReplyError:
        return ""
    data = reply.json() if reply.status == 200 else None
    return str(data.get("version", "")) if isinstance(data, Mapping) else ""


def _ready_path(endpoint: Endpoint, paths: Sequence[str]) -> tuple[str | None, str]:
    """The first path that answers 200, or what was seen instead."""
    seen = ""
    for path in paths:
        try:
            reply = ask(endpoint, path)
        except NoReplyError as error:
            return None, str(error)
        if reply.status == 200:
            return path, ""
        seen = f"{endpoint.url}{path} answers {reply.status}"
        if _broken(reply.status):  # it has this page, and says that it is not ready
            break
    return None, seen


def _broken(status: int) -> bool:
    return status >= 500 and status != 501  # 501: no such page


def _created(reply: Reply, cards: Sequence[Mapping[str, Any]]) -> str:
    """The first model's `created`, unless it is the time of the reply (vLLM, llama.cpp)."""
    made = cards[0].get("created") if cards else None
    if not isinstance(made, int | float):
        return ""
    try:
        now = parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError):
        now = time.time()
    return "" if abs(now - made) < _MADE_NOW_S else f"{made:g}"


def _process_start(endpoint: Endpoint) -> str:
    try:
        reply = ask(endpoint, "/metrics")
    except NoReplyError:
        return ""
    rows = [line.split() for line in reply.body.splitlines() if line.startswith("process_start_time_seconds ")]
    return rows[0][1] if rows and reply.status == 200 else ""
