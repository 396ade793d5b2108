"""The simulated server as clients meet it: over sockets, in a process of its own."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import numpy as np
import pytest

from driving import SimServer
from redline.loadgen import open_session
from redline.model import Endpoint, Lengths, Measured, Prefix, Probe, Workload
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession
from waiting import until

CHAT = {"model": "simulated", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 4, "ignore_eos": True}
TEXT = {"prompt": [1, 2, 3], "max_tokens": 4, "ignore_eos": True}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def server() -> Iterator[SimServer]:
    with SimServer("--profile", "demo") as running:
        yield running


@contextmanager
def connected(server: SimServer) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        yield connection


def post(server: SimServer, path: str, body: object) -> tuple[int, bytes]:
    with connected(server) as connection:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()


def get(server: SimServer, path: str) -> tuple[int, bytes]:
    with connected(server) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()


def events(body: bytes) -> list[dict | str]:
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_chat_streams_as_vllm_does(server):
    status, body = post(server, "/v1/chat/completions", {**CHAT, **STREAM})
    role, *tokens, usage, done = events(body)

    assert status == 200
    assert {"role": "assistant", "content": ""} == role["choices"][0]["delta"]
    assert len(tokens) == 4
    assert all(event["choices"][0]["delta"]["content"] for event in tokens)
    assert [None, None, None, "length"] == [event["choices"][0]["finish_reason"] for event in tokens]
    assert {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7} == usage["usage"]
    assert usage["choices"] == []
    assert done == "[DONE]"
    assert 1 == len({event["id"] for event in (role, *tokens, usage)})


def test_a_completion_streams_as_vllm_does(server):
    _, body = post(server, "/v1/completions", {**TEXT, "stream": True})
    *tokens, done = events(body)

    assert [None, None, None, "length"] == [event["choices"][0]["finish_reason"] for event in tokens]
    assert all(event["object"] == "text_completion" and event["choices"][0]["text"] for event in tokens)
    assert done == "[DONE]"


def test_without_a_stream_the_whole_comes_at_once(server):
    chat = json.loads(post(server, "/v1/chat/completions", CHAT)[1])
    text = json.loads(post(server, "/v1/completions", TEXT)[1])

    assert len(chat["choices"][0]["message"]["content"].split()) == chat["usage"]["completion_tokens"] == 4
    assert text["choices"][0]["text"].split() == ["token"] * 4


def test_an_answer_stops_by_itself_where_it_may_and_no_sooner_than_told():
    with SimServer("--answer-tokens", "20") as brief:
        body = {"prompt": "a", "max_tokens": 30, "min_tokens": 15}
        choices = [json.loads(post(brief, "/v1/completions", body)[1])["choices"][0] for _ in range(6)]
    lengths = [len(choice["text"].split()) for choice in choices]
    reasons = [choice["finish_reason"] for choice in choices]

    assert min(lengths) >= 15
    assert len(set(lengths)) > 2
    assert ["length" if n == 30 else "stop" for n in lengths] == reasons


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/health", b""),
        ("/v1/models", b'"id":"simulated"'),
        ("/version", b"redline-sim"),
        ("/metrics", b'vllm:num_requests_running{model_name="simulated"} 0.0'),
        ("/metrics", b"vllm:num_requests_waiting"),
    ],
)
def test_what_tells_about_the_server(server, path, words):
    status, body = get(server, path)

    assert status == 200
    assert words in body


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", {**CHAT, "model": "other"}, 404),
        ("/v1/chat/completions", {**CHAT, "max_tokens": -1}, 400),
        ("/v1/embeddings", {}, 404),
        ("/health", {}, 405),
        ("/reset_prefix_cache", {}, 200),
    ],
)
def test_other_requests_get_a_status_and_a_reason(server, path, body, status):
    got, text = post(server, path, body)

    assert got == status
    if status >= 400:
        assert json.loads(text)["error"]["code"] == status


def test_a_connection_serves_one_request_after_another_also_when_both_are_sent_at_once(server):
    body = json.dumps({**TEXT, "stream": True}).encode()
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(request + request[:50])
        raw.sendall(request[50:] + last)
        got = b"".join(iter(lambda: raw.recv(65536), b""))

    assert 3 == got.count(b"HTTP/1.1 200 OK")
    assert 2 == got.count(b"[DONE]")


def test_a_request_that_cannot_be_read_is_answered_and_the_connection_closed(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(b"what is this?\r\n\r\n")
        got = b"".join(iter(lambda: raw.recv(65536), b""))

    assert got.startswith(b"HTTP/1.1 400 Bad Request")


def test_a_client_that_goes_away_frees_its_place(server):
    with connected(server) as connection:
        connection.request("POST", "/v1/completions", json.dumps({**TEXT, "max_tokens": 4000, "stream": True}))
        connection.getresponse().read(1)
        assert 1 == server.in_flight()
    until(lambda: server.in_flight() == 0, within_s=5)


def test_tokens_come_at_the_pace_of_the_profile(server):
    with connected(server) as connection:
        before_s = time.monotonic()
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 60, "ignore_eos": True}))
        connection.getresponse().read()
        took_s = time.monotonic() - before_s

    assert 60 * 0.0103 <= took_s < 60 * 0.0103 + 0.5  # it is never early, and lateness does not add up


def test_latencies_are_those_of_the_virtual_server(server):
    workload = Workload(name="w", prompt=Lengths(mean=100, cv=0.5), output=Lengths(mean=12, cv=0.5))
    probe = Probe(by="rate", load=25.0, kind="main", max_s=3.0)
    with open_session(Endpoint(url=server.url, model="simulated"), workload) as session:
        real = session.measure(probe, lambda records: None, 7)
    virtual = VirtualSession(PROFILES["demo"], workload).measure(probe, lambda records: None, 7)
    assert isinstance(real, Measured)
    assert isinstance(virtual, Measured)
    a, b = real.records, virtual.records

    assert np.array_equal(a.tokens_in, b.tokens_in)
    assert np.array_equal(a.tokens_out[a.ok], b.tokens_asked[a.ok])
    assert np.nanmedian(a.tpot_ms()) == pytest.approx(np.nanmedian(b.tpot_ms()), rel=0.15)
    late_ms = np.nanmedian(a.ttft_ms()) - np.nanmedian(b.ttft_ms())
    assert -3 < late_ms < 30  # coarse: the machine may be busy; 1.4 ms on an idle one


def test_no_more_run_than_there_are_slots_and_the_others_wait():
    with SimServer("--max-num-seqs", "2") as small:
        body = {**TEXT, "max_tokens": 120}
        clients = [threading.Thread(target=post, args=(small, "/v1/completions", body)) for _ in range(5)]
        for client in clients:
            client.start()

        def shown():
            page = get(small, "/metrics")[1].decode()
            label = '{model_name="simulated"}'
            return f"num_requests_running{label} 2.0" in page and f"num_requests_waiting{label} 3.0" in page

        until(shown)
        for client in clients:
            client.join()

        assert small.in_flight() == 0


def test_it_ends_within_a_second_of_being_told_even_while_it_works():
    with SimServer() as server, connected(server) as connection:
        connection.request("POST", "/v1/completions", json.dumps({**TEXT, "max_tokens": 4000, "stream": True}))
        connection.getresponse().read(1)
        before_s = time.monotonic()
        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(5) == -signal.SIGTERM
        assert time.monotonic() - before_s < 1


def test_a_port_in_use_is_said_in_one_line(server):
    done = subprocess.run(
        [sys.executable, "-m", "redline", "sim-server", "--port", str(server.port)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert done.returncode == 1
    assert re.search(rf"cannot listen on 127\.0\.0\.1:{server.port}.*in use", done.stderr.replace("\n", " "))
    assert "Traceback" not in done.stderr


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_every_so_many_requests_are_turned_away():
    with SimServer("--faults.reject-every", "3") as server:
        assert [200, 200, 429, 200, 200, 429] == [post(server, "/v1/completions", TEXT)[0] for _ in range(6)]


def test_an_error_comes_in_the_middle_of_a_stream():
    with SimServer("--faults.error-every", "2") as server:
        whole, broken = (post(server, "/v1/completions", {**TEXT, "stream": True})[1] for _ in range(2))
        status, _ = [post(server, "/v1/completions", TEXT) for _ in range(2)][1]

    assert b"error" not in whole
    assert [False, False, True] == ["error" in event for event in events(broken)[:3]]
    assert status == 500


def test_a_connection_breaks_in_the_middle_of_a_stream():
    with (
        SimServer("--faults.drop-every", "1") as server,
        pytest.raises((http.client.IncompleteRead, http.client.RemoteDisconnected)),
    ):
        post(server, "/v1/completions", {**TEXT, "stream": True})


@pytest.mark.parametrize("fault", ["crash-after", "crash-above"])
def test_it_crashes_with_exit_code_1(fault):
    with SimServer(f"--faults.{fault}", "2") as server:
        body = {**TEXT, "max_tokens": 400}

        def ask() -> None:
            with suppress(http.client.HTTPException, OSError):  # it dies under this request
                post(server, "/v1/completions", body)

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()

        assert server.process.wait(10) == 1
        for client in clients:
            client.join()


def test_it_hangs_with_its_health_still_good():
    with SimServer("--faults.hang-after", "1") as server:
        assert 200 == post(server, "/v1/completions", TEXT)[0]
        with connected(server) as connection:
            connection.request("POST", "/v1/completions", json.dumps(TEXT))
            until(lambda: server.in_flight() == 1)
            connection.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.getresponse()

        assert server.answers()


def test_it_never_gets_ready():
    with SimServer("--faults.never-ready", "true") as server:
        assert {503} == {get(server, path)[0] for path in ("/health", "/v1/models")}


def test_it_takes_its_time_to_get_ready():
    with SimServer("--faults.ready-after-s", "0.6") as server:
        first = get(server, "/health")[0]
        until(lambda: get(server, "/health")[0] == 200, within_s=5)

    assert first == 503


def test_the_hits_of_its_prefix_cache_are_the_share_that_prompts_have_in_common():
    workload = Workload(name="w", prompt=Lengths(mean=320), output=Lengths(mean=2), prefix=Prefix(share=0.6, groups=4))
    probe = Probe(by="concurrency", load=4, kind="main", spread_s=0.1, max_s=60, max_requests=240)
    with (
        SimServer("--prefix-cache-tokens", "200000") as server,
        open_session(Endpoint(url=server.url, model="simulated"), workload) as session,
    ):
        before = prefix_cache(server)
        session.measure(probe, lambda records: None, seed=1)
        asked, found = (after - start for after, start in zip(prefix_cache(server), before, strict=True))

    assert asked == pytest.approx(240 * 320, rel=0.02)
    assert found / asked == pytest.approx(0.6, abs=0.03)  # the first of each group finds nothing


def prefix_cache(server: SimServer) -> tuple[float, float]:
    """Tokens that were looked up, and that were found."""
    with connected(server) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    counts = dict(re.findall(r"^vllm:prefix_cache_(\w+)_total\S* (\S+)$", text, re.MULTILINE))
    return float(counts["queries"]), float(counts["hits"])
