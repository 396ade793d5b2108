"""A stand-in for `vllm`: `serve` is the simulated server, `bench serve` a small client that writes its result file."""

import argparse
import itertools
import json
import os
import random
import sys
import threading
import time
import urllib.request
from pathlib import Path

import fakes

SCRIPT = Path(__file__)


def install(folder: Path) -> Path:
    """Put a command `vllm` into this folder; the folder."""
    return fakes.install(folder, "vllm", SCRIPT)


def serve(argv: list[str]) -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--port")
    options.add_argument("--served-model-name", default="tiny")
    options.add_argument("--max-num-seqs", default="16")
    given, _ = options.parse_known_args(argv)
    words = ["--port", given.port, "--model", given.served_model_name, "--max-num-seqs", given.max_num_seqs]
    os.execv(sys.executable, [sys.executable, "-m", "redline", "sim-server", *words])


def bench(argv: list[str]) -> None:
    options = argparse.ArgumentParser()
    for name in ("base-url", "model", "result-filename"):
        options.add_argument(f"--{name}")
    for name in ("num-prompts", "random-input-len", "random-output-len", "seed"):
        options.add_argument(f"--{name}", type=int)
    options.add_argument("--request-rate", type=float)
    given, _ = options.parse_known_args(argv)
    results, duration_s = driven(given)
    lists = {name: [result[name] for result in results] for name in results[0]}
    totals = {
        "num_prompts": given.num_prompts,
        "request_rate": given.request_rate,
        "max_concurrency": None,
        "duration": duration_s,
        "completed": given.num_prompts,
        "failed": 0,
    }
    Path(given.result_filename).write_text(json.dumps(totals | lists))


def driven(given: argparse.Namespace) -> tuple[list[dict[str, object]], float]:
    """Send the requests; what each came to, and how long all of it lasted."""
    drawn = random.Random(given.seed)
    results: list[dict[str, object]] = [{} for _ in range(given.num_prompts)]
    threads, due, began = [], time.perf_counter(), time.perf_counter()
    for index in range(given.num_prompts):
        time.sleep(max(0.0, due - time.perf_counter()))  # an open loop's schedule, not a wait for something
        threads.append(threading.Thread(target=one, args=(given, index, results[index])))
        threads[-1].start()
        due += drawn.expovariate(given.request_rate)
    for thread in threads:
        thread.join()
    return results, time.perf_counter() - began


def one(given: argparse.Namespace, index: int, result: dict[str, object]) -> None:
    words = " ".join(f"w{given.seed}-{index}-{i}" for i in range(given.random_input_len))
    body = {
        "model": given.model,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": given.random_output_len,
        "stream": True,
    }
    request = urllib.request.Request(
        f"{given.base_url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    sent, times = time.perf_counter(), []
    with urllib.request.urlopen(request, timeout=60) as answer:
        for line in answer:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter())
    result |= {
        "start_times": sent,
        "ttfts": times[0] - sent,
        "itls": [b - a for a, b in itertools.pairwise(times)],
        "input_lens": given.random_input_len,
        "output_lens": len(times),
        "errors": "",
    }


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    bench(sys.argv[3:])
