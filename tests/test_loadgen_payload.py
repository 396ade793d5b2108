"""Prompts and requests: by seed and number alone, of the length asked for, never alike."""

import json
from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.loadgen.handover import inputs_of, shape_from, to_json, workload_from
from redline.loadgen.payload import Payloads, Shape, fitting, message, room, target_of
from redline.loadgen.prompts import Prompts
from redline.model import Endpoint, Lengths, ThinkTime, Trace, UsageError, Workload
from redline.talks import turns_like

CHAT = Workload(name="chat", prompt=Lengths(mean=100, cv=0.5), output=Lengths(mean=50, cv=0.5))


def target(url: str = "http://host:8000", **headers: str):
    return target_of(Endpoint(url=url, model="m", headers=headers))


def body(payload: bytes) -> dict:
    head, _, body = payload.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head.decode()
    return json.loads(body)


WORDS, IDS = Prompts(7), Prompts(7, (500, 600))


@given(st.integers(0, 10**9), st.integers(1, 200_000))
def test_a_prompt_has_the_pieces_asked_for(i, pieces):
    assert len(WORDS.text(i, pieces).split(" ")) == pieces
    ids = [int(piece) for piece in IDS.text(i, pieces).split(",")]
    assert (len(ids), min(ids) >= 500, max(ids) < 600) == (pieces, True, True)


def test_prompts_depend_on_seed_and_number_alone():
    assert Prompts(7).text(5, 300) == WORDS.text(5, 300)
    assert Prompts(8).text(5, 300) != WORDS.text(5, 300)


def test_no_two_prompts_begin_alike():
    beginnings = {prompts.text(i, 8) for prompts in map(Prompts, range(3)) for i in range(2_000)}

    assert len(beginnings) == 6_000


def test_requests_are_the_same_for_the_same_seed_wherever_they_are_built():
    one, other = (Payloads(target(), "m", CHAT, Shape(), 3) for _ in range(2))
    for _ in range(300):
        one.next()

    plan = one.next()
    assert plan == next(p for p in (other.next() for _ in range(400)) if p.i == 300)


def test_a_chat_request_asks_for_what_the_server_takes():
    plan = Payloads(target(), "m", CHAT, Shape(tokens_per_word=2.0, extra_tokens=10.0), 3).build(0, 210, 40)
    sent = body(plan.payload)

    assert plan.payload.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: host:8000\r\n")
    assert b"\r\nAccept-Encoding: identity\r\n" in plan.payload
    assert len(sent["messages"][0].pop("content").split()) == 100
    assert sent == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "messages": [{"role": "user"}],
        "max_tokens": 40,
        "min_tokens": 40,
    }


def test_a_bare_request_asks_for_no_more():
    shape = Shape(include_usage=False, ignore_eos=False, min_tokens=False, length_field="max_completion_tokens")
    sent = body(Payloads(target(), "m", CHAT, shape, 3).build(0, 10, 40).payload)

    assert {"model", "stream", "messages", "max_completion_tokens"} == set(sent)


@pytest.mark.parametrize(("ids", "kind"), [(None, str), ((100, 200), list)])
def test_completions_send_text_or_token_ids(ids, kind):
    workload = Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), api="completions")
    plan = Payloads(target(), "m", workload, Shape(ids=ids, tokens_per_word=1.0), 3).build(0, 12, 4)
    prompt = body(plan.payload)["prompt"]

    assert isinstance(prompt, kind)
    assert (len(prompt) if ids else len(prompt.split())) == 12


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.integers(64, 100_000))
def test_requests_fit_the_context(tokens_in, tokens_asked, limit):
    prompt, asked = fitting(tokens_in, tokens_asked, limit)

    assert room(prompt) + asked <= limit
    assert 1 <= prompt <= tokens_in
    assert 1 <= asked <= tokens_asked
    if room(tokens_in) + tokens_asked <= limit:
        assert (prompt, asked) == (tokens_in, tokens_asked)


@pytest.mark.parametrize(
    ("url", "authority", "prefix"),
    [
        ("http://host:8000", "host:8000", ""),
        ("http://host:8000/v1", "host:8000", ""),
        ("http://host:8000/v1/", "host:8000", ""),
        ("http://host/llm/v1", "host", "/llm"),
        ("https://host", "host", ""),
        ("http://[::1]:80", "[::1]", ""),
        ("host:8000", "host:8000", ""),
    ],
)
def test_a_url_is_taken_apart(url, authority, prefix):
    assert (authority, prefix) == (target(url).authority, target(url).prefix)


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://host:99999"])
def test_what_is_no_url_is_named(url):
    with pytest.raises(UsageError, match="is no URL"):
        target(url)


def test_headers_of_the_user_replace_ours():
    sent = message(target(authorization="Bearer k", HOST="other"), "GET", "/v1/models").decode()

    assert "authorization: Bearer k\r\n" in sent
    assert "HOST: other\r\n" in sent
    assert "Host: host" not in sent


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "grün"])
def test_a_header_that_would_break_the_request_is_refused(value):
    with pytest.raises(UsageError, match="header 'x'"):
        message(target(x=value), "GET", "/")


def test_what_goes_to_the_worker_comes_back_the_same():
    shape = Shape(ids=(100, 200), context_limit=9)

    assert shape == shape_from(json.loads(json.dumps(to_json(shape))))
    assert CHAT == workload_from(json.loads(json.dumps(to_json(CHAT))), inputs_of(CHAT))
    talking = replace(CHAT, turns=turns_like(4.0, 0.5), think_time_s=ThinkTime(mean=2.0, cv=1.0))
    assert talking == workload_from(json.loads(json.dumps(to_json(talking))), inputs_of(talking))


def test_a_trace_goes_to_the_worker_as_numbers():
    trace = Trace(file="t", sha256="s", times_s=array("d", [0, 1.5]), prompt_tokens=array("i", [5, 6]))
    workload = replace(CHAT, arrivals="trace", trace=trace)
    inputs = {name: bytes(memoryview(numbers).cast("B")) for name, numbers in inputs_of(workload).items() if numbers}

    there = workload_from(json.loads(json.dumps(to_json(workload))), inputs)

    assert workload == there
    assert (trace.times_s, trace.prompt_tokens, array("i")) == (
        there.trace.times_s,
        there.trace.prompt_tokens,
        there.trace.output_tokens,
    )
