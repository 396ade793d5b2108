"""The smallest server that looks like an LLM server; in the test's process, or as a command.

python tiny_server.py --port 8000 [--models a,b] [--die-after N] [--ignore-term] [--health 503] [--worker PIDFILE]
                      [--seen FILE]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SCRIPT = __file__


@dataclass
class Behaviour:
    """What a test may change while the server runs."""

    models: list[dict[str, object]] | None = field(default_factory=lambda: [{"id": "tiny"}])
    health: int = 200
    metrics: str | None = None
    version: str | None = None
    caches: bool = False
    key: str | None = None
    redirect: str | None = None
    chat: int = 200
    completions: int = 200
    ttft_s: list[float] = field(default_factory=list)  # of the next requests, then at once
    die_after: int | None = None  # requests
    seen: list[str] = field(default_factory=list)  # "METHOD path"
    generated: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def behaviour(self) -> Behaviour:
        return self.server.behaviour  # type: ignore[attr-defined]  # ours, below

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        its = self.behaviour
        its.seen.append(f"GET {self.path}")
        if its.redirect:
            self.answer(307, "", {"Location": its.redirect})
        elif its.key and self.headers.get("Authorization") != f"Bearer {its.key}":
            self.answer(401, "no key")
        elif self.path == "/health" and its.health != 404:
            self.answer(its.health, "")
        elif self.path == "/v1/models" and its.models is not None:
            self.answer(200, json.dumps({"data": its.models}))
        elif self.path == "/metrics" and its.metrics is not None:
            self.answer(200, its.metrics)
        elif self.path == "/version" and its.version is not None:
            self.answer(200, json.dumps({"version": its.version}))
        else:
            self.answer(404, "no such page")

    def do_POST(self) -> None:
        its = self.behaviour
        its.seen.append(f"POST {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path in ("/v1/chat/completions", "/v1/completions"):
            self.generate(its.chat if "chat" in self.path else its.completions)
        else:
            self.answer(200 if its.caches else 404, "")

    def generate(self, status: int) -> None:
        its = self.behaviour
        its.generated += 1
        if its.die_after is not None and its.generated > its.die_after:
            print("out of memory, says the tiny server", flush=True)
            os._exit(7)
        if status != 200:
            self.answer(status, "the server's own words")
            return
        if its.ttft_s:
            time.sleep(its.ttft_s.pop(0))
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        role = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
        token = {"choices": [{"delta": {"content": "a"}, "text": "a"}]}
        for event in (role, token):
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body.encode()))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())


class TinyServer(ThreadingHTTPServer):
    daemon_threads = True
    behaviour: Behaviour

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def tiny_server() -> Iterator[TinyServer]:
    """A server in a thread of this process, on a free port."""
    with TinyServer(("127.0.0.1", 0), Handler) as server:
        server.behaviour = Behaviour()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Lines(list[str]):
    """A list that is a file too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{line}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--health", type=int, default=200)
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--worker", help="start a worker in a session of its own, and write its pid there")
    parser.add_argument("--seen", type=Path, help="have pages that reset caches, and write here what is asked")
    options = parser.parse_args()
    if options.ignore_term:
        signal.signal(signal.SIGTERM, lambda *_: print("TERM, ignored", flush=True))
    if options.worker:
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        Path(options.worker).write_text(f"{subprocess.Popen(sleeper, start_new_session=True).pid}\n")
    server = TinyServer(("127.0.0.1", options.port), Handler)
    server.behaviour = Behaviour(
        models=[{"id": name} for name in options.models.split(",")],
        health=options.health,
        die_after=options.die_after,
        caches=options.seen is not None,
        seen=_Lines(options.seen) if options.seen else [],
    )
    print("the tiny server listens", flush=True)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
