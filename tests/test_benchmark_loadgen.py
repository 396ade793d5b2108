"""The load generator benchmark: its mock server, its raw loop, and what it makes of samples."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import http.client  # noqa: E402  # after the path is set, with those below

from load_figures import Load, Row, Sample, Served, costs, parse_log, schedule, ttft_errors_us  # noqa: E402
from load_table import median, page, table  # noqa: E402
from load_watch import Mock, compiled, mock_server  # noqa: E402

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
BODY = {"model": "mock", "stream": True, "stamps": True, "stream_options": {"include_usage": True}, "max_tokens": 3}


def _sample(at_s: float, cpu_s: float, **counts: int) -> Sample:
    facts = {"requests": 0, "ended": 0, "chunks": 0, "held": 0, **counts}
    return Sample(at_s=at_s, cpu_s=cpu_s, memory_mb=10 + at_s, **facts)


def _ask(mock: Mock, path: str) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", mock.port, timeout=10)
    connection.request("POST", path, json.dumps(BODY))
    text = connection.getresponse().read().decode()
    connection.close()
    return [line.removeprefix("data: ") for line in text.splitlines() if line]


@needs_cc
@pytest.mark.parametrize("api", ["chat/completions", "completions"])
def test_the_mock_streams_stamped_words_then_usage_and_done(tmp_path, api):
    with mock_server(compiled(BENCHMARKS / "mock_server.c", tmp_path), 1000, 1) as mock:
        *events, done = _ask(mock, f"/v1/{api}")
        words = [json.loads(event) for event in events]
        served = parse_log(mock.get("/log"))

        assert done == "[DONE]"
        assert [1, 1, 1, 0] == [len(word["choices"]) for word in words]
        assert words[-1]["usage"]["completion_tokens"] == 3
        assert served[0].sent_ns.tolist() == [word["sent_ns"] for word in words[:3]]
        assert served[0].read_ns == words[0]["read_ns"] <= words[0]["sent_ns"]
        assert mock.counts() == {"requests": 1, "ended": 1, "chunks": 3, "held": 0}
        mock.get("/reset")
        assert parse_log(mock.get("/log")) == []


@needs_cc
def test_the_raw_loop_reads_every_chunk_of_the_mock(tmp_path):
    floor = compiled(BENCHMARKS / "floor.c", tmp_path)
    with mock_server(compiled(BENCHMARKS / "mock_server.c", tmp_path), 1000, 1) as mock:
        command = [str(floor), str(mock.port), "streams", "20", "5"]
        said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    assert (20, 100) == (said["sent"], said["chunks"])
    assert said["chunk_lag_us"][0] <= said["read_lag_us"][0]


def test_cost_counts_the_steady_part_after_the_last_reset_only():
    load = Load(name="500 streams", rate=500, count=500, tokens=300)
    samples = [
        _sample(0, 5, requests=7, chunks=70),
        _sample(1, 8),
        _sample(2, 9, requests=250, held=250, chunks=1000),
        _sample(3, 10, requests=500, held=500, chunks=10_000),
        _sample(4, 11, requests=500, held=500, chunks=60_000),
        _sample(5, 99, requests=500, held=400, chunks=90_000, ended=100),
    ]

    found = costs(load, samples)

    assert pytest.approx(20.0) == found["cpu_s_per_million"]
    assert pytest.approx(2.0) == found["opened_mb_per_1000"]  # 13 then, 12 with the first request
    assert pytest.approx(4.0) == found["streamed_mb_per_1000"]


def test_a_constant_rate_is_kept_or_missed_by_what_the_server_read():
    load = Load(name="1000/s", rate=1000, count=100, tokens=1)
    read_ns = np.arange(100) * 1_000_000 + 10**18
    read_ns[50] += 700_000
    served = [Served(number=i, read_ns=int(at), sent_ns=np.array([at + 5])) for i, at in enumerate(read_ns)]

    found = schedule(load, served)

    assert pytest.approx(1.0) == found["achieved"]
    assert found["off_p50_us"] < 1
    assert found["off_p99_us"] < 700 < found["off_p99_us"] + 700


def test_a_ttft_error_is_what_the_server_did_not_take():
    served = [Served(number=0, read_ns=0, sent_ns=np.array([10_000_000]))]

    assert pytest.approx([500.0]) == ttft_errors_us(np.array([10.5]), served).tolist()


def test_the_table_has_medians_ratios_and_who_is_missing():
    rows = [
        Row(client=name, load="200/s", round=number, figures={"cpu_s_per_1000": cost * number})
        for name, cost in (("Redline", 0.1), ("vllm bench serve", 0.5))
        for number in (1, 2, 3)
    ]

    text = table(rows, {"locust": "not installed"})

    assert pytest.approx(0.2) == median(rows, "Redline", "200/s", "cpu_s_per_1000")
    assert "| vllm bench serve | 1 (0.5 to 1.5) | 5x |" in text
    assert "locust: not installed" in text
    assert "vllm 1.2" in page(text, machine="2 cores", versions=["vllm 1.2"], minutes=3)
