"""A benchmark client of your own, in ten lines: python3 own_client.py URL MODEL RATE REQUESTS RESULT"""

import concurrent.futures
import json
import sys
import time
import urllib.request
from pathlib import Path

url, model, rate, requests, result = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
body = json.dumps({"model": model, "prompt": "why? " * 32, "max_tokens": 16, "stream": True}).encode()


def ask(due: float) -> list[float]:
    time.sleep(max(0.0, due - time.monotonic()))
    sent = time.monotonic()
    with urllib.request.urlopen(f"{url}/v1/completions", body, timeout=60) as answer:
        times = [time.monotonic() for line in answer if line.startswith(b"data: {")]
    return [due, sent, times[0], times[-1], len(times)]


began = time.monotonic() + 0.1
with concurrent.futures.ThreadPoolExecutor(256) as threads:
    rows = list(threads.map(ask, [began + i / rate for i in range(requests)]))
Path(result).write_text(json.dumps({"rate": rate, "requests": rows}))
