"""What `redline bench` sends in one run and in the next: nothing twice, unless asked for."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from driving import redline_here
from redline import measuring
from scripted import Request, Server, Step, obedient, scripted
from streams import plain


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"{n} of many", "output_tokens": n % 3 + 1}) for n in range(30)))
    return str(file)


def well(request: Request) -> Sequence[Step]:
    """A server whose health can be asked for, and that has no caches to reset."""
    if request.method == "GET" or "completions" not in request.path:
        return [plain(200 if request.path == "/health" else 404, b"{}")]
    return obedient(request)


def run(server: Server, workload: str, **more: int) -> tuple[list[str], dict]:
    """The prompts that came, and the result."""
    server.requests.clear()
    options = {"by": "rate", "loads": [200.0], "workload": workload, **more}
    plan = measuring.prepare(server.url, [], options, measuring.Extent(requests=20), measuring.Saying())
    found = measuring.measure(plan, lambda event: None)
    result = measuring.result_of(plan, found.rows[0])
    assert result is not None
    return [request.text for request in server.posts[-20:]], result


def test_prompts_of_a_file_that_an_earlier_run_sent_begin_with_words_of_their_own(prompts: str) -> None:
    with scripted(well) as server:
        (one, _), (other, result) = run(server, prompts), run(server, prompts)

    assert {20} == {len(set(one)), len(set(other))}
    assert not any(text[0].isdigit() for text in one + other)
    assert set() == {tuple(text.split()[:8]) for text in one} & {tuple(text.split()[:8]) for text in other}
    assert "begins with a few words of its own" in " ".join(result["redline"]["warnings"])


def test_prompts_of_a_file_are_sent_as_they_are_where_they_may_repeat(prompts: str) -> None:
    with scripted(well) as server:
        one, result = run(server, f"{prompts}:repeat=true")

    assert all(text.endswith("of many") and text[0].isdigit() for text in one)
    assert [] == [text for text in result["redline"]["warnings"] if "words of its own" in text]


def test_the_seed_of_a_run_sends_its_requests_again(prompts: str) -> None:
    with scripted(well) as server:
        for workload in (prompts, "random:in=40,out=2,cv=0.2"):
            one, first = run(server, workload)
            other, second = run(server, workload)
            again, third = run(server, workload, seed=first["redline"]["seed"])

            assert sorted(one) == sorted(again)
            assert set() == set(one) & set(other)
            assert first["redline"]["seed"] == third["redline"]["seed"] != second["redline"]["seed"]


def test_the_seed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(well) as server:
        argv = ("bench", server.url, "--rate", "200", "--requests", "20", "--workload", "random:in=9,out=2", "-q")
        _, drawn, _ = redline_here(argv, capsys)
        _, given, _ = redline_here((*argv, "--seed", "77"), capsys)

    assert "--seed draws the same requests again" in drawn
    assert "seed 77:" in given
