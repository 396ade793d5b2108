"""A stand-in for `vllm` in sweeps: `serve` is the simulated server, `bench serve` a queue that is only computed.

The queue has `--slots` places, each busy 100 ms with a request on average, so that it carries at most 10 requests/s for
each. A result is there at once, whatever the times in it.
"""

import argparse
import heapq
import json
import math
import os
import random
import signal
import sys
from pathlib import Path

import fakes

SCRIPT = Path(__file__)
SERVICE_S, FIRST_S, TOKENS = 0.1, 0.02, 10


def install(folder: Path) -> Path:
    """Put a command `vllm` into this folder; the folder."""
    return fakes.install(folder, "vllm", "-S", SCRIPT)


def serve(argv: list[str]) -> None:
    options = argparse.ArgumentParser()
    options.add_argument("model", nargs="?")
    options.add_argument("--port", default="8000")
    options.add_argument("--max-num-seqs", default="16")
    options.add_argument("--started")
    options.add_argument("--seen", help="be the tiny server, and write what it is asked there")
    given, others = options.parse_known_args(argv)
    if given.started:
        with Path(given.started).open("a") as log:
            log.write(f"{os.environ.get('VLLM_SERVER_DEV_MODE')} {' '.join(argv)}\n")
    if given.seen:
        os.execv(
            sys.executable,
            [sys.executable, str(SCRIPT.with_name("tiny_server.py")), "--port", given.port, "--seen", given.seen],
        )
    words = ["--port", given.port, "--max-num-seqs", given.max_num_seqs, *others]
    os.execv(sys.executable, [sys.executable, "-m", "redline", "sim-server", *words])


def bench(argv: list[str]) -> None:
    options = argparse.ArgumentParser(allow_abbrev=False)
    options.add_argument("--request-rate", type=float, default=math.inf)
    options.add_argument("--max-concurrency", type=int)
    options.add_argument("--num-prompts", type=int, default=1000)
    options.add_argument("--slots", type=int, default=4)
    options.add_argument("--fail-share", type=float, default=0.0)
    options.add_argument("--broken", choices=["exit", "nothing", "empty", "half", "list", "nan", "hang"])
    options.add_argument("--hang-while", type=Path, help="as long as this file is there when it starts")
    options.add_argument("--save-result", action="store_true")
    options.add_argument("--save-detailed", action="store_true")
    options.add_argument("--percentile-metrics")
    options.add_argument("--metric-percentiles", default="99")
    options.add_argument("--result-dir", default=".")
    options.add_argument("--result-filename")
    options.add_argument("--called")
    given = options.parse_args(argv)
    if given.called:
        with Path(given.called).open("a") as log:
            log.write(" ".join(argv) + "\n")
    if given.broken == "exit":
        sys.exit("no such dataset")
    if given.broken == "hang" or (given.hang_while and given.hang_while.exists()):
        signal.pause()
    text = json.dumps(result(given))
    broken = {
        "empty": "",
        "half": text[: len(text) // 2],
        "list": f"[{text}]",
        "nan": json.dumps({"completed": 9, "failed": 0, "duration": 1.0, "p90_e2el_ms": math.nan}),
    }
    if given.broken != "nothing":
        (Path(given.result_dir) / given.result_filename).write_text(broken.get(given.broken, text))


def result(given: argparse.Namespace) -> dict[str, object]:
    """What such a server would have shown, with vLLM's keys."""
    place = f"{Path(given.result_dir).name} {given.request_rate} {given.max_concurrency}"
    drawn = random.Random(place)
    n = given.num_prompts
    free, users = [0.0] * given.slots, [0.0] * (given.max_concurrency or n)
    at, starts, waits, services = 0.0, [], [], []
    for _ in range(n):
        if math.isinf(given.request_rate):
            at = heapq.heappop(users)
        begins = max(at, heapq.heappop(free))
        lasts = drawn.uniform(0.5, 1.5) * SERVICE_S
        heapq.heappush(free, begins + lasts)
        starts.append(at)
        waits.append(begins - at)
        services.append(lasts)
        if math.isinf(given.request_rate):
            heapq.heappush(users, begins + lasts)
        else:
            at += drawn.expovariate(1.0) / given.request_rate
    failed = int(given.fail_share * n)
    ok = range(failed, n)
    e2e = [waits[i] + services[i] for i in range(n)]
    ttft = [waits[i] + FIRST_S for i in range(n)]
    gap = [(services[i] - FIRST_S) / (TOKENS - 1) for i in range(n)]
    duration = max(start + lasted for start, lasted in zip(starts, e2e, strict=True))
    done = len(ok)
    data: dict[str, object] = {
        "date": "20261125-120000",
        "backend": "openai-chat",
        "model_id": "simulated",
        "num_prompts": n,
        "request_rate": "inf" if math.isinf(given.request_rate) else given.request_rate,
        "max_concurrency": given.max_concurrency,
        "duration": duration,
        "completed": done,
        "failed": failed,
        "total_input_tokens": done * TOKENS,
        "total_output_tokens": done * TOKENS,
        "request_throughput": done / duration,
        "output_throughput": done * TOKENS / duration,
        "total_token_throughput": 2 * done * TOKENS / duration,
        "max_concurrent_requests": n,
    }
    if given.save_detailed:
        data |= {
            "input_lens": [TOKENS] * n,
            "output_lens": [TOKENS * (i >= failed) for i in range(n)],
            "start_times": starts,
            "ttfts": [ttft[i] * (i >= failed) for i in range(n)],
            "itls": [[gap[i]] * (TOKENS - 1) if i >= failed else [] for i in range(n)],
            "errors": ["" if i >= failed else "Bad Request" for i in range(n)],
        }
    for name, values in {"ttft": ttft, "tpot": gap, "itl": gap, "e2el": e2e}.items():
        ms = sorted(1e3 * values[i] for i in ok) or [0.0]
        data |= {f"mean_{name}_ms": sum(ms) / len(ms), f"median_{name}_ms": ms[len(ms) // 2]}
        for percent in map(float, given.metric_percentiles.split(",")):
            word = str(int(percent)) if int(percent) == percent else str(percent)
            data[f"p{word}_{name}_ms"] = ms[min(len(ms) - 1, int(len(ms) * percent / 100))]
    return data


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    bench(sys.argv[3:])
