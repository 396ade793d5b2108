"""Prompts that somebody wrote, from the text of a file: ShareGPT, JSONL or CSV."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeAlias

from redline.experiment.reserved import misplaced, unsendable
from redline.experiment.rows import Complaints, plain, rows_of, tokens_of, value_of
from redline.experiment.traces import OUTPUTS, TIMES
from redline.model import Dataset, UsageError

Count: TypeAlias = Callable[[Sequence[str]], "array[int]"]

PROMPTS = ("prompt", "messages", "conversations", "text", "text_input", "question")
_TEXTS = tuple(map(plain, ("prompt", "text", "text_input", "question")))
_OUTPUTS = tuple(map(plain, OUTPUTS))
_ASKING, _BEFORE = ("human", "user"), ("system",)
_BATCH = ("model", "stream", "stream_options", "n")  # of a recorded body; ours are sent instead


class _Unusable(Exception):  # noqa: N818 - an aside of one row, not an error
    """What is wrong with a row."""


@dataclass(slots=True)
class _Entry:
    """One row as it will be sent."""

    prompt: str | list[Any]
    text: str  # all of it that is text
    output_tokens: int | None = None
    answer: str | None = None  # its length is the output asked for
    own: dict[str, Any] = field(default_factory=dict)  # further fields of the body


def is_dataset(name: str) -> bool:
    """Is this the name of a file of prompts rather than of settings?"""
    return PurePath(name).suffix.lower() in (".json", ".jsonl", ".ndjson", ".csv")


def estimated(texts: Sequence[str]) -> array[int]:
    """Tokens of texts, at four bytes each; never none."""
    return array("i", [max(round(len(text.encode(errors="replace")) / 4), 1) for text in texts])


def parse_dataset(text: str, file: str, count: Count | None = None) -> Dataset:
    """The prompts that a text holds; UsageError names every line (of a JSON list: every entry) that cannot be used.

    A conversation gives its first turn of a human as the prompt, and the length of the answer to it as the output to
    ask for. `count` counts the tokens of texts; without it they are estimated. Conversations without the two are left
    out, and so are empty prompts.
    """
    complaints = Complaints()
    entries: list[_Entry] = []
    said: set[bool] = set()
    left_out = 0
    timed = False
    for line, fields in rows_of(text, complaints):
        timed = timed or any(plain(name) in fields for name in TIMES)
        try:
            entry = _entry(fields)
        except _Unusable as why:
            complaints.add(line, str(why))
            continue
        if entry is None:
            left_out += 1
            continue
        with_length = entry.output_tokens is not None or entry.answer is not None
        if said and with_length not in said:
            complaints.add(line, "says how long its answer is, and others do not" if with_length else _SILENT)
            continue
        said.add(with_length)
        entries.append(entry)
    try:
        complaints.tell()
    except UsageError as error:
        if timed and not entries:
            raise UsageError(f"{error}; a file of times is a trace: trace:file={file}") from error
        raise
    if not entries:
        besides = f" besides {left_out:,} without a question and its answer" if left_out else ""
        raise UsageError(f"holds no prompt{besides}; one stands under {', '.join(PROMPTS[:3])}")
    return _packed(entries, file, hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(), count)


_SILENT = "does not say how long its answer is, and others do: add output_tokens"


def _packed(entries: Sequence[_Entry], file: str, sha256: str, count: Count | None) -> Dataset:
    prompts, owns = (
        [_json(entry.prompt) for entry in entries],
        [_json(entry.own) if entry.own else b"" for entry in entries],
    )
    outputs: array[int] = array("i")
    if entries[0].output_tokens is not None or entries[0].answer is not None:
        answers = iter((count or estimated)([entry.answer for entry in entries if entry.answer is not None]))
        outputs = array("i", [next(answers) if e.answer is not None else e.output_tokens or 1 for e in entries])
    return Dataset(
        file=file,
        sha256=sha256,
        prompts=b"".join(prompts),
        prompt_ends=_ends(prompts),
        fields=b"".join(owns),
        field_ends=_ends(owns),
        sizes=array("i", [len(entry.text.encode(errors="replace")) for entry in entries]),
        prompt_tokens=count([entry.text for entry in entries]) if count else array("i"),
        output_tokens=outputs,
        names=tuple(sorted({name for entry in entries for name in entry.own})),
        has_lengths=bool(outputs),
    )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _ends(parts: Sequence[bytes]) -> array[int]:
    ends, end = array("q"), 0
    for part in parts:
        end += len(part)
        ends.append(end)
    return ends


# ---- one row ---------------------------------------------------------------------------------------------------------


def _entry(fields: Mapping[str, Any]) -> _Entry | None:
    """What the row asks; None where it holds no question to send."""
    given = _unwrapped(fields)
    entry = _asked(given)
    if entry is None or not entry.text.strip():
        return None
    own = given.get("extra", given.get("body", {}))
    if not isinstance(own, Mapping):
        raise _Unusable('extra must be an object such as {"temperature": 0.7}')
    if wrong := misplaced(own, "line"):
        raise _Unusable(f"extra: {'; '.join(wrong)}")
    entry.own.update(own)
    if (eos := given.get("ignoreeos")) not in (None, ""):
        entry.own["ignore_eos"] = _flag(eos)
    if (least := value_of(given, ("mintokens",))) is not None:
        entry.own["min_tokens"] = _tokens("min_tokens", least)
    if (asked := value_of(given, _OUTPUTS)) is not None:
        entry.output_tokens, entry.answer = _tokens("the output", asked), None
        if entry.output_tokens == 0:
            raise _Unusable("asks for no output: output_tokens must be 1 or more")
    if why := unsendable([entry.prompt, entry.own]):
        raise _Unusable(f"holds {why}")
    return entry


def _unwrapped(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line of OpenAI's batch format as one of ours: its body is the whole request."""
    body = fields.get("body")
    if not isinstance(body, dict) or not body.keys() & {"messages", "prompt"}:
        return fields
    known = {"messages", "prompt", "max_tokens", "max_completion_tokens", "min_tokens", "ignore_eos"}
    outer = {plain(name): value for name, value in body.items() if name in known}
    if "maxcompletiontokens" in outer:
        outer["maxtokens"] = outer.pop("maxcompletiontokens")
    extra = {name: value for name, value in body.items() if name not in known and name not in _BATCH}
    return {**outer, "extra": extra}


def _asked(given: Mapping[str, Any]) -> _Entry | None:
    if "conversations" in given or "conversation" in given:
        return _conversation(given.get("conversations", given.get("conversation")))
    if "messages" in given:
        return _chat(given["messages"])
    name = next((name for name in _TEXTS if name in given), None)
    if name is None:
        raise _Unusable(f"has no prompt; it stands under {', '.join(PROMPTS)}")
    if isinstance(given[name], list):
        return _chat(given[name])
    if not isinstance(given[name], str):
        raise _Unusable(f"{name} must be text, not {type(given[name]).__name__}")
    return _Entry(given[name], given[name])


def _conversation(turns: object) -> _Entry | None:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise _Unusable('conversations must be a list of {"from": "human", "value": "..."}')
    said = [(str(turn.get("from", turn.get("role"))), turn.get("value", turn.get("content"))) for turn in turns]
    if not all(isinstance(text, str) for _, text in said):
        raise _Unusable("a turn of the conversation has no text under value")
    while said and said[0][0] not in _ASKING:
        del said[0]
    if len(said) < 2 or said[1][0] in (*_ASKING, *_BEFORE) or not said[1][1].strip():
        return None
    return _Entry(said[0][1], said[0][1], answer=said[1][1])


def _chat(messages: object) -> _Entry | None:
    """All messages are the prompt, save a last one of the assistant: that is the answer."""
    good = isinstance(messages, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages
    )
    if not isinstance(messages, list) or not good:
        raise _Unusable('messages must be a list of {"role": "user", "content": "..."}')
    answer = None
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        *messages, last = messages
        answer = _text(last) or None
    return _Entry(messages, "\n".join(map(_text, messages)), answer=answer)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text", "") if isinstance(part, dict) else part for part in parts]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise _Unusable("the content of a message must be text, or a list of parts")
    return "\n".join(filter(None, texts))


def _tokens(what: str, value: object) -> int:
    tokens = tokens_of(value)
    if tokens is None:
        raise _Unusable(f"{what}: {value!r} is no number of tokens")
    return tokens


def _flag(value: object) -> bool:
    words = str(value).lower()
    if words not in ("true", "false"):
        raise _Unusable(f"ignore_eos must be true or false, not {value!r}")
    return words == "true"
