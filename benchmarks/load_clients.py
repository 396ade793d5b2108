"""The clients of the load generator benchmark: how each is started, and what it says of times."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from load_figures import PACE, STREAMS, Load, Served, chunk_lags_us, spread, ttft_errors_us

REAL = Path(os.environ.get("REDLINE_REAL", Path.home() / ".cache" / "redline-real"))
MODEL = REAL / "models" / "tiny-llama"
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
_NUMBER = re.compile(r"r(\d+) ")
_LOCUSTFILE = """
from locust import FastHttpUser, constant_throughput, task

class Streams(FastHttpUser):
    wait_time = constant_throughput({each})

    @task
    def ask(self):
        body = {{"model": "mock", "stream": True, "stream_options": {{"include_usage": True}}, "max_tokens": {tokens},
                 "messages": [{{"role": "user", "content": "word " * 32}}]}}
        with self.client.post("/v1/chat/completions", json=body, stream=True) as answer:
            while answer.stream.readline(b"\\n"):
                pass
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one run happens."""

    port: int
    folder: Path  # empty, for what the client writes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """One load generator; `read` makes figures of what it left in the folder and printed."""

    name: str
    command: Callable[[Load, Place], Sequence[str]]
    read: Callable[[Place, str, Sequence[Served]], dict[str, float]]
    package: str = ""  # its name in the virtual environment of that name; empty: comes with Redline
    loads: tuple[str, ...] = ()  # only these; none: all

    @property
    def python(self) -> Path:
        return REAL / self.package / "bin" / "python"

    def missing(self) -> str:
        """Why it cannot run here, if so."""
        if self.package and not (self.python.with_name(self.package)).exists():
            return "not installed"
        if self.package and not MODEL.exists():
            return "no tokenizer"
        return ""

    def version(self) -> str:
        """Of its package."""
        if not self.package:
            return ""
        code = f"import importlib.metadata as m; print(m.version({self.package!r}))"
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def clients(floor: Path) -> list[Client]:
    """All of them, in order of the table; `floor` is the compiled raw loop."""
    own = Path(__file__).with_name("load_redline.py")

    def redline(*more: str) -> Callable[[Load, Place], Sequence[str]]:
        def command(load: Load, place: Place) -> list[str]:
            return [sys.executable, str(own), place.url, f"{load.rate:g}", str(load.count), str(load.tokens), *more]

        return command

    def raw(load: Load, place: Place) -> list[str]:
        what = ["rate", f"{load.rate:g}", f"{load.count / load.rate:g}"] if load.tokens == 1 else None
        return [str(floor), str(place.port), *(what or ["streams", str(load.count), str(load.tokens)])]

    few = ("200/s", "500 streams")
    return [
        Client(name="raw epoll loop", command=raw, read=_read_printed),
        Client(name="Redline", command=redline(), read=_read_printed),
        Client(name="Redline, compared", command=redline("--stamps"), read=_read_printed, loads=STREAMS),
        Client(name="vllm bench serve", command=_vllm, read=_read_vllm, package="vllm"),
        Client(name="aiperf", command=_aiperf, read=_read_aiperf, package="aiperf", loads=few),
        Client(name="guidellm", command=_guidellm, read=_read_guidellm, package="guidellm", loads=few),
        Client(name="locust", command=_locust, read=_read_nothing, package="locust", loads=few),
    ]


# ---- commands ----


def _vllm(load: Load, place: Place) -> list[str]:
    return [
        str(REAL / "vllm/bin/vllm"), "bench", "serve", "--backend", "openai-chat", "--endpoint", "/v1/chat/completions",
        "--host", "127.0.0.1", "--port", str(place.port), "--model", "mock", "--tokenizer", str(MODEL),
        "--dataset-name", "random", "--random-input-len", "32", "--random-output-len", str(load.tokens), "--ignore-eos",
        "--request-rate", f"{load.rate:g}", "--burstiness", "inf", "--num-prompts", str(load.count),
        "--ready-check-timeout-sec", "0", "--disable-tqdm", "--save-result", "--save-detailed",
        "--result-dir", str(place.folder), "--result-filename", "vllm.json",
    ]  # fmt: skip


def _aiperf(load: Load, place: Place) -> list[str]:
    return [
        str(REAL / "aiperf/bin/aiperf"), "profile", "-m", "mock", "--url", place.url, "--endpoint-type", "chat",
        "--streaming", "--tokenizer", str(MODEL), "--request-rate", f"{load.rate:g}", "--arrival-pattern", "constant",
        "--request-count", str(load.count), "--isl", "32", "--osl", str(load.tokens), "--ui", "none",
        "--artifact-dir", str(place.folder), "--export-level", "records",
    ]  # fmt: skip


def _guidellm(load: Load, place: Place) -> list[str]:
    return [
        str(REAL / "guidellm/bin/guidellm"), "run", "--backend", f"kind=openai_http,target={place.url},model=mock",
        "--profile", f"kind=constant,rate={load.rate:g}", "--constraint", f"kind=max_requests,count={load.count}",
        "--tokenizer", f"kind=hf_auto,model={MODEL}",
        "--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={load.tokens}",
        "--output", f"kind=json,path={place.folder / 'guidellm.json'}", "--disable-console",
    ]  # fmt: skip


def _locust(load: Load, place: Place) -> list[str]:
    """Users that ask again: `rate` of them once a second, or as many as there are streams."""
    users = load.count if load.tokens > 1 else round(load.rate)
    text = _LOCUSTFILE.format(each=0.001 if load.tokens > 1 else 1, tokens=load.tokens)
    (place.folder / "locustfile.py").write_text(text)
    run_s = load.tokens / PACE + 2 if load.tokens > 1 else load.count / load.rate + 1
    return [
        str(REAL / "locust/bin/locust"), "-f", str(place.folder / "locustfile.py"), "--headless", "--host", place.url,
        "--users", str(users), "--spawn-rate", f"{load.rate:g}", "--run-time", f"{run_s:.0f}s", "--only-summary",
    ]  # fmt: skip


# ---- what they say ----


def _read_printed(_: Place, printed: str, _served: Sequence[Served]) -> dict[str, float]:
    """One JSON object on the last line; pairs are a median and a 99th percentile."""
    said: Mapping[str, Any] = json.loads(printed.strip().splitlines()[-1])
    found = {}
    for name, value in said.items():
        if isinstance(value, list):
            found[name.removesuffix("_us") + "_p50_us"], found[name.removesuffix("_us") + "_p99_us"] = value
    return found


def _read_vllm(place: Place, _: str, served: Sequence[Served]) -> dict[str, float]:
    said = json.loads((place.folder / "vllm.json").read_text())
    offset_s = time.time() - time.perf_counter()  # its start times are of the same monotonic clock
    arrivals, ttfts = {}, []
    by_number = {one.number: one for one in served}
    for start_s, ttft_s, gaps_s, text in zip(
        said["start_times"], said["ttfts"], said["itls"], said["generated_texts"], strict=True
    ):
        found = _NUMBER.search(text)
        if found and int(found[1]) in by_number:
            times_s = start_s + ttft_s + np.concatenate([[0.0], np.cumsum(gaps_s)]) + offset_s
            arrivals[int(found[1])] = (times_s * 1e9).astype(np.int64)
            ttfts.append((ttft_s, by_number[int(found[1])]))
    errors = ttft_errors_us(np.array([1e3 * ttft_s for ttft_s, _ in ttfts]), [one for _, one in ttfts])
    return spread("ttft_error", errors) | spread("chunk_lag", chunk_lags_us(arrivals, served))


def _read_aiperf(place: Place, _: str, served: Sequence[Served]) -> dict[str, float]:
    lines = (place.folder / "profile_export.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in lines]
    times = sorted(
        (one["metadata"]["request_start_ns"], one["metrics"]["time_to_first_token"]["value"])
        for one in said
        if "time_to_first_token" in one["metrics"]
    )
    return spread("ttft_error", ttft_errors_us(np.array([ttft_ms for _, ttft_ms in times]), served))


def _read_guidellm(place: Place, _: str, served: Sequence[Served]) -> dict[str, float]:
    said = json.loads((place.folder / "guidellm.json").read_text())["benchmarks"][0]["requests"]["successful"]
    by_number = {f"r{one.number}": one for one in served}
    pairs = [
        (1e3 * (timings["first_token_iteration"] - timings["request_start"]), by_number[one["response_id"]])
        for one in said
        if (timings := one["info"]["timings"])["first_token_iteration"] and one["response_id"] in by_number
    ]
    return spread("ttft_error", ttft_errors_us(np.array([ms for ms, _ in pairs]), [one for _, one in pairs]))


def _read_nothing(_: Place, _printed: str, _served: Sequence[Served]) -> dict[str, float]:
    return {}
