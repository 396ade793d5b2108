"""Bytes to requests, and bodies to what they ask for, without a socket."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.simulate import openai
from redline.simulate.http import HttpError, Parser, answer
from redline.simulate.openai import ApiError
from redline.simulate.profiles import PROFILES, load_profile

TWO = (
    b"POST /v1/completions?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
)
DEMO = PROFILES["demo"]


@given(st.lists(st.integers(0, len(TWO)), max_size=8))
def test_requests_are_the_same_however_the_bytes_are_cut(cuts):
    parser, edges = Parser(), [0, *sorted(cuts), len(TWO)]
    got = [request for a, b in pairwise(edges) for request in parser.feed(TWO[a:b])]

    assert [(r.method, r.path, r.body, r.keep_alive) for r in got] == [
        ("POST", "/v1/completions", b"hello", True),
        ("POST", "/b", b"abcde", False),
    ]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -4\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000, 431),
    ],
)
def test_what_is_no_request_is_refused(text, status):
    with pytest.raises(HttpError) as error:
        Parser().feed(text)

    assert error.value.status == status


def test_old_clients_close_and_those_that_expect_it_get_a_go_ahead():
    (old,) = Parser().feed(b"GET / HTTP/1.0\r\n\r\n")
    waiting = Parser()
    waiting.feed(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")

    assert not old.keep_alive
    assert waiting.wants_continue
    assert [b"ab"] == [request.body for request in waiting.feed(b"ab")]
    assert not waiting.wants_continue


def test_an_answer_says_how_long_it_is():
    assert answer(404, b"abc", keep_alive=False) == (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
    )


def asked(api, **body):
    return openai.parse(api, json.dumps(body).encode(), DEMO)


def message(content):
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("api", "body", "prompt", "limit"),
    [
        ("completions", {"prompt": "one two  three", "max_tokens": 5}, 3, 5),
        ("completions", {"prompt": [7, 8, 9, 10]}, 4, 16),
        ("completions", {"prompt": ["one two"]}, 2, 16),
        ("completions", {"prompt": [[1, 2, 3]], "model": "simulated"}, 3, 16),
        ("completions", {"prompt": ""}, 1, 16),
        ("chat", {"messages": message("one two")}, 2, 4094),
        ("chat", {"messages": [*message("one"), *message("two three")], "max_tokens": 4}, 3, 4),
        ("chat", {"messages": message([{"type": "text", "text": "a b"}]), "max_completion_tokens": 3}, 2, 3),
        ("chat", {"messages": message("a"), "max_completion_tokens": 3, "max_tokens": 9}, 1, 3),
        ("chat", {"messages": message(None), "n": 1, "temperature": 0.3, "max_tokens": None}, 1, 4095),
    ],
)
def test_tokens_are_words_and_ids(api, body, prompt, limit):
    ask = asked(api, **body)

    assert (ask.prompt, ask.limit) == (prompt, limit)


def test_flags_are_read():
    ask = asked("chat", messages=message("a"), stream=True, stream_options={"include_usage": True}, ignore_eos=True)

    assert ask.stream
    assert ask.include_usage
    assert ask.ignore_eos


@pytest.mark.parametrize(
    ("api", "body", "status", "words"),
    [
        ("chat", b"{", 400, "not JSON"),
        ("chat", b"[" * 100_000, 400, "not JSON"),
        ("chat", b"3", 400, "object"),
        ("chat", {}, 400, "messages"),
        ("chat", {"messages": []}, 400, "messages"),
        ("chat", {"messages": ["a"]}, 400, "role"),
        ("chat", {"messages": message(3)}, 400, "text"),
        ("chat", {"messages": message("a"), "model": "gpt"}, 404, "gpt"),
        ("chat", {"messages": message("a"), "max_tokens": 0}, 400, "max_tokens"),
        ("chat", {"messages": message("a"), "max_completion_tokens": "9"}, 400, "max_completion_tokens"),
        ("chat", {"messages": message("a"), "max_tokens": 5000}, 400, "maximum context length is 4096"),
        ("chat", {"messages": message("a " * 4096)}, 400, "maximum context length is 4096"),
        ("chat", {"messages": message("a"), "n": 2}, 400, "n must be 1"),
        ("chat", {"messages": message("a"), "stream": "yes"}, 400, "stream"),
        ("chat", {"messages": message("a"), "stream_options": {"include_usage": True}}, 400, "stream"),
        ("chat", {"messages": message("a"), "stream": True, "stream_options": 3}, 400, "stream_options"),
        ("chat", {"messages": message("a"), "max_tokens": 3, "min_tokens": 4}, 400, "min_tokens"),
        ("completions", {}, 400, "prompt"),
        ("completions", {"prompt": []}, 400, "prompt"),
        ("completions", {"prompt": [1, -1]}, 400, "prompt"),
        ("completions", {"prompt": ["a", "b"]}, 400, "one prompt"),
        ("completions", {"prompt": [1, "b"]}, 400, "prompt"),
    ],
)
def test_bad_bodies_are_refused_in_words(api, body, status, words):
    with pytest.raises(ApiError, match=words) as error:
        openai.parse(api, body if isinstance(body, bytes) else json.dumps(body).encode(), DEMO)
    said = json.loads(error.value.body)["error"]

    assert (status, status) == (error.value.status, said["code"])
    assert words in said["message"]


def test_a_small_cache_is_the_context_limit_that_is_told():
    small = load_profile("demo-kv", {"kv_tokens": 500})
    card = json.loads(openai.models(small, 0))["data"][0]

    assert (card["id"], card["max_model_len"]) == ("simulated", 500)
