"""The load generator as it runs: a worker process against servers that behave well and badly."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import count

import numpy as np
import pytest

from made import TRACE
from redline import arrivals, lengths
from redline.experiment.datasets import parse_dataset
from redline.loadgen import open_session
from redline.model import (
    Endpoint,
    Interrupted,
    Invalid,
    Lengths,
    Measured,
    Probe,
    RedlineError,
    Stop,
    UsageError,
    Workload,
)
from redline.records import Status
from redline.talks import turns_like
from scripted import CLOSE, RESET, obedient, scripted
from streams import DONE, HEAD, answer, chunk, delta, event, plain, stream, usage
from waiting import gone, until

CHAT = Workload(name="chat", prompt=Lengths(mean=40, cv=0.3), output=Lengths(mean=4, cv=0.5))


def rate(load: float, **more) -> Probe:
    return Probe(by="rate", load=load, kind="main", **more)


def users(load: float, **more) -> Probe:
    return Probe(by="concurrency", load=load, kind="main", **{"spread_s": 0.1, **more})


def endpoint(server, **more) -> Endpoint:
    return Endpoint(url=server.url, model="m", **more)


def trickle(request):
    """A token each 10 ms for a long time."""
    return [HEAD, *[step for _ in range(2_000) for step in (chunk(delta(content="a")), 0.01)]]


def never(records):
    return None


def measured(outcome) -> Measured:
    assert isinstance(outcome, Measured), outcome
    return outcome


@pytest.fixture(scope="module")
def good():
    """An obedient server and a session on it."""
    with scripted() as server, open_session(endpoint(server), CHAT) as session:
        yield server, session


# ---- the load ----


@pytest.mark.skipif(sys.platform != "linux", reason="gives itself fewer cores by Linux means")
def test_a_server_on_the_same_few_cores_is_a_warning():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        with scripted() as server, open_session(endpoint(server), CHAT) as session:
            warnings = session.warnings
    finally:
        os.sched_setaffinity(0, cores)

    assert "server and load generator share the 1 cores of this machine: each takes from the other" in warnings


def test_preflight_learns_how_the_server_counts(good):
    _, session = good

    assert [text for text in session.warnings if "share the" not in text] == []
    assert (session.facts["tokens_per_word"], session.facts["template_tokens"]) == (1.0, 5.0)
    assert session.facts["address"] == "127.0.0.1"


@pytest.mark.parametrize(("process", "burstiness"), [("poisson", 1.0), ("gamma", 0.4)])
def test_an_open_loop_keeps_the_absolute_schedule(process, burstiness):
    workload = Workload(
        name="w", prompt=Lengths(mean=40), output=Lengths(mean=2), arrivals=process, burstiness=burstiness
    )
    with scripted() as server, open_session(endpoint(server), workload) as session:
        server.requests.clear()
        outcome = measured(session.measure(rate(80, max_s=0.9), never, seed=5))

        records = outcome.records
        due = arrivals.between(workload, 80, 5, 2.0)[: len(records)]
        assert records.scheduled_s[-1] > 0.7
        assert records.scheduled_s == pytest.approx(due, abs=2e-6)
        assert records.ok.sum() > 0.8 * len(due)
        came = np.array([request.at_s for request in server.posts])  # the last ones may not have come any more
        assert len(came) >= len(due) - 3
        off = (came - came[0]) - (due - due[0])[: len(came)]
        assert np.median(np.abs(off)) < 0.05  # on a machine that others use


def test_a_trace_is_replayed_with_its_gaps_and_its_lengths():
    workload = Workload(name="w", prompt=Lengths(mean=40), output=Lengths(mean=3), arrivals="trace", trace=TRACE)
    with scripted() as server, open_session(endpoint(server), workload) as session:
        records = measured(session.measure(rate(60, max_s=0.9), never, seed=5)).records

    prompts, outputs = lengths.tokens(workload, 5, 0, len(records))
    assert len(records) > 20
    assert records.scheduled_s == pytest.approx(arrivals.between(workload, 60, 5, 2.0)[: len(records)], abs=2e-6)
    assert (records.tokens_asked == outputs).all()
    assert (records.tokens_in[records.ok] == prompts[records.ok]).mean() > 0.9


def test_prompts_of_a_file_go_out_once_before_any_repeats():
    rows = "\n".join(json.dumps({"prompt": f"prompt {n}", "output_tokens": n % 3 + 1}) for n in range(60))
    workload = Workload(
        name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), dataset=parse_dataset(rows, "p.jsonl")
    )
    with scripted() as server, open_session(endpoint(server), workload) as session:
        assert not any(request.text.startswith("prompt") for request in server.posts)
        server.requests.clear()
        outcomes = [measured(session.measure(rate(100, max_s=5, max_requests=40), never, seed)) for seed in (5, 6)]
        sent = [request for request in server.posts if request.text.startswith("prompt")]

    assert {f"prompt {n}" for n in range(60)} == {request.text for request in sent}
    assert len(sent) == 60
    assert all(request.json["max_tokens"] == int(request.text.split()[1]) % 3 + 1 for request in sent)
    assert [40, 40] == [outcome.client.sent for outcome in outcomes]
    assert "p.jsonl has 60 prompts, and this server had them before" in session.warnings[-1]


def test_prompts_that_a_ramp_took_are_sent_too():
    rows = "\n".join(json.dumps({"prompt": f"prompt {n}", "output_tokens": 1}) for n in range(300))
    workload = Workload(
        name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), dataset=parse_dataset(rows, "p.jsonl"), ramp_s=0.5
    )
    with scripted() as server, open_session(endpoint(server), workload) as session:
        server.requests.clear()
        for seed in (5, 6):
            measured(session.measure(rate(100, max_s=5, max_requests=40), never, seed))
        texts = [request.text for request in server.posts if request.text.startswith("prompt")]

    assert 2 * 40 + 20 < len(texts)
    assert len(set(texts)) == len(texts)


def test_a_conversation_repeats_the_prompts_and_the_answers_that_the_server_gave():
    workload = Workload(name="w", prompt=Lengths(mean=12), output=Lengths(mean=2), turns=turns_like(3, 0.0))
    number = count()

    def talkative(_):
        said = next(number)
        text = [delta(content=f'said "{said}"'), delta(reasoning_content="hm"), delta("stop", content=" é")]
        return [stream(delta(role="assistant", content=""), *text, usage(12, 2), DONE)]

    with scripted() as server, open_session(endpoint(server), workload) as session:
        server.script = talkative
        server.requests.clear()
        records = measured(session.measure(users(2, max_requests=40), never, seed=5)).records
        asked = [[(m["role"], m["content"]) for m in request.json["messages"]] for request in server.posts]

    answers = {f'said "{n}" é' for n in range(len(asked))}
    assert records.ok.sum() > 30
    assert {1, 3, 5} == {len(messages) for messages in asked}
    for messages in asked:
        assert ["user", "assistant"] * (len(messages) // 2) + ["user"] == [role for role, _ in messages]
    for longer in (messages for messages in asked[6:] if len(messages) > 1):
        assert longer[:-2] in asked
        assert longer[-2][1] in answers
    firsts = [messages[0] for messages in asked if len(messages) == 1]
    assert len(set(firsts)) == len(firsts)


def test_a_conversation_ends_where_an_answer_fails():
    workload = Workload(name="w", prompt=Lengths(mean=12), output=Lengths(mean=2), turns=turns_like(50, 0.0))
    turn = count()

    def failing(request):
        return [plain(500, b"oops", "text/plain")] if next(turn) % 4 == 3 else obedient(request)

    with scripted() as server, open_session(endpoint(server), workload) as session:
        server.script = failing
        server.requests.clear()
        measured(session.measure(users(1, max_requests=17), never, seed=5))
        lengths = [len(request.json["messages"]) for request in server.posts]

    first = lengths[0]
    assert [first, first + 2, first + 4, first + 6, 1, 3, 5, 7, 1, 3, 5, 7] == lengths[:12]


def test_requests_are_as_long_as_asked_and_never_alike(good):
    server, session = good
    server.requests.clear()
    records = measured(session.measure(rate(100, max_s=1.0), never, seed=6)).records

    ok = records.ok
    assert (records.tokens_out[ok] == records.tokens_asked[ok]).all()
    assert len({request.text[:30] for request in server.posts}) == len(server.posts)
    prompts = sorted(len(request.text.split()) + 5 for request in server.posts)
    assert prompts[len(prompts) // 2] == pytest.approx(np.median(records.tokens_in), abs=1)
    assert len(set(prompts)) > 5  # the lengths vary


def test_latencies_lie_in_their_order_and_gaps_with_their_requests(good):
    _, session = good
    records = measured(session.measure(rate(100, max_s=1.0), never, seed=7)).records

    ok = records.ok
    assert (records.scheduled_s[ok] <= records.sent_s[ok]).all()
    assert (records.sent_s[ok] <= records.first_s[ok]).all()
    assert (records.first_s[ok] <= records.end_s[ok]).all()
    assert (np.diff(records.gap_offsets)[ok] == records.tokens_out[ok] - 1).all()
    sums = np.add.reduceat(np.append(records.gaps_us, 0), records.gap_offsets[:-1])
    spans_us = (records.end_s - records.first_s) * 1e6
    many = ok & (records.tokens_out > 1)
    assert sums[many] == pytest.approx(spans_us[many], abs=20)


def test_a_closed_loop_keeps_as_many_in_flight_as_there_are_users():
    with (
        scripted(lambda request: [0.03, *obedient(request)]) as server,
        open_session(endpoint(server), CHAT) as session,
    ):
        server.requests.clear()
        records = measured(session.measure(users(7.9, max_s=1.0), never, seed=1)).records

        changes = sorted([(s, 1) for s in records.scheduled_s] + [(e, -1) for e in records.end_s if e == e])
        flying = np.cumsum([change for _, change in changes])
        assert max(flying) == 7
        assert len(records) > 14
        held_s = np.clip(records.age_s() + records.scheduled_s, 0.2, 0.9) - np.clip(records.scheduled_s, 0.2, 0.9)
        assert np.sum(held_s) / 0.7 > 5  # the next request follows at once
        assert len({request.connection for request in server.posts}) <= 8  # on connections that are kept


def test_users_start_over_the_time_they_are_given():
    with scripted(lambda _: [HEAD, 30.0]) as server:
        with open_session_without_answers(server) as session:
            records = measured(session.measure(users(20, spread_s=0.8, max_s=1.0), never, seed=1)).records

        gaps = np.diff(records.scheduled_s)
        assert len(records) == 20
        assert records.scheduled_s[-1] > 0.7
        assert max(gaps) < 0.3


@contextlib.contextmanager
def open_session_without_answers(server, workload=CHAT):
    """A session whose preflight is answered well, whatever the script does later."""
    later, server.script = server.script, obedient
    with open_session(endpoint(server), workload) as session:
        server.script = later
        yield session


# ---- its end ----


def test_watch_sees_everything_each_second_and_ends_the_trial(good):
    _, session = good
    seen = []

    def watch(records):
        seen.append((records.observed_s, len(records), int(records.ok.sum())))
        return Stop(reason="fail", at_s=records.observed_s, criterion="c") if len(seen) == 3 else None

    began = time.monotonic()
    outcome = measured(session.measure(rate(50, max_s=60), watch, seed=2))

    assert time.monotonic() - began < 5
    assert outcome.stop == Stop(reason="fail", at_s=seen[-1][0], criterion="c")
    assert outcome.duration_s >= seen[-1][0]
    assert [at for at, _, _ in seen] == pytest.approx([1, 2, 3], abs=0.5)
    assert all(np.diff([number for _, number, _ in seen]) > 10)
    assert len(outcome.records) >= seen[-1][1]


def test_a_watch_that_takes_long_sees_the_latest_and_not_what_it_missed(good):
    _, session = good
    seen = []

    def watch(records):
        seen.append(records.observed_s)
        if len(seen) == 1:
            time.sleep(2.3)  # the statistics of a long trial
            return None
        return Stop(reason="full", at_s=records.observed_s)

    outcome = measured(session.measure(rate(20, max_s=60), watch, seed=2))

    assert seen[1] - seen[0] > 1.5
    assert outcome.duration_s - seen[1] < 1.5


def test_what_is_in_flight_at_the_end_stays_unfinished_and_leaves_the_server():
    with scripted(trickle) as server, open_session_without_answers(server) as session:
        outcome = measured(session.measure(users(5, max_s=0.6), never, seed=3))

        records = outcome.records
        assert outcome.stop.reason == "budget"
        assert records.running.all()
        assert np.isnan(records.end_s).all()
        assert not np.isnan(records.first_s).any()
        assert (records.tokens_out > 5).all()
        assert (np.diff(records.gap_offsets) == records.tokens_out - 1).all()
        assert records.observed_s == pytest.approx(0.6, abs=0.3)
        until(lambda: server.open <= 1)


@pytest.mark.parametrize("probe", [rate(200, max_requests=17), users(4, max_requests=17)])
def test_a_budget_of_requests_is_kept(good, probe):
    _, session = good
    outcome = measured(session.measure(probe, never, seed=4))

    assert outcome.stop.reason == "budget"
    assert (len(outcome.records), outcome.client.due, outcome.client.sent) == (17, 17, 17)


def test_an_interruption_ends_load_and_worker_within_a_second_and_the_session_goes_on():
    with scripted(trickle) as server, open_session_without_answers(server) as session:
        pid = session.worker_pid
        at = []

        def watch(records):
            at.append(time.monotonic())
            raise Interrupted

        with pytest.raises(Interrupted):
            session.measure(users(20), watch, seed=1)
        took_s = time.monotonic() - at[0]

        assert took_s < 1
        until(lambda: gone(pid))
        until(lambda: server.open == 0)
        server.script = obedient
        assert measured(session.measure(rate(20, max_s=0.5), never, seed=2)).records.ok.any()


def test_a_worker_that_dies_makes_the_trial_invalid_and_is_replaced(good):
    _, session = good

    def watch(records):
        os.kill(session.worker_pid, signal.SIGKILL)

    outcome = session.measure(rate(20), watch, seed=1)

    assert isinstance(outcome, Invalid)
    assert "signal 9" in outcome.reason
    assert outcome.cure
    assert measured(session.measure(rate(20, max_s=0.5), never, seed=2)).records.ok.any()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_driver(number):
    driver = """
import sys
from redline.loadgen import open_session
from redline.model import *
workload = Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=9))
with open_session(Endpoint(url=sys.argv[1], model="m"), workload) as session:
    print(session.worker_pid, flush=True)
    session.measure(Probe(by="concurrency", load=10, kind="main"), lambda records: print("watched", flush=True), 1)
"""
    with scripted(lambda request: [0.05, *obedient(request)]) as server:
        argv = [sys.executable, "-c", driver, server.url]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            pid = int(process.stdout.readline())
            assert process.stdout.readline() == "watched\n"
            process.send_signal(number)
            process.wait(5)

        until(lambda: gone(pid))
        until(lambda: server.open == 0)


# ---- bad servers ----


def test_each_failure_is_counted_in_its_class_and_named():
    kinds = [
        lambda request: obedient(request),
        lambda _: [plain(429, b'{"error": {"message": "slow down"}}')],
        lambda _: [plain(500, b"oops", "text/plain")],
        lambda _: [stream(delta(content="a"), event({"error": {"message": "boom"}}))],
        lambda _: [HEAD, chunk(delta(content="a")), CLOSE],
        lambda _: [RESET],
        lambda _: [plain(200, b'{"choices": [{"message": {"content": "x"}}]}')],
        lambda _: [stream(delta("length"), DONE)],
    ]
    turn = count()
    with (
        scripted(lambda request: kinds[next(turn) % len(kinds)](request)) as server,
        open_session_without_answers(server) as session,
    ):
        outcome = measured(session.measure(rate(100, max_requests=83), never, seed=1))

    records, errors = outcome.records, outcome.client.errors
    ended = Counter(Status(status) for status in records.status)
    assert ended[Status.OK] == pytest.approx(10, abs=3)
    assert ended[Status.REJECTED] == pytest.approx(10, abs=3) == errors["HTTP 429: slow down"]
    assert ended[Status.FAILED] > 40
    assert ended[Status.TIMED_OUT] == 0
    assert {
        "HTTP 500: oops",
        "error event: boom",
        "the server closed the connection early",
        "answered with one JSON document, not with a stream",
        "the stream ended without any token",
    } < set(errors)
    assert sum(errors.values()) == records.broken.sum()
    assert not np.isnan(records.end_s[records.broken]).any()


def test_a_request_without_an_answer_times_out_and_leaves_the_server():
    workload = Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), request_timeout_s=0.4)
    with scripted(lambda _: [30.0]) as server, open_session_without_answers(server, workload) as session:
        outcome = measured(session.measure(rate(20, max_s=1.0), never, seed=1))

    records = outcome.records
    timed_out = records.status == Status.TIMED_OUT
    assert timed_out.any()
    assert (timed_out == (records.scheduled_s < records.scheduled_s[timed_out][-1] + 1e-9)).all()  # the oldest ones
    assert records.age_s()[timed_out] == pytest.approx(0.4, abs=0.2)
    assert {"timed out after 0.4 s": timed_out.sum()} == outcome.client.errors


def test_users_of_a_server_that_refuses_do_not_hammer_it():
    with (
        scripted(lambda _: [plain(429, b"no", "text/plain")]) as server,
        open_session_without_answers(server) as session,
    ):
        records = measured(session.measure(users(3, max_s=1.0), never, seed=1)).records

    assert 15 <= len(records) <= 40  # a tenth of a second between


def test_a_server_that_goes_away_is_failures_not_a_crash():
    with scripted() as server, open_session(endpoint(server), CHAT) as session:
        server.script = lambda _: [RESET]
        outcome = measured(session.measure(rate(50, max_s=0.5), never, seed=1))
        url = server.url
    assert not outcome.records.ok.any()

    with pytest.raises(RedlineError, match="connection refused"), open_session(Endpoint(url=url, model="m"), CHAT):
        pass


def test_an_answer_that_stays_open_after_its_end_counts():
    def script(request):
        return [HEAD, chunk(delta("length", content="a")), chunk(DONE), 30.0]

    workload = Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=1))
    with scripted(script) as server, open_session_without_answers(server, workload) as session:
        records = measured(session.measure(users(2, max_s=2.1), never, seed=1)).records

    assert (records.status[:2] == Status.OK).all()
    assert records.e2el_ms()[:2].max() < 500


def test_a_redirect_names_its_target_and_a_refusal_the_servers_words():
    with scripted(lambda _: [plain(307, b"", "text/plain", "location: http://there/")]) as server:
        with pytest.raises(RedlineError, match="redirects to http://there/"), open_session(endpoint(server), CHAT):
            pass
        server.script = lambda _: [plain(401, b'{"error": {"message": "no key, says the server"}}')]
        with pytest.raises(RedlineError, match="no key, says the server"), open_session(endpoint(server), CHAT):
            pass


# ---- the way there ----


@pytest.mark.parametrize("tls", [False, True])
def test_headers_reach_the_server_over_http_and_https(tls):
    with scripted(tls=tls) as server:
        there = endpoint(server, headers={"Authorization": "Bearer k"}, insecure=True)
        with open_session(there, CHAT) as session:
            outcome = measured(session.measure(rate(40, max_s=0.6), never, seed=1))

        assert outcome.records.ok.any()
        assert {"Bearer k"} == {request.headers["authorization"] for request in server.requests}
        assert {"identity"} == {request.headers["accept-encoding"] for request in server.requests}
        if tls:
            assert not outcome.client.kernel_stamps
            assert outcome.client.read_delay_p99_s > 0  # the loop's lag


def test_a_header_that_cannot_be_sent_is_an_error_before_anything_is_started():
    there = Endpoint(url="http://127.0.0.1:1", model="m", headers={"x-name": "Grün"})

    with pytest.raises(UsageError, match="header 'x-name'"), open_session(there, CHAT):
        pass


def test_the_client_tells_how_good_it_was(good):
    _, session = good
    client = measured(session.measure(rate(100, max_s=1.0), never, seed=1)).client

    assert client.due == client.sent > 50
    assert 0 < client.late_p50_s <= client.late_p99_s < 0.5
    assert 0 < client.cpu_share < 1
    assert client.tokens_from_usage
    assert client.errors == {}


def test_more_users_than_open_files_is_said_with_the_cure():
    with scripted() as server, open_session(endpoint(server), CHAT) as session:
        resource.prlimit(session.worker_pid, resource.RLIMIT_NOFILE, (100, 100))
        outcome = session.measure(users(90), never, seed=1)

        assert isinstance(outcome, Invalid)
        assert "limit of open files is 100" in outcome.reason
        assert outcome.cure.startswith("ulimit -n ")
        assert measured(session.measure(users(5, max_s=0.3), never, seed=1)).records.ok.any()


def test_requests_that_could_not_be_sent_make_the_trial_invalid():
    with scripted(lambda _: [HEAD, 30.0]) as server, open_session_without_answers(server) as session:
        resource.prlimit(session.worker_pid, resource.RLIMIT_NOFILE, (40, 40))
        outcome = session.measure(rate(200, max_s=1.0), never, seed=1)

    assert isinstance(outcome, Invalid)
    assert "requests that were due could be sent: not sent: too many open files" in outcome.reason
    assert "ulimit -n" in outcome.cure


def test_outputs_of_another_length_are_a_warning():
    workload = Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=20))
    with scripted(lambda _: [answer(3)]) as server, open_session_without_answers(server, workload) as session:
        measured(session.measure(rate(40, max_s=0.5), never, seed=1))

        assert any("outputs are not as long as asked for" in text for text in session.warnings)


def test_the_workers_log_goes_where_it_is_told(tmp_path):
    log = tmp_path / "loadgen.log"
    with scripted() as server, open_session(endpoint(server), CHAT, log) as session:
        session.measure(rate(20, max_s=0.2), never, seed=1)

    assert log.read_bytes() == b""  # nothing went wrong
