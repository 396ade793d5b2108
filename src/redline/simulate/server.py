"""The simulated server over HTTP: routes, answers and faults on one event loop."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections import deque
from importlib.metadata import version
from typing import cast

from redline import lengths
from redline.model import Lengths, RedlineError
from redline.process.priority import wake_promptly
from redline.simulate import http, openai
from redline.simulate.clock import Clock
from redline.simulate.engine import Request
from redline.simulate.openai import ApiError, Ask, Stamp
from redline.simulate.profiles import Profile


def serve(profile: Profile, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve this profile until the process is told to end. Port 0 takes a free one; a line on stdout names it.

    SIGTERM keeps its default action, which ends the process at once: nothing here is worth a farewell.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wake_promptly()  # its steps have a schedule, as a GPU's have
    try:
        asyncio.run(_listen(profile, host, port))
    except KeyboardInterrupt:
        sys.exit(130)


async def _listen(profile: Profile, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    service = _Service(profile, Clock(profile, loop))
    try:
        listener = await loop.create_server(lambda: _Connection(service), host, port, backlog=4096)
    except OSError as error:
        raise RedlineError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno) if error.errno else error}; "
            "stop what uses the port, or choose another one (0 takes a free one)"
        ) from error
    port = listener.sockets[0].getsockname()[1]
    where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    sys.stdout.write(f"simulated server {profile.name}, {profile.max_num_seqs} slots, listens on {where}\n")
    sys.stdout.flush()
    async with listener:
        await listener.serve_forever()


class _Service:
    """What all connections share: the engine, and the count of requests that the faults go by."""

    def __init__(self, profile: Profile, clock: Clock) -> None:
        self.profile = profile
        self.clock = clock
        self.created = int(time.time())
        self._requests = 0

    @property
    def ready(self) -> bool:
        faults = self.profile.faults
        return not faults.never_ready and self.clock.age_s >= faults.ready_after_s

    def plain(self, method: str, path: str) -> bytes | ApiError:
        """The body that answers anything but a request for tokens."""
        if not self.ready:
            return ApiError(503, "the server is starting")
        if path in ("/health", "/ping", "/version", "/v1/models", "/metrics"):
            wanted = "GET"
        elif path in ("/reset_prefix_cache", *openai.PATHS):
            wanted = "POST"
        else:
            return ApiError(404, f"there is no {path} here")
        if method != wanted:
            return ApiError(405, f"{path} takes {wanted}")
        match path:
            case "/v1/models":
                return openai.models(self.profile, self.created)
            case "/version":
                return b'{"version":"redline-sim-%b"}' % version("redline").encode()
            case "/metrics":
                return openai.metrics(self.profile.model, self.clock.engine)
            case "/reset_prefix_cache":
                if (cache := self.clock.engine.cache) is not None:
                    cache.reset()
                return b""
            case _:
                return b""

    def generate(self, ask: Ask, connection: _Connection) -> _Answer:
        """Hand a request to the engine; ApiError where a fault says so."""
        faults = self.profile.faults
        self._requests += 1
        number = self._requests
        if faults.crash_after and number >= faults.crash_after:
            _crash(self.clock.in_flight)
        if faults.crash_above and self.clock.in_flight >= faults.crash_above:
            _crash(self.clock.in_flight + 1)
        if faults.hang_after and number > faults.hang_after:
            self.clock.hang()
        if faults.reject_every and number % faults.reject_every == 0:
            raise ApiError(429, "simulated rejection: the server is full")
        output = ask.limit if ask.ignore_eos else self._natural(ask, number)
        broken = ""
        if faults.error_every and number % faults.error_every == 0:
            broken = "error"
        elif faults.drop_every and number % faults.drop_every == 0:
            broken = "drop"
        request = Request(number, ask.prompt, max(output // 2, 1) if broken else output, blocks=ask.blocks)
        prefix = "chatcmpl" if ask.api == "chat" else "cmpl"
        stamp = Stamp(id=f"{prefix}-{number:08x}", created=int(time.time()), model=self.profile.model)
        answer = _Answer(ask, request, stamp, connection, broken)
        self.clock.submit(request, answer)
        return answer

    def _natural(self, ask: Ask, number: int) -> int:
        """How long an answer is that may stop by itself."""
        like = Lengths(mean=self.profile.answer_tokens, cv=0.6, low=1, high=self.profile.max_model_len)
        length = int(lengths.sample(like, self.profile.seed, number, 1, "natural")[0])
        return min(max(length, ask.least, 1), ask.limit)


class _Answer:
    """One request's tokens on their way to its client."""

    def __init__(self, ask: Ask, request: Request, stamp: Stamp, connection: _Connection, broken: str) -> None:
        self.request = request
        self._ask = ask
        self._stamp = stamp
        self._connection = connection
        self._broken = broken
        self._tokens = 0
        self._chunk = http.chunk(openai.token_event(stamp, ask.api)) if ask.stream else b""

    def token(self) -> None:
        """A token is there: one write, whatever goes with it."""
        self._tokens += 1
        last = self._tokens == self.request.output
        if self._ask.stream:
            before = b""
            if self._tokens == 1:
                before = http.SSE_HEAD
                if self._ask.api == "chat":
                    before += http.chunk(openai.role_event(self._stamp))
            self._connection.write(before + (self._stream_end() if last else self._chunk))
        if last:
            if not self._ask.stream and not self._broken:
                body = openai.whole(self._stamp, self._ask, self._tokens, self._reason, self.request.cached)
                self._connection.write(http.answer(200, body))
            elif not self._ask.stream and self._broken == "error":
                self._connection.write(http.answer(500, openai.error_body(500, "simulated error")))
            self._connection.answered(drop=self._broken == "drop")

    @property
    def _reason(self) -> str:
        return "length" if self._tokens == self._ask.limit else "stop"

    def _stream_end(self) -> bytes:
        """The last token, and what comes after it."""
        api = self._ask.api
        if self._broken == "drop":
            return self._chunk
        if self._broken == "error":
            return (
                self._chunk
                + http.chunk(openai.error_event("simulated error"))
                + http.chunk(openai.DONE)
                + http.LAST_CHUNK
            )
        events = http.chunk(openai.last_event(self._stamp, api, self._reason))
        if self._ask.include_usage:
            events += http.chunk(openai.usage_event(self._stamp, self._ask, self._tokens, self.request.cached))
        return events + http.chunk(openai.DONE) + http.LAST_CHUNK


class _Connection(asyncio.Protocol):
    """One client's connection: one request at a time, in order."""

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._parser = http.Parser()
        self._queue: deque[http.HttpRequest] = deque()
        self._answer: _Answer | None = None
        self._keep_alive = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._transport = None
        self._queue.clear()
        if self._answer is not None:
            self._service.clock.abort(self._answer.request)
            self._answer = None

    def data_received(self, data: bytes) -> None:
        try:
            self._queue.extend(self._parser.feed(data))
        except http.HttpError as error:
            self._close_with(http.answer(error.status, openai.error_body(error.status, str(error)), keep_alive=False))
            return
        if self._parser.wants_continue:
            self._parser.wants_continue = False
            self.write(http.CONTINUE)
        self._next()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def answered(self, *, drop: bool = False) -> None:
        """The answer to the present request is written: close, or go on to the next."""
        self._answer = None
        if drop or not self._keep_alive:
            self._close_with(b"")
        else:
            self._next()

    def _close_with(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            self._transport.close()

    def _next(self) -> None:
        while self._queue and self._answer is None and self._transport is not None:
            self._handle(self._queue.popleft())

    def _handle(self, request: http.HttpRequest) -> None:
        self._keep_alive = request.keep_alive
        service = self._service
        try:
            body = service.plain(request.method, request.path)
            if isinstance(body, ApiError):
                raise body
            if api := openai.PATHS.get(request.path):
                self._answer = service.generate(openai.parse(api, request.body, service.profile), self)
                return
            kind = "text/plain; version=0.0.4" if request.path == "/metrics" else "application/json"
            self.write(http.answer(200, body, kind, keep_alive=request.keep_alive))
        except ApiError as error:
            self.write(http.answer(error.status, error.body, keep_alive=request.keep_alive))
        if not request.keep_alive:
            self._close_with(b"")


def _crash(in_flight: int) -> None:
    """Die as a server dies that runs out of memory: at once, with a last word."""
    sys.stderr.write(f"simulated crash with {in_flight} requests in flight\n")
    sys.stderr.flush()
    os._exit(1)
