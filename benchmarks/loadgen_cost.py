"""What the load generator costs: CPU per request and per streamed token, lateness of sends, memory.

python benchmarks/loadgen_cost.py      # half a minute; on an idle machine with two cores or more

The server answers from memory, in a process of its own; what is printed is the worker's alone.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from redline.loadgen import LoadSession, open_session
from redline.model import Endpoint, Lengths, Measured, Outcome, Probe, Workload

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TOKEN_S = 0.02


def main() -> None:
    """Measure, and print a table."""
    if sys.argv[1:] == ["serve"]:
        asyncio.run(_serve())
        return
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # a pipe
        try:
            _measure(server.stdout.readline().strip())
        finally:
            server.kill()


def _measure(url: str) -> None:
    print(f"{'load':24}  requests/s  CPU s/1000 req  CPU s/1M tokens  late p50/p99 us  read p99 us")
    one = Workload(name="one", prompt=Lengths(mean=64), output=Lengths(mean=1))
    many = Workload(name="many", prompt=Lengths(mean=64), output=Lengths(mean=100))
    with open_session(Endpoint(url=url, model="m"), one) as session:
        for load in (200.0, 1_000.0):
            probe = Probe(by="rate", load=load, kind="main", max_s=5.0)
            _line(f"{load:g}/s, 1 token", session.measure(probe, lambda _: None, 1))
        probe = Probe(by="concurrency", load=64, kind="main", max_s=5.0, spread_s=0.1)
        _line("64 users, 1 token", session.measure(probe, lambda _: None, 1))
    with open_session(Endpoint(url=url, model="m"), many) as session:
        probe = Probe(by="concurrency", load=200, kind="main", max_s=8.0)
        _line("200 streams, 50 tokens/s", session.measure(probe, lambda _: None, 1))
        print(f"memory of the worker: {_resident_mb(session):.0f} MB")


def _line(name: str, outcome: Outcome) -> None:
    assert isinstance(outcome, Measured), outcome
    assert outcome.records is not None
    client, records = outcome.client, outcome.records
    cpu_s = client.cpu_share * outcome.duration_s
    tokens = int(records.tokens_out.sum())
    print(
        f"{name:24}  {records.ok.sum() / outcome.duration_s:10.0f}  {1e3 * cpu_s / len(records):14.3f}  "
        f"{1e6 * cpu_s / tokens:15.1f}  {1e6 * client.late_p50_s:8.0f}/{1e6 * client.late_p99_s:<6.0f}  "
        f"{1e6 * client.read_delay_p99_s:11.0f}"
    )


def _resident_mb(session: LoadSession) -> float:
    status = Path(f"/proc/{session.worker_pid}/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e3


# ---- the server ----


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(**event: object) -> bytes:
    return _chunk(b"data: " + json.dumps(event).encode() + b"\n\n")


_WORD = _event(choices=[{"index": 0, "delta": {"content": " word"}, "finish_reason": None}])


def _end(tokens: int) -> bytes:
    finish = _event(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}])
    usage = _event(choices=[], usage={"prompt_tokens": 64, "completion_tokens": tokens})
    return finish + usage + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Answers(asyncio.Protocol):
    """One connection: the first token at once, the others each 20 ms."""

    def __init__(self) -> None:
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # what create_server makes
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0] or 0)
        if not found or len(body) < size or self._transport is None:
            return
        self._held = b""
        if head.startswith(b"GET"):
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        tokens = int(body.rpartition(b'"max_tokens":')[2].split(b",")[0].rstrip(b"}"))
        self._transport.write(_HEAD + _WORD + (_end(tokens) if tokens == 1 else b""))
        if tokens > 1:
            asyncio.get_running_loop().call_later(_TOKEN_S, self._go_on, tokens, tokens - 1)

    def _go_on(self, tokens: int, left: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(_WORD if left > 1 else _WORD + _end(tokens))
        if left > 1:
            asyncio.get_running_loop().call_later(_TOKEN_S, self._go_on, tokens, left - 1)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    main()
