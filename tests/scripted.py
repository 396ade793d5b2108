"""An HTTP server in a thread that answers each request with scripted bytes, pauses and closes."""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from streams import answer, plain

CLOSE, RESET = "close", "reset"
CERTIFICATE = Path(__file__).parent / "data" / "localhost.pem"  # for this test alone: certificate and key, self-signed

Step: TypeAlias = bytes | float | str
"""Bytes to send, seconds to wait, or a way to end the connection."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the server saw."""

    at_s: float  # monotonic
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def text(self) -> str:
        """The prompt."""
        asked = self.json
        text: str = asked["messages"][0]["content"] if "messages" in asked else asked["prompt"]
        return text


Script: TypeAlias = Callable[[Request], Sequence[Step]]


def obedient(request: Request) -> Sequence[Step]:
    """As many tokens as asked for; a token per word, and five more for the template."""
    asked = request.json
    return [answer(asked.get("max_tokens") or asked["max_completion_tokens"], len(request.text.split()) + 5)]


class Server:
    """Its url, what it saw, and the script that a test may change while it runs."""

    def __init__(self, script: Script, models: Sequence[dict[str, Any]] = ({"id": "m"},)) -> None:
        self.script, self.models = script, list(models)
        self.requests: list[Request] = []
        self.connections = self.open = 0
        self.url = ""
        self.tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def posts(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks[asyncio.get_running_loop().create_task(self.serve(reader, writer))] = writer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while request := await _read(reader, number):
                self.requests.append(request)
                for step in self._steps(request):
                    if step == CLOSE:
                        return
                    if step == RESET:
                        writer.transport.abort()
                        return
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    else:
                        await asyncio.sleep(float(step))
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def _steps(self, request: Request) -> Sequence[Step]:
        if request.path.endswith("/v1/models"):
            return [plain(200, json.dumps({"data": self.models}).encode())]
        return self.script(request)


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    at_s = time.monotonic()
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ")
    return Request(at_s=at_s, connection=connection, method=method, path=path, headers=headers, body=body)


@contextmanager
def scripted(
    script: Script = obedient,
    *,
    host: str = "127.0.0.1",
    tls: bool = False,
    models: Sequence[dict[str, Any]] = ({"id": "m"},),
) -> Iterator[Server]:
    """A server on a free port."""
    server, started = Server(script, models), threading.Event()
    loop = asyncio.new_event_loop()
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)

    async def run() -> None:
        listener = await asyncio.start_server(server.connected, host, 0, ssl=context, limit=1 << 22, backlog=1024)
        port = listener.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        server.url = f"{'https' if tls else 'http'}://{shown}:{port}"
        started.set()
        await stop.wait()
        await settle()  # connections that are being accepted: asyncio loses them when the listener closes
        listener.close()
        for task, writer in server.tasks.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await settle()  # closed transports give their sockets back

    async def settle() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
