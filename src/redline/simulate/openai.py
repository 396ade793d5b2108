"""The OpenAI API as bytes: what a body asks for, and what answers it, in vLLM's form. Does no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from redline.simulate.cache import blocks_of
from redline.simulate.engine import Engine
from redline.simulate.profiles import Profile

Api: TypeAlias = Literal["chat", "completions"]

PATHS: Mapping[str, Api] = {"/v1/chat/completions": "chat", "/v1/completions": "completions"}
WORD = " token"  # every token reads so
_DEFAULT_OUTPUT: Mapping[Api, int | None] = {"chat": None, "completions": 16}  # None: as much as the context allows


class ApiError(Exception):
    """A request that gets an error instead of tokens."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    @property
    def body(self) -> bytes:
        return error_body(self.status, str(self), self.param)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What a request wants."""

    api: Api
    prompt: int  # tokens
    blocks: tuple[int, ...]  # of the prompt, where there is a prefix cache
    limit: int  # no more tokens than this
    least: int  # no fewer, when it may stop by itself
    ignore_eos: bool
    stream: bool
    include_usage: bool


def parse(api: Api, body: bytes, profile: Profile) -> Ask:
    """What the body asks for, or ApiError."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ApiError(400, "the body must be a JSON object")
    model = given.get("model") or profile.model
    if model != profile.model:
        raise ApiError(404, f"The model `{model}` does not exist.", "model")
    pieces = _messages(given.get("messages")) if api == "chat" else _prompt(given.get("prompt"))
    prompt = max(len(pieces), 1)
    if _integer(given, "n", 1, 1) != 1:
        raise ApiError(400, "this server gives one choice per request: n must be 1", "n")
    context = min(profile.max_model_len, profile.kv_tokens)
    room = context - prompt
    if room < 1:
        raise ApiError(400, f"This model's maximum context length is {context} tokens, but the prompt has {prompt}.")
    limit = _integer(given, "max_completion_tokens", 1, None) if api == "chat" else None
    if limit is None:
        limit = _integer(given, "max_tokens", 1, _DEFAULT_OUTPUT[api])
    if limit is None:
        limit = room
    if limit > room:
        raise ApiError(
            400,
            f"This model's maximum context length is {context} tokens. However, you requested {prompt + limit} tokens "
            f"({prompt} in the prompt, {limit} in the completion).",
            "max_tokens",
        )
    least = _integer(given, "min_tokens", 0, 0) or 0
    if least > limit:
        raise ApiError(400, f"min_tokens must be at most max_tokens={limit}, got {least}.", "min_tokens")
    stream = _flag(given, "stream")
    options = given.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, "stream_options must be an object", "stream_options")
    if options and not stream:
        raise ApiError(400, "Stream options can only be defined when `stream=True`.", "stream_options")
    return Ask(
        api=api,
        prompt=prompt,
        blocks=blocks_of(pieces) if profile.prefix_cache_tokens else (),
        limit=limit,
        least=least,
        ignore_eos=_flag(given, "ignore_eos"),
        stream=stream,
        include_usage=_flag(options, "include_usage"),
    )


def _messages(messages: object) -> Sequence[object]:
    """Tokens of a chat: its words."""
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list of at least one message", "messages")
    words: list[str] = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ApiError(400, "each message must be an object with a role", "messages")
        content = message.get("content")
        parts = content if isinstance(content, list) else [content]
        for part in parts:
            text = part.get("text", "") if isinstance(part, dict) else part
            if text is not None and not isinstance(text, str):
                raise ApiError(400, "the content of a message must be text, or a list of text parts", "messages")
            words += (text or "").split()
    return words


def _prompt(prompt: object) -> Sequence[object]:
    """Tokens of a prompt: its words, or the ids it consists of."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.split()
    if isinstance(prompt, list) and prompt and all(type(token) is int and token >= 0 for token in prompt):
        return prompt
    if isinstance(prompt, list) and len(prompt) > 1 and all(isinstance(each, str | list) for each in prompt):
        raise ApiError(400, "this server takes one prompt per request", "prompt")
    raise ApiError(400, "prompt must be text, a list of token ids, or a list with one of these", "prompt")


def _integer(given: Mapping[str, object], key: str, least: int, default: int | None) -> int | None:
    value = given.get(key)
    if value is None:
        return default
    if type(value) is not int or value < least:
        raise ApiError(400, f"{key} must be a whole number of at least {least}, got {value!r}.", key)
    return value


def _flag(given: Mapping[str, object], key: str) -> bool:
    value = given.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise ApiError(400, f"{key} must be true or false, got {value!r}.", key)
    return value


# ---- answers ---------------------------------------------------------------------------------------------------------

_TYPES = {400: "BadRequestError", 404: "NotFoundError", 405: "MethodNotAllowed", 429: "RateLimitError"}


def error_body(status: int, message: str, param: str | None = None) -> bytes:
    kind = _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    return _json({"error": {"message": message, "type": kind, "param": param, "code": status}})


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """What all parts of one answer carry."""

    id: str
    created: int
    model: str


def role_event(stamp: Stamp) -> bytes:
    """The first event of a chat: a role, no token."""
    return _event(stamp, "chat", {"delta": {"role": "assistant", "content": ""}, "finish_reason": None})


def token_event(stamp: Stamp, api: Api) -> bytes:
    """One token."""
    return _event(stamp, api, {**_content(api), "finish_reason": None})


def last_event(stamp: Stamp, api: Api, reason: str) -> bytes:
    """The last token, and why it is the last."""
    return _event(stamp, api, {**_content(api), "finish_reason": reason, "stop_reason": None})


def usage_event(stamp: Stamp, ask: Ask, output: int, cached: int | None) -> bytes:
    usage = {**_shell(stamp, ask.api, stream=True), "choices": [], "usage": _usage(ask.prompt, output, cached)}
    return b"data: " + _json(usage) + b"\n\n"


def error_event(message: str) -> bytes:
    return b"data: " + error_body(500, message) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def whole(stamp: Stamp, ask: Ask, output: int, reason: str, cached: int | None) -> bytes:
    """The answer to a request that does not stream."""
    text = (WORD * output).lstrip()
    content = {"message": {"role": "assistant", "content": text}} if ask.api == "chat" else {"text": text}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
    return _json(
        {**_shell(stamp, ask.api, stream=False), "choices": [choice], "usage": _usage(ask.prompt, output, cached)}
    )


def models(profile: Profile, created: int) -> bytes:
    card = {
        "id": profile.model,
        "object": "model",
        "created": created,
        "owned_by": "redline",
        "root": profile.model,
        "max_model_len": min(profile.max_model_len, profile.kv_tokens),
    }
    return _json({"object": "list", "data": [card]})


def metrics(model: str, engine: Engine) -> bytes:
    """Gauges and counters under vLLM's names, in Prometheus's text format."""
    held = round(engine.kv_used / engine.profile.kv_tokens, 6)
    told: list[tuple[str, str, str, float]] = [
        ("num_requests_running", "gauge", "Number of requests in the batch.", len(engine.running)),
        ("num_requests_waiting", "gauge", "Number of requests that wait for a slot.", len(engine.waiting)),
        ("kv_cache_usage_perc", "gauge", "Share of the KV cache in use.", held),
    ]
    if (cache := engine.cache) is not None:
        told += [
            ("prefix_cache_queries_total", "counter", "Tokens of prompts that were looked up.", cache.asked),
            ("prefix_cache_hits_total", "counter", "Tokens that were found.", cache.found),
        ]
    lines = [
        f'# HELP vllm:{name} {text}\n# TYPE vllm:{name} {kind}\nvllm:{name}{{model_name="{model}"}} {float(value)}'
        for name, kind, text, value in told
    ]
    return ("\n".join(lines) + "\n").encode()


def _content(api: Api) -> dict[str, object]:
    return {"delta": {"content": WORD}} if api == "chat" else {"text": WORD}


def _shell(stamp: Stamp, api: Api, *, stream: bool) -> dict[str, object]:
    kind = "text_completion" if api == "completions" else "chat.completion.chunk" if stream else "chat.completion"
    return {"id": stamp.id, "object": kind, "created": stamp.created, "model": stamp.model}


def _event(stamp: Stamp, api: Api, choice: Mapping[str, object]) -> bytes:
    shell = _shell(stamp, api, stream=True)
    return b"data: " + _json({**shell, "choices": [{"index": 0, **choice, "logprobs": None}]}) + b"\n\n"


def _usage(prompt: int, output: int, cached: int | None) -> dict[str, object]:
    """`cached` is None where there is no prefix cache."""
    counts = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
    return dict(counts) if cached is None else {**counts, "prompt_tokens_details": {"cached_tokens": cached}}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
