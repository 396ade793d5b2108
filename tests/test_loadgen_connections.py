"""One connection and the pool, over both byte sources, against scripted servers."""

import asyncio
import errno
import os
import resource
import subprocess
import sys
import time

import pytest

from redline.loadgen.conn import Exchange
from redline.loadgen.payload import message, target_of
from redline.loadgen.pool import Pool, find_address
from redline.loadgen.sources import SocketSource, StreamSource, not_sent
from redline.loadgen.timer import Timer
from redline.model import Endpoint, RedlineError
from redline.records import NOT_SENT, Status
from redline.verdict.client import cure_for
from scripted import CLOSE, RESET, Server, scripted
from streams import DONE, HEAD, answer, chunk, delta, plain

SOURCES = pytest.mark.parametrize("source", [SocketSource, StreamSource])
OK, FAILED = Status.OK, Status.FAILED
BODY = b'{"max_tokens": 3, "prompt": "a b c"}'


def endpoint(url: str, **more) -> Endpoint:
    return Endpoint(url=url, model="m", **more)


class Client:
    """Sends exchanges through a pool, and waits for them."""

    def __init__(self, pool: Pool, payload: bytes) -> None:
        self.pool, self.payload = pool, payload

    async def get(self, payload: bytes | None = None) -> tuple[Status, str, Exchange]:
        exchange, ended = self.begin(payload)
        await asyncio.wait_for(ended, 10)
        return *exchange.response.outcome(3), exchange

    def begin(self, payload: bytes | None = None) -> tuple[Exchange, asyncio.Future[Exchange]]:
        ended = asyncio.get_running_loop().create_future()
        exchange = Exchange(payload or self.payload, ended.set_result)
        self.pool.send(exchange)
        return exchange, ended


def talk(server: Server, source, what, **more):
    """Run `what(client)` on a pool to this server; nothing may be left open."""

    async def run():
        target = target_of(endpoint(server.url, **more))
        pool = Pool(await find_address(target), source)
        try:
            return await what(Client(pool, message(target, "POST", "/v1/completions", BODY)))
        finally:
            pool.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


@SOURCES
def test_requests_one_after_another_share_a_connection(source):
    async def three(client):
        return [(await client.get())[0] for _ in range(3)], client.pool.opened

    with scripted() as server:
        assert ([OK] * 3, 1) == talk(server, source, three)
        assert {BODY} == {request.body for request in server.posts}


@SOURCES
def test_requests_at_once_have_a_connection_each_and_the_warmest_is_used_next(source):
    async def both_then_one(client):
        first, second = client.begin(), client.begin()
        await asyncio.gather(first[1], second[1])
        _, _, third = await client.get()
        return client.pool.opened, first, second, third

    with scripted(lambda _: [0.02, answer(3)]) as server:
        opened, *_ = talk(server, source, both_then_one)

        assert opened == 2
        assert len({request.connection for request in server.posts[:2]}) == 2
        assert server.posts[2].connection in {request.connection for request in server.posts[:2]}


@SOURCES
def test_bytes_that_trickle_are_put_together_and_stamped_as_they_come(source):
    whole = answer(3)
    pieces = [whole[i : i + 7] for i in range(0, len(whole), 7)]

    with scripted(lambda _: [step for piece in pieces for step in (piece, 0.0005)]) as server:
        status, _, exchange = talk(server, source, Client.get)

    assert status is OK
    assert 0 < exchange.sent_ns < exchange.response.first_ns < exchange.response.last_ns <= time.monotonic_ns()
    assert exchange.payload == b""  # nothing will send it again


@SOURCES
def test_a_prompt_larger_than_any_socket_buffer_arrives_whole(source):
    body = b'{"prompt": "%s"}' % (b"word " * 2_000_000)

    def script(request):
        return [answer(3) if request.body == body else plain(400, b"cut")]

    async def long(client):
        target = target_of(endpoint(server.url))
        return [(await client.get(message(target, "POST", "/v1/completions", body)))[:2] for _ in range(2)]

    with scripted(script) as server:
        assert [(OK, "")] * 2 == talk(server, source, long)


@SOURCES
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([CLOSE], (FAILED, "the server closed the connection without an answer")),
        ([HEAD, chunk(delta(content="a")), 0.02, CLOSE], (FAILED, "the server closed the connection early")),
        ([HEAD, chunk(delta(content="a") + delta("stop") + DONE), CLOSE], (OK, "")),
        ([HEAD, chunk(delta(content="a")), 0.02, RESET], (FAILED, None)),
        ([plain(429, b"busy", "text/plain")], (Status.REJECTED, "HTTP 429: busy")),
        ([b"nonsense\r\n\r\n", CLOSE], (FAILED, None)),
    ],
)
def test_how_a_connection_ends_decides_the_class(source, steps, expected):
    with scripted(lambda _: steps) as server:
        status, words, exchange = talk(server, source, Client.get)

    assert (status, words if expected[1] is not None else None) == expected
    assert exchange.conn is None


@SOURCES
def test_a_stale_connection_is_retried_once_and_no_other_failure_is(source):
    def script(request):
        # The first answer looks reusable, but the connection closes as soon as the next request has come on it.
        return [answer(3)] if first_on[request.connection] == len(server.posts) else [CLOSE]

    class First(dict):
        def __missing__(self, connection):
            self[connection] = len(server.posts)
            return self[connection]

    first_on = First()

    async def twice(client):
        return [await client.get() for _ in range(2)]

    with scripted(script) as server:
        (first, _, once), (second, _, again) = talk(server, source, twice)

        assert (OK, OK) == (first, second)
        assert (False, True) == (once.retried, again.retried)
        assert [1, 1, 2] == [request.connection - server.posts[0].connection + 1 for request in server.posts]

    with scripted(lambda _: [CLOSE]) as server:
        talk(server, source, Client.get)

        assert len(server.posts) == 1


@SOURCES
def test_a_connection_that_the_server_closed_while_idle_is_not_used(source):
    async def after_the_close(client):
        await client.get()
        deadline = time.monotonic() + 5
        while server.open and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        return (await client.get())[0], client.pool.opened

    with scripted(lambda _: [answer(3), CLOSE]) as server:
        assert (OK, 2) == talk(server, source, after_the_close)


@SOURCES
def test_an_answer_before_the_whole_request_was_sent_counts_and_ends_the_connection(source):
    async def served(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(plain(413, b"too long", "text/plain"))
        await over.wait()  # a close with unread bytes would reset the connection before the answer is read
        writer.transport.abort()

    over = asyncio.Event()

    async def run():
        listener = await asyncio.start_server(served, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        target = target_of(endpoint(url))
        pool = Pool(await find_address(target), source)
        client = Client(pool, message(target, "POST", "/v1/completions", b"x" * 50_000_000))
        status, words, _ = await client.get()
        reused = any(conn.alive for conn in pool._idle)
        over.set()
        pool.close()
        listener.close()
        for _ in range(10):
            await asyncio.sleep(0)
        return status, words, reused

    assert (FAILED, "HTTP 413: too long", False) == asyncio.run(run())


@SOURCES
def test_what_we_drop_reaches_the_server_as_a_closed_connection(source):
    async def drop(client):
        exchange, ended = client.begin()
        deadline = time.monotonic() + 5
        while not exchange.response.events and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        before = server.open
        client.pool.drop(exchange, "enough")
        while server.open == before and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        return exchange.response.outcome(3), ended.done(), before - server.open

    steps = [HEAD, *[step for _ in range(2_000) for step in (chunk(delta(content="a")), 0.005)]]
    with scripted(lambda _: steps) as server:
        assert ((FAILED, "enough"), False, 1) == talk(server, source, drop)


@SOURCES
def test_connections_are_opened_ahead(source):
    async def warm(client):
        said = await client.pool.prewarm(40)
        opened = client.pool.opened
        await asyncio.gather(*(client.get() for _ in range(40)))
        return said, opened, client.pool.opened

    with scripted() as server:
        assert ("", 40, 40) == talk(server, source, warm)


@SOURCES
def test_a_refused_connection_is_a_failure_of_the_request(source):
    async def after_the_end(client):
        with scripted() as other:
            address = (await find_address(target_of(endpoint(other.url)))), other.url
        pool = Pool(address[0], source)
        try:
            return (await Client(pool, b"x").get())[:2], await pool.prewarm(3)
        finally:
            pool.close()

    with scripted() as server:
        assert ((FAILED, "connection refused"), "connection refused") == talk(server, source, after_the_end)


def test_no_more_file_descriptors_is_an_error_of_the_send():
    async def too_many(client):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            with pytest.raises(OSError, match="Too many open files"):
                client.begin()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with scripted() as server:
        talk(server, SocketSource, too_many)


def test_reads_are_stamped_by_the_kernel_where_it_does():
    async def blocked(client):
        for _ in range(200):  # the kernel turns stamps on a moment after the first socket asked for them
            await client.get()
            if client.pool.stamps.from_kernel:
                break
        exchange, ended = client.begin()  # sent at once: the connection is open
        time.sleep(0.1)  # the loop is blocked while the answer comes
        blocked_until = time.monotonic_ns()
        await asyncio.wait_for(ended, 5)
        return blocked_until - exchange.response.first_ns, client.pool.stamps

    with scripted() as server:
        ahead_ns, stamps = talk(server, SocketSource, blocked)

    if not stamps.from_kernel:
        pytest.skip("this kernel stamps nothing")
    assert ahead_ns > 20_000_000  # the stamp is from before the loop came to read
    assert stamps.read_delays.quantile_us(1.0) > 20_000


def test_tls_is_verified_unless_told_otherwise():
    with scripted(tls=True) as server:
        assert talk(server, None, Client.get, insecure=True)[0] is OK
        with pytest.raises(RedlineError, match=r"certificate not trusted: self-signed certificate.*--insecure"):
            talk(server, None, Client.get)


def test_plain_http_on_a_tls_url_says_so():
    async def refuse(reader, writer):
        await reader.read(1)
        writer.write(plain(400, b"what is this?"))
        writer.close()

    async def run():
        listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            await find_address(target_of(endpoint(url)))
        finally:
            listener.close()
            for _ in range(10):
                await asyncio.sleep(0)

    with pytest.raises(RedlineError, match=r"TLS failed.*write http://127"):
        asyncio.run(run())


def test_ipv6_works():
    try:
        with scripted(host="::1") as server:
            status, _, _ = talk(server, None, Client.get)
    except OSError:
        pytest.skip("no IPv6 here")
    assert status is OK


def test_every_address_of_a_host_is_tried():
    with scripted() as server:  # localhost is ::1 too, where nobody listens
        server.url = server.url.replace("127.0.0.1", "localhost")
        assert talk(server, None, Client.get)[0] is OK


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1", "cannot connect to 127.0.0.1:1: connection refused; check the URL"),
        ("http://no-such-host.invalid", "cannot find the host of http://no-such-host.invalid"),
    ],
)
def test_an_address_without_a_server_is_named(url, message):
    with pytest.raises(RedlineError, match=message):
        asyncio.run(find_address(target_of(endpoint(url))))


@pytest.mark.parametrize("precise", [True, False])
def test_the_timer_fires_at_its_time_again_and_again(precise):
    async def run():
        fired: list[int] = []
        done = asyncio.Event()

        def fire() -> None:
            fired.append(time.monotonic_ns())
            if len(fired) < len(due):
                timer.set(due[len(fired)])
            else:
                done.set()

        timer = Timer(asyncio.get_running_loop(), fire, precise=precise)
        now = time.monotonic_ns()
        due = [now - 5, now + 2_000_000, now + 2_100_000, now + 9_000_000]
        timer.set(due[0])
        await asyncio.wait_for(done.wait(), 5)
        timer.set(time.monotonic_ns() + 1_000_000)
        timer.unset()
        await asyncio.sleep(0.01)
        timer.close()
        return [at - planned for at, planned in zip(fired, due, strict=True)]

    lateness_ns = asyncio.run(run())

    assert min(lateness_ns) >= (0 if precise else -1_000_000)  # asyncio rounds, up to a clock tick early
    assert max(lateness_ns) < 1_000_000_000


def test_a_request_that_could_not_be_sent_is_told_as_the_verdict_on_the_client_expects_it():
    said = not_sent(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))

    assert said == f"{NOT_SENT}too many open files"
    assert "ulimit -n" in cure_for(said)


def test_the_start_of_a_worker_does_not_load_what_its_driver_needs():
    heavy = "{'scipy', 'pydantic', 'rich', 'redline.verdict', 'redline.loadgen.session'}"
    code = f"import sys, redline.loadgen.worker; print(sorted({heavy} & set(sys.modules)))"

    assert "[]\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
