"""What one response is, however its bytes arrive."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.loadgen.parse import Response
from redline.loadgen.tokens import Tokens
from redline.records import Status
from streams import DONE, HEAD, answer, chunk, chunked, delta, event, plain, recorded, stream, usage

OK, FAILED, REJECTED = Status.OK, Status.FAILED, Status.REJECTED


def fed(*pieces: bytes, closed: str | None = None) -> Response:
    """Piece n arrives at n milliseconds; then the connection may close."""
    response = Response()
    for n, piece in enumerate(pieces, 1):
        response.feed(piece, n * 1_000_000)
    if closed is not None:
        response.lost(closed, (len(pieces) + 1) * 1_000_000)
    return response


def seen(response: Response, asked: int = 8) -> tuple[object, ...]:
    """All that does not depend on when bytes came."""
    counts = (response.events, len(response.gaps_us), response.tokens_in, response.tokens_out)
    return (*response.outcome(asked), *counts, response.done, response.finish, response.reusable, response.ended)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vllm_chat_stream.txt", (OK, "", 7, 6, 7, 8, True, "length", True, True)),  # one event holds two tokens
        ("vllm_completion_stream.txt", (OK, "", 8, 7, 4, 8, True, "length", True, True)),
        ("llamacpp_chat_stream.txt", (OK, "", 8, 7, -1, -1, True, "length", True, True)),
        ("llamacpp_completion_stream.txt", (OK, "", 8, 7, -1, -1, True, "length", True, True)),
    ],
)
def test_real_streams_are_read_whole_and_split_at_any_byte(name, expected):
    data = recorded(name)

    assert expected == seen(fed(data))
    for cut in range(1, len(data)):
        assert expected == seen(fed(data[:cut], data[cut:])), f"cut at {cut}"


def test_a_real_refusal_keeps_the_servers_words():
    status, words = fed(recorded("vllm_chat_error.txt")).outcome(8)

    assert status is FAILED
    assert words.startswith("HTTP 400: This model's maximum context length is 1024 tokens.")


def test_a_real_empty_stream_is_a_failure():
    response = fed(recorded("llamacpp_chat_error.txt"))

    assert (FAILED, "the stream ended without any token") == response.outcome(8)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_split_of_any_stream_gives_the_same(data):
    ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
    end = data.draw(ends)
    events = [
        delta(role="assistant", content=""),
        b": a comment\n\n",
        delta(content="Grüße, 你好"),
        b"event: message\nid: 7\nretry: 10\n" + delta(reasoning_content="thinking"),
        b'data: {"choices": [{"index": 0,\ndata:  "delta": {"content": "two lines"}}]}\n\n',
        delta("stop"),
        usage(11, 4),
        DONE,
    ]
    body = b"".join(events).replace(b"\n", end)
    cuts = data.draw(st.lists(st.integers(1, len(body) - 1), max_size=8, unique=True).map(sorted))
    wire = HEAD + chunked(body[a:b] for a, b in pairwise([0, *cuts, len(body)]))
    splits = data.draw(st.lists(st.integers(1, len(wire) - 1), max_size=12, unique=True).map(sorted))

    response = fed(*(wire[a:b] for a, b in pairwise([0, *splits, len(wire)])))

    assert (OK, "", 3, 2, 11, 4, True, "stop", True, True) == seen(response)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_chunks_of_one_event_are_read_alike_whole_several_at_a_time_and_cut(data):
    parts = [
        chunk(delta(role="assistant", content="")),
        chunk(delta(content="a")),
        chunk(delta(content="b") + delta(content="c")),
        chunk(delta(content='quoted " and \\')),
        chunk(delta(content="")),
        chunk(delta(content="x", role="y")),
        chunk(delta("length", content="last")),
        chunk(delta(reasoning="hm", content=None)),
        chunk(b"data: {half\n\n"[:-1]) + chunk(b"\n"),
        chunk(b'data: {"choices": [{"index": 0,\ndata:  "delta": {"content": "two lines"}}]}\n\n'),
        chunk(b'data: {"choices": [{"delta":\r\n'),
        chunk(b": a comment\n\n"),
        chunk(b"event: error\n") + chunk(delta(content="d")),
        chunk(event({"error": {"message": "boom"}})),
        chunk(usage(11, 4)),
        b"+5\r\ndata: {",
        chunk(delta("stop")),
        chunk(DONE),
    ]
    drawn = data.draw(st.lists(st.sampled_from(parts), max_size=12))
    wire = b"".join([HEAD, *drawn, b"0\r\n\r\n", b"more"])
    ends = [len(HEAD), *(len(HEAD) + sum(map(len, drawn[:n])) for n in range(1, len(drawn) + 1))]
    cuts = data.draw(st.sets(st.sampled_from(ends) | st.integers(1, len(wire) - 1)).map(sorted))

    response = fed(*(wire[a:b] for a, b in pairwise([0, *cuts, len(wire)])), closed="")

    assert seen(fed(wire, closed="")) == seen(response)


@pytest.mark.parametrize(
    ("first", "other", "fits"),
    [
        (delta(content="a"), delta(content="bcd"), True),
        (delta(content="a"), delta(content="Grüße \\n"), True),
        (delta(content="a"), delta(content=""), False),
        (delta(content="a"), delta(content='say "no"'), False),
        (delta(content="a"), delta(content="\\"), False),
        (delta(content="a"), delta("stop", content="b"), False),
        (event({"choices": [{"text": "a"}]}), event({"choices": [{"text": "b"}]}), True),
        (event({"content": "z", "choices": [{"delta": {"content": "a"}}]}), None, False),
        (event({"choices": [{"delta": {"content": 'a"b'}}]}), None, False),
        (event({"choices": [{"delta": {"content": "a"}}], "usage": {"completion_tokens": 1}}), None, False),
        (event({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}), None, False),
        (delta(reasoning="a"), None, False),
        (delta("stop", content="a"), None, False),
    ],
)
def test_events_that_differ_in_their_text_alone_are_known_by_their_bytes(first, other, fits):
    tokens = Tokens()
    tokens.learn(first[6:-2], json.loads(first[6:-2]))
    tokens.quick = True

    other = other or first

    assert fits is tokens.count_alike(chunk(other), 0)
    for odd in (chunk(other)[:-1], chunk(other + b"\r\n")[:-2], chunk(other + other)):
        assert not tokens.count_alike(odd, 0)


def test_gaps_add_up_to_the_time_from_the_first_token_to_the_last():
    response = Response()
    for n in range(1_000):
        response.feed((HEAD if n == 0 else b"") + chunk(delta(content="a")), 5_000 + 1_999 * n)

    assert response.last_ns - response.first_ns == 1_999 * 999
    assert sum(response.gaps_us) == 1_999 * 999 // 1_000


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_no_bytes_crash_it(pieces, in_stream):
    response = fed(*([HEAD] if in_stream else []), *pieces, closed="")

    assert response.ended
    assert response.outcome(1)[0] in (FAILED, REJECTED)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "content", "usage", "tool_calls", "function", "error", "text"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_crashes_it(value):
    response = fed(HEAD + chunk(b"data: " + json.dumps(value).encode() + b"\n\n"), closed="")

    assert response.ended
    assert response.outcome(1)[0] in (OK, FAILED)


@pytest.mark.parametrize(
    ("content", "counts"),
    [
        ({"content": "a"}, True),
        ({"reasoning_content": "hm"}, True),
        ({"reasoning": "hm"}, True),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"x'}}]}, True),
        ({"tool_calls": [{"index": 0, "id": "call-1", "function": {"name": "look", "arguments": ""}}]}, False),
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": None}, False),
        ({}, False),
    ],
)
def test_the_first_token_is_the_first_event_with_content(content, counts):
    response = fed(HEAD, chunk(delta(**content)), chunk(delta(content="x")), chunk(delta("stop")), chunk(DONE))

    assert (2 if counts else 3) * 1_000_000 == response.first_ns
    assert response.last_ns == 3_000_000


def test_gaps_lie_between_content_events_only():
    response = fed(
        HEAD, chunk(delta(content="a")), chunk(delta()), chunk(delta(content="b")), chunk(delta(content="c")), DONE
    )

    assert [2_000, 1_000] == response.gaps_us.tolist()


def test_several_events_in_one_read_have_the_same_time():
    response = fed(stream(delta(content="a"), delta(content="b"), delta("length"), DONE))

    assert [0] == response.gaps_us.tolist()


@pytest.mark.parametrize(
    ("wire", "closed", "expected"),
    [
        (plain(429, b'{"error": {"message": "slow down"}}'), None, (REJECTED, "HTTP 429: slow down")),
        (plain(503, b"overloaded", "text/plain"), None, (REJECTED, "HTTP 503: overloaded")),
        (plain(500, b""), None, (FAILED, "HTTP 500: no words")),
        (plain(404, b'{"detail": "Not Found"}'), None, (FAILED, "HTTP 404: Not Found")),
        (plain(400, b'{"object": "error", "message": "bad"}'), None, (FAILED, "HTTP 400: bad")),
        (plain(422, b'{"detail": [{"msg": "x"}]}'), None, (FAILED, 'HTTP 422: [{"msg":"x"}]')),
        (plain(400, b'["odd"]'), None, (FAILED, 'HTTP 400: ["odd"]')),
        (
            b"HTTP/1.1 400 No\r\ntransfer-encoding: chunked\r\n\r\n" + chunked([b'{"error":', b' "told in chunks"}']),
            None,
            (FAILED, "HTTP 400: told in chunks"),
        ),
        (b"HTTP/1.1 500 No\r\n\r\nuntil the end", "", (FAILED, "HTTP 500: until the end")),
        (
            plain(307, b"", "text/plain", "location: http://elsewhere/"),
            None,
            (FAILED, "HTTP 307: redirected to http://elsewhere/"),
        ),
        (
            plain(200, b'{"choices": [{"message": {"content": "all at once"}}]}'),
            None,
            (FAILED, "answered with one JSON document, not with a stream"),
        ),
        (plain(200, b'{"error": {"message": "in disguise"}}'), None, (FAILED, "HTTP 200: in disguise")),
        (plain(200, b"<html>", "text/html"), None, (FAILED, "answered with text/html, not with a stream")),
        (stream(delta(content="a"), event({"error": {"message": "boom"}})), None, (FAILED, "error event: boom")),
        (stream(delta(content="a"), event({"error": "boom"}), DONE), None, (FAILED, "error event: boom")),
        (stream(b"event: error\ndata: out of memory\n\n"), None, (FAILED, "error event: out of memory")),
        (stream(delta(content="a"), b"data: {half\n\n"), None, (FAILED, "an event that is no JSON object: {half")),
        (
            stream(delta(content="a")),
            None,
            (FAILED, "the stream ended without [DONE] or a finish_reason"),
        ),
        (stream(delta("stop"), DONE), None, (FAILED, "the stream ended without any token")),
        (stream(delta("abort", content="a"), DONE), None, (FAILED, "finish_reason: abort")),
        (HEAD + chunk(delta(content="a")), "", (FAILED, "the server closed the connection early")),
        (HEAD + chunk(delta(content="a")), "connection reset", (FAILED, "connection reset")),
        (HEAD + chunk(delta("stop", content="a") + DONE), "connection reset", (OK, "")),
        (HEAD + chunk(delta("stop", content="a")), "", (OK, "")),
        (stream(delta(content="a"), DONE), None, (OK, "")),
        (stream(delta("length", content="a")), None, (OK, "")),
        (HEAD + chunked([delta(content="a"), b"data: [DONE]"]), None, (OK, "")),
        (b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + delta(content="a") + DONE, "", (OK, "")),
        (b"HTTP/1.1 200 OK\r\n\r\n" + delta(content="a") + DONE, "", (OK, "")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(2), None, (OK, "")),
        (HEAD + chunked([b"\xef\xbb\xbf" + delta(content="a"), DONE]), None, (OK, "")),
        (stream(delta("length"), usage(7, 1), DONE), None, (OK, "")),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\r\nxx",
            "",
            (FAILED, "compressed (gzip) although Accept-Encoding was identity"),
        ),
    ],
)
def test_each_answer_is_of_one_class(wire, closed, expected):
    assert expected == fed(wire, closed=closed).outcome(1)


def test_a_connection_that_closes_at_once_is_no_answer():
    assert (FAILED, "the server closed the connection without an answer") == fed(closed="").outcome(1)


def test_a_token_without_text_still_counts_where_usage_says_so():
    response = fed(HEAD, chunk(delta("length")), chunk(usage(7, 1)), chunk(DONE) + b"0\r\n\r\n")

    assert (OK, 0, 1) == (response.outcome(1)[0], response.events, response.tokens_out)
    assert response.last_choice_ns == 2_000_000


def test_something_that_is_not_http_is_a_failure():
    status, words = fed(b"SSH-2.0-OpenSSH_9.6\r\n").outcome(1)

    assert status is FAILED
    assert words.startswith("not an HTTP response")


def test_bytes_after_the_end_make_the_connection_useless():
    assert fed(answer(1)).reusable
    assert not fed(answer(1) + b"HTTP/1.1 408 Late\r\n\r\n").reusable
    assert not fed(answer(1), b"more").reusable


def test_a_connection_that_will_close_is_not_reusable():
    assert not fed(answer(1).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)).reusable


def test_long_words_are_cut():
    _, words = fed(plain(400, b"x" * 10_000, "text/plain")).outcome(1)

    assert len(words) < 320
