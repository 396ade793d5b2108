"""The bytes of each request: endpoint, workload and what the server takes, put together."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

from redline import lengths
from redline.loadgen.prompts import Prompts
from redline.loadgen.written import Written, in_api, opened
from redline.model import Endpoint, UsageError, Workload
from redline.prefixes import BLOCK_TOKENS, blocks_of, group_of, has_blocks, shared

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_BLOCK = 256  # lengths are drawn this many at a time
_SLACK_SHARE, _SLACK_TOKENS = 0.03, 16  # what a prompt may turn out longer than it was meant


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where the server is, taken apart."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    prefix: str
    headers: Mapping[str, str]
    insecure: bool

    @property
    def origin(self) -> str:
        """For messages."""
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """host:port as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How to ask this server: learnt by preflight."""

    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    include_usage: bool = True  # stream_options
    ignore_eos: bool = True
    min_tokens: bool = True
    tokens_per_word: float = 1.3
    extra_tokens: float = 0.0  # of the chat template
    ids: tuple[int, int] | None = None  # random token ids from this range instead of words
    context_limit: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One request, ready to be sent."""

    i: int
    tokens_in: int
    tokens_asked: int
    payload: bytes = field(repr=False)


def target_of(endpoint: Endpoint) -> Target:
    """The endpoint's URL, taken apart; a trailing /v1 is dropped."""
    url = endpoint.url if "://" in endpoint.url else f"http://{endpoint.url}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{endpoint.url} is no URL: {error}; write it as http://host:port") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{endpoint.url} is no URL of a server; write it as http://host:port or https://host")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    return Target(
        scheme=scheme,
        host=parts.hostname,
        port=port or (443 if scheme == "https" else 80),
        prefix=parts.path.rstrip("/").removesuffix("/v1"),
        headers=dict(endpoint.headers),
        insecure=endpoint.insecure,
    )


def message(target: Target, method: str, path: str, body: bytes | None = None) -> bytes:
    """The bytes of one HTTP request."""
    return (
        _head(target, method, path, body is not None)
        + (b"%d\r\n\r\n" % len(body) if body is not None else b"")
        + (body or b"")
    )


def _head(target: Target, method: str, path: str, with_body: bool) -> bytes:
    """Up to the number after Content-Length, or up to the empty line where there is no body."""
    headers = {
        "Host": target.authority,
        "User-Agent": "redline",
        "Accept": "text/event-stream" if with_body else "application/json",
        "Accept-Encoding": "identity",
    }
    if with_body:
        headers["Content-Type"] = "application/json"
    own = {name.lower() for name in target.headers}
    lines = [f"{name}: {value}" for name, value in headers.items() if name.lower() not in own]
    lines += [f"{name}: {value}" for name, value in target.headers.items()]
    for line in lines:
        if "\r" in line or "\n" in line or not line.isascii():
            raise UsageError(f"header {line.split(':')[0]!r} has a line break or a character beyond ASCII; remove it")
    head = "".join([f"{method} {target.prefix}{path} HTTP/1.1\r\n", *(line + "\r\n" for line in lines)])
    return (head + ("Content-Length: " if with_body else "\r\n")).encode()


class Payloads:
    """Requests 0, 1, 2, ... of one (workload, seed), each built when asked for."""

    def __init__(self, target: Target, model: str, workload: Workload, shape: Shape, seed: int) -> None:
        self.workload, self.shape, self._seed = workload, shape, seed
        words = workload.tokenizer.words if workload.tokenizer is not None else ()
        self._prompts = Prompts(seed, shape.ids, words)
        self._has_blocks = has_blocks(workload)
        common = workload.prefix or self._has_blocks
        self._groups = Prompts(0, shape.ids, words) if workload.repeat and common else self._prompts
        self._head = _head(target, "POST", PATHS[workload.api], True)
        options: dict[str, Any] = {"model": model, "stream": True}
        if shape.include_usage:
            options["stream_options"] = {"include_usage": True}
        self._options = {**options, **workload.extra, "ignore_eos": workload.ignore_eos}
        self._before, self._after = {
            ("chat", False): (b'"messages":[{"role":"user","content":"', b'"}]'),
            ("completions", False): (b'"prompt":"', b'"'),
            ("completions", True): (b'"prompt":[', b"]"),
        }[workload.api, shape.ids is not None]
        self._plain = self._around(self._options)
        dataset = workload.dataset
        self._written = Written(workload, dataset, seed, self._prompts) if dataset is not None else None
        self._next = 0
        self._drawn: deque[tuple[int, int]] = deque()

    def next(self) -> Planned:
        """The next request."""
        i, tokens_in, tokens_asked = self._draw()
        if self._written is None:
            return self.build(i, *fitting(tokens_in, tokens_asked, self.shape.context_limit))
        return self.build(i, tokens_in, beside(tokens_in, tokens_asked, self.shape))

    def skip(self, count: int) -> None:
        """Leave out so many: other workers send them."""
        for _ in range(count):
            self._draw()

    def _draw(self) -> tuple[int, int, int]:
        """The number and the lengths of the next request."""
        if not self._drawn:
            prompt, output = lengths.tokens(self.workload, self._seed, self._next, _BLOCK)
            self._drawn.extend(zip(prompt.tolist(), output.tolist(), strict=True))
        i, (tokens_in, tokens_asked) = self._next, self._drawn.popleft()
        self._next += 1
        return i, tokens_in, tokens_asked

    def build(self, i: int, tokens_in: int, tokens_asked: int) -> Planned:
        """Request `i` with these lengths; a prompt from a file has its own."""
        written = self._written
        body = self._from_file(written, i, tokens_asked) if written else self._made_up(i, tokens_in, tokens_asked)
        return self._planned(i, tokens_in, tokens_asked, body)

    def _planned(self, i: int, tokens_in: int, tokens_asked: int, body: bytes) -> Planned:
        payload = b"%s%d\r\n\r\n%s" % (self._head, len(body), body)
        return Planned(i=i, tokens_in=tokens_in, tokens_asked=tokens_asked, payload=payload)

    def _made_up(self, i: int, tokens_in: int, tokens_asked: int) -> bytes:
        return self.body(i, pieces(self.shape, tokens_in), tokens_asked)

    def body(self, i: int, count: int, tokens_asked: int) -> bytes:
        """The JSON of request `i` with this number of made-up words or token ids."""
        return self._saying(b"%s%s%s" % (self._before, self._text(i, count).encode(), self._after), tokens_asked)

    def _text(self, i: int, count: int) -> str:
        """Words or ids: first what the request has in common with others, then those that are its own."""
        if self._has_blocks:
            return self._of_blocks(blocks_of(self.workload, self._seed, i), i, count)
        prefix = self.workload.prefix
        common = 0 if prefix is None else shared(prefix, count, self.shape.tokens_per_word)
        if prefix is None or not common:
            return self._prompts.text(i, count)
        group = group_of(prefix, self._seed, i)
        parts = self._groups.text(-1 - group, common), self._prompts.text(i, count - common)
        return self._prompts.joint.join(parts)

    def _of_blocks(self, blocks: Sequence[int], i: int, count: int) -> str:
        """The text of each block, the last one cut, and what is left of the request's own."""
        parts, done = [], 0
        for number, block in enumerate(blocks, 1):
            end = min(round(number * BLOCK_TOKENS / self.shape.tokens_per_word), count)
            if end > done:
                parts.append(self._groups.text(-1 - block, end - done))
                done = end
        if count > done:
            parts.append(self._prompts.text(i, count - done))
        return self._prompts.joint.join(parts)

    def words(self, i: int, tokens: int) -> str:
        """Made-up text of about so many tokens that belongs to `i`."""
        return self._prompts.text(i, pieces(self.shape, tokens))

    def user_message(self, i: int, tokens: int) -> bytes:
        """JSON of a made-up message of about so many tokens."""
        return b'{"role":"user","content":"%s"}' % self.words(i, tokens).encode()

    def conversation(self, i: int, messages: bytes, tokens_in: int, tokens_asked: int) -> Planned:
        """Request `i` with these messages, as JSON with commas between."""
        body = self._saying(b'"messages":[%s]' % messages, tokens_asked)
        return self._planned(i, tokens_in, tokens_asked, body)

    def opened(self, prompt: bytes, tokens_asked: int) -> bytes:
        """The JSON of a request with this prompt (JSON of a text or messages), and an opening of its own."""
        prompt = opened(prompt, self._prompts.opening(0))
        return self._saying(in_api(prompt, self.workload.api), tokens_asked)

    def _saying(self, said: bytes, tokens_asked: int, own: dict[str, Any] | None = None) -> bytes:
        head, least = self._around({**self._options, **own}) if own else self._plain
        return b"".join([head, said, self._end(tokens_asked, least)])

    def _from_file(self, written: Written, i: int, tokens_asked: int) -> bytes:
        prompt, own = written.prompt(i)
        return self._saying(in_api(prompt, self.workload.api), tokens_asked, own)

    def _around(self, options: dict[str, Any]) -> tuple[bytes, int | None]:
        """A body up to its prompt, and how many tokens the output must have: None as many as asked."""
        options = dict(options)
        least = options.pop("min_tokens", self.workload.min_tokens or 0)
        if not (self.shape.ignore_eos and options["ignore_eos"]):
            del options["ignore_eos"]
            return orjson.dumps(options)[:-1] + b",", least if self.shape.min_tokens else 0
        return orjson.dumps(options)[:-1] + b",", None if self.shape.min_tokens else 0

    def _end(self, tokens_asked: int, least: int | None) -> bytes:
        end = b',"%s":%d' % (self.shape.length_field.encode(), tokens_asked)
        least = tokens_asked if least is None else min(least, tokens_asked)
        return b'%s,"min_tokens":%d}' % (end, least) if least else end + b"}"


def pieces(shape: Shape, tokens_in: int) -> int:
    """How many words or ids make a prompt of about this many tokens."""
    return max(1, round((tokens_in - shape.extra_tokens) / shape.tokens_per_word))


def fitting(tokens_in: int, tokens_asked: int, limit: int | None) -> tuple[int, int]:
    """The lengths, cut so that prompt and output fit the context: first the prompt, to no less than half the room."""
    if limit is None or room(tokens_in) + tokens_asked <= limit:
        return tokens_in, tokens_asked
    tokens_asked = max(1, min(tokens_asked, limit - min(math.ceil(room(tokens_in)), limit // 2)))
    return max(1, int((limit - tokens_asked - _SLACK_TOKENS) / (1 + _SLACK_SHARE))), tokens_asked


def beside(tokens_in: int, tokens_asked: int, shape: Shape) -> int:
    """The output that fits the context beside a prompt that cannot be cut."""
    if shape.context_limit is None:
        return tokens_asked
    return max(1, min(tokens_asked, math.floor(shape.context_limit - room(tokens_in) - shape.extra_tokens)))


def longest(shape: Shape) -> int | None:
    """The longest prompt that leaves room for one token of output."""
    if shape.context_limit is None:
        return None
    return int((shape.context_limit - 1 - shape.extra_tokens - _SLACK_TOKENS) / (1 + _SLACK_SHARE))


def room(tokens_in: int) -> float:
    """What a prompt may need at most: its length in tokens is only estimated."""
    return tokens_in * (1 + _SLACK_SHARE) + _SLACK_TOKENS
