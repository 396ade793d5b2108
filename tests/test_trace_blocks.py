"""Blocks that a trace names: prompts begin alike as far as theirs are the same, and no further."""

import json
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest

from redline import arrivals
from redline.experiment.inputs import noted, reader, remembered
from redline.experiment.plan import case_key
from redline.experiment.traces import parse_trace
from redline.experiment.workloads import parse_workload
from redline.loadgen.handover import inputs_of, to_json, workload_from
from redline.loadgen.payload import Payloads, Shape, target_of
from redline.model import Endpoint, Lengths, Probe, ServerConfig, UsageError, Workload
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession

TARGET = target_of(Endpoint(url="http://host:8000", model="m"))
ROWS = [
    (0, 1400, [7, 8, 9]),
    (1, 1100, [7, 8, 11]),
    (2, 600, [7, 12]),
    (3, 300, [7]),
    (4, 300, [13]),
    (5, 200, []),
    (6, 1400, [7, 8, 9]),
]
TEXT = "\n".join(
    json.dumps({"timestamp": 1000 * at, "input_length": tokens, "output_length": 5, "hash_ids": ids})
    for at, tokens, ids in ROWS
)


def workload(**more) -> Workload:
    trace = parse_trace(TEXT, "t.jsonl")
    return Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), arrivals="trace", trace=trace, **more)


def sent(its: Workload, count: int = len(ROWS), seed: int = 3, shape: Shape | None = None) -> dict[int, list[str]]:
    """The words of each prompt, by its line in the trace (those of the second round from 100 on)."""
    payloads = Payloads(TARGET, "m", its, shape or Shape(tokens_per_word=1.0), seed)
    bodies = [json.loads(payloads.next().payload.partition(b"\r\n\r\n")[2]) for _ in range(count)]
    first = arrivals.first_entry(its.trace, seed) % len(ROWS)
    laps = [divmod(first + i, len(ROWS)) for i in range(count)]
    return {100 * lap + n: body["messages"][0]["content"].split() for (lap, n), body in zip(laps, bodies, strict=True)}


def in_common(one: list[str], other: list[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def from_start(its: Workload, least: int = 0) -> int:
    """A seed that begins the trace at its first line."""
    return next(seed for seed in range(least, 999) if arrivals.first_entry(its.trace, seed) % len(ROWS) == 0)


def test_prompts_begin_alike_as_far_as_their_blocks_are_the_same():
    prompts = sent(workload(), seed=from_start(workload()))

    assert [tokens for _, tokens, _ in ROWS] == [len(prompts[n]) for n in range(len(ROWS))]
    assert 1024 == in_common(prompts[0], prompts[1])
    assert 512 == in_common(prompts[1], prompts[2])
    assert 300 == in_common(prompts[2], prompts[3])
    assert 0 == in_common(prompts[3], prompts[4]) == in_common(prompts[4], prompts[5])
    assert prompts[0] == prompts[6]


def test_a_block_is_as_long_as_the_server_counts():
    prompts = sent(workload(), seed=from_start(workload()), shape=Shape(tokens_per_word=2.0))

    assert 512 == in_common(prompts[0], prompts[1])


def test_the_text_of_a_block_is_that_of_one_trial_and_one_round():
    seed = from_start(workload())
    prompts, others = sent(workload(), 2 * len(ROWS), seed), sent(workload(), len(ROWS), seed + 100_000)

    assert 0 == in_common(prompts[0], prompts[100])
    assert 512 == in_common(prompts[101], prompts[102])
    assert all(in_common(prompts[3], text) == 0 for text in others.values())


def test_the_text_of_a_block_stays_where_asked():
    its = workload(repeat=True)
    seed = from_start(its)
    one, other = sent(its, seed=seed), sent(its, seed=from_start(its, seed + 1))

    assert one[0] == other[0]
    assert one[5] != other[5]


def test_blocks_go_to_the_worker_as_numbers():
    its = workload()
    inputs = {name: bytes(memoryview(column).cast("B")) for name, column in inputs_of(its).items() if len(column)}
    there = workload_from(json.loads(json.dumps(to_json(its))), inputs)

    assert its == there
    assert (its.trace.blocks, its.trace.block_ends) == (there.trace.blocks, there.trace.block_ends)


def test_a_simulated_cache_finds_what_blocks_have_in_common():
    profile = replace(PROFILES["demo"], prefix_cache_tokens=1_000_000, max_model_len=8_192, kv_tokens=100_000)
    probe = Probe(by="concurrency", load=1, kind="main", max_s=600, max_requests=len(ROWS), drain=True)
    own = replace(workload(), trace=replace(workload().trace, has_blocks=False))
    with_blocks, without = (
        VirtualSession(profile, its).measure(probe, lambda records: None, from_start(its)).records.ttft_ms()
        for its in (workload(), own)
    )

    assert with_blocks[6] < without[6] / 2
    assert with_blocks[5] == pytest.approx(without[5], rel=0.2)


@pytest.mark.parametrize(
    ("spec", "used"),
    [("trace:file=t.jsonl", True), ("trace:file=t.jsonl,prefix.share=0.5", False), ("chat:trace=t.jsonl", False)],
)
def test_what_else_says_how_prompts_begin_takes_the_place_of_blocks(tmp_path: Path, spec, used):
    (tmp_path / "t.jsonl").write_text(TEXT)
    its = parse_workload(spec, reader(tmp_path))

    assert used == its.trace.has_blocks


def test_repeat_needs_blocks_where_a_trace_is_all_there_is(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text(TEXT)
    (tmp_path / "plain.csv").write_text("timestamp,in,out\n0,5,5\n1,6,6\n")

    assert parse_workload("trace:file=t.jsonl,repeat=true", reader(tmp_path)).repeat
    with pytest.raises(UsageError, match="repeat needs"):
        parse_workload("trace:file=plain.csv,repeat=true", reader(tmp_path))


def test_a_stored_trace_with_blocks_keeps_its_key_and_is_another_than_one_without(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text(TEXT)
    its = parse_workload("trace:file=t.jsonl", reader(tmp_path))
    for name, text in noted([its]).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "t.jsonl").unlink()
    stored = parse_workload("trace:file=t.jsonl", remembered(tmp_path))
    plain = replace(its, trace=replace(its.trace, has_blocks=False))
    server = ServerConfig(name="s", url="http://h")

    assert case_key(server, its) == case_key(server, stored)
    assert case_key(server, its) != case_key(server, plain)
