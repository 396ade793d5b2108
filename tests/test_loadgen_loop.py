"""The event loop of the load worker: prompt readers, and a beat that shows when it was held up."""

import asyncio
import select
import socket
import time

import pytest

from redline.loadgen.beat import BEHIND_MS, Beat
from redline.loadgen.flights import Flight
from redline.loadgen.loop import PromptLoop
from redline.loadgen.nap import may_nap
from redline.loadgen.payload import Planned
from redline.users import Turn

needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="no epoll")


def ran(main):
    with asyncio.Runner(loop_factory=PromptLoop) as runner:
        return runner.run(main())


def pair():
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


@needs_epoll
def test_readers_and_writers_are_called_until_they_are_removed():
    async def main():
        loop, said = asyncio.get_running_loop(), []
        one, other = pair()
        with one, other:
            loop.add_reader(one.fileno(), lambda: said.append(one.recv(9)))
            loop.add_writer(one.fileno(), lambda: (said.append(b"w"), loop.remove_writer(one.fileno())))
            other.send(b"a")
            while len(said) < 2:
                await asyncio.sleep(0)
            assert loop.remove_reader(one.fileno())
            assert not loop.remove_reader(one.fileno())
            other.send(b"b")
            for _ in range(5):
                await asyncio.sleep(0)
        return said

    assert [b"a", b"w"] == sorted(ran(main))


@needs_epoll
def test_what_a_reader_closes_and_opens_anew_gets_no_event_of_the_old_one():
    async def main():
        loop, said, ended = asyncio.get_running_loop(), [], asyncio.get_running_loop().create_future()
        pairs = [pair(), pair()]
        numbers = [one.fileno() for one, _ in pairs]

        def first(mine: int) -> None:
            """Whichever comes first closes both, and another socket takes the number."""
            for one, other in pairs:
                loop.remove_reader(one.fileno())
                one.close()
                other.close()
            anew = [sock for _ in range(4) for sock in pair()]
            for sock in anew:
                if sock.fileno() in numbers:
                    loop.add_reader(sock.fileno(), lambda: said.append("an event that was another's"))
            said.append("one")
            pairs.clear()
            loop.call_soon(ended.set_result, anew)

        for n, (one, other) in enumerate(pairs):
            loop.add_reader(one.fileno(), lambda n=n: first(n))
            other.send(b"x")
        for sock in await ended:
            loop.remove_reader(sock.fileno())
            sock.close()
        return said

    assert ran(main) == ["one"]


@needs_epoll
def test_asyncios_own_sockets_work_beside_them():
    async def main():
        server = await asyncio.start_server(lambda _, writer: (writer.write(b"hello"), writer.close()), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            said = await reader.read()
            writer.close()
            return said

    assert ran(main) == b"hello"


@needs_epoll
def test_an_exception_in_a_reader_ends_the_loop():
    class OurError(Exception):
        pass

    async def main():
        one, other = pair()

        def fail():
            raise OurError

        with one, other:
            asyncio.get_running_loop().add_reader(one.fileno(), fail)
            other.send(b"x")
            await asyncio.get_running_loop().create_future()

    with pytest.raises(OurError):
        ran(main)


@needs_epoll
def test_a_loop_that_naps_reads_everything_and_wakes_for_what_is_due():
    async def main():
        loop, said = asyncio.get_running_loop(), []
        one, other = pair()
        with one, other:
            loop.nap(3_600_000_000_000)
            loop.due(time.monotonic_ns())  # without this it would nap for an hour
            loop.add_reader(one.fileno(), lambda: said.append(one.recv(9)))
            for n in range(3):
                other.send(b"%d" % n)
                while len(said) <= n:
                    await asyncio.sleep(1e-9)
            loop.remove_reader(one.fileno())
        return said

    assert ran(main) == [b"0", b"1", b"2"]


def flights(gap_us: int, count: int = 10, tokens: int = 20, bursts: int = 0) -> list[Flight]:
    made = []
    for n in range(count):
        flight = Flight(Planned(i=n, tokens_in=1, tokens_asked=1, payload=b""), Turn(0.0, n, 0), 0, 0, lambda _: None)
        flight.response.gaps_us.extend([gap_us] * (tokens - bursts) + [50] * bursts)
        made.append(flight)
    return made


@pytest.mark.parametrize(
    ("in_flight", "ended", "naps"),
    [
        (flights(20_000), 0, True),
        (flights(20_000), 49, True),  # 10 at a time and 49 in 1 s: each lasted 204 ms
        (flights(20_000), 51, False),
        (flights(5_000), 0, False),
        (flights(20_000, bursts=4), 0, False),  # several tokens at once, now and then
        (flights(20_000, tokens=0), 0, False),
        ([], 0, False),
    ],
)
def test_it_naps_where_tokens_are_far_apart_and_nobody_waits(in_flight, ended, naps):
    assert may_nap(in_flight, ended, 1_000_000_000) is naps


def test_a_beat_counts_a_delay_for_as_long_as_it_lasts():
    async def main():
        told = []
        beat = Beat(asyncio.get_running_loop(), told.append)
        beat.start()
        until = time.monotonic() + 0.12
        while time.monotonic() < until:
            pass
        while not told:
            await asyncio.sleep(0)
        beat.close()
        return dict(zip(BEHIND_MS, beat.behind_s, strict=True)), told

    behind_s, told = ran(main)
    assert behind_s[20] > 0.08
    assert behind_s[5] == pytest.approx(behind_s[20] + 0.015, abs=0.05)
    assert list(behind_s.values()) == sorted(behind_s.values(), reverse=True)
    assert max(told) > 100_000


def test_a_beat_that_was_never_started_counts_nothing():
    async def main():
        beat = Beat(asyncio.get_running_loop())
        beat.close()
        return beat.behind_s

    assert not any(ran(main))
