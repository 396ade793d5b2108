"""One preflight under way: what it asks with, and what a server's replies said."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from redline.loadgen.payload import PATHS, Payloads, Shape, Target
from redline.model import RedlineError, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What one request brought."""

    ok: bool
    words: str
    code: int
    broken: str
    headers: dict[str, str]
    streamed: bool
    events: int
    tokens_in: int
    tokens_out: int
    finish: str | None
    first_s: float | None
    body: bytes = b""

    @property
    def json(self) -> dict[str, Any]:
        """The body, where it is a JSON object."""
        try:
            answer = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return answer if isinstance(answer, dict) else {}


Ask: TypeAlias = Callable[[str, str, bytes | None], Reply]
"""Method, path, body."""


@dataclass(slots=True)
class Learning:
    """One preflight under way."""

    ask: Ask
    target: Target
    model: str
    workload: Workload
    served: Sequence[str] = ()
    warnings: list[str] = field(default_factory=list)
    seed: int = field(default_factory=lambda: time.time_ns() % (1 << 40))  # no prompt twice, even over sessions

    @property
    def path(self) -> str:
        return PATHS[self.workload.api]

    def send(self, shape: Shape, words: int, asked: int) -> Reply:
        self.seed += 1
        payloads = Payloads(self.target, self.model, self.workload, shape, self.seed)
        return self.ask("POST", self.path, payloads.body(0, words, asked))

    def refused(self, reply: Reply) -> RedlineError:
        """What the server said, and what to do."""
        url = self.target.origin + self.path
        if reply.code == 0:
            return RedlineError(f"POST {url} got no usable answer: {reply.broken}; check the URL and the server's log")
        if 300 <= reply.code < 400:
            there = reply.headers.get("location", "an unnamed place")
            return RedlineError(f"POST {url} redirects to {there}; give the address that it redirects to")
        if reply.code in (401, 403):
            cure = "name the variable that holds the key with --api-key-env, or send it with --header"
        elif reply.code == 404:
            serves = f"; it serves {', '.join(self.served)}" if self.served else ""
            cure = f"check the URL and --model ({self.model!r} was asked for{serves})"
        elif reply.code in (429, 503):
            cure = "it rejects a single request: wait until it is ready, or raise its limits"
        elif reply.code >= 400:
            cure = "change the workload (--workload, --api, --model) so that the server takes it; its log may say more"
        elif not reply.streamed:
            cure = 'Redline measures streamed tokens: the server must answer "stream": true with server-sent events'
        else:
            cure = "check the server's log"
        return RedlineError(f"POST {url} failed in preflight: {reply.words}; {cure}")
