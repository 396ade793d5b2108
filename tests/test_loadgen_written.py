"""Prompts of a file on their way: each as it is written, none twice alike unless asked for."""

import json
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline import lengths
from redline.experiment.datasets import parse_dataset
from redline.loadgen.handover import inputs_of, to_json, workload_from
from redline.loadgen.payload import Payloads, Shape, target_of
from redline.loadgen.written import Place
from redline.model import Case, Endpoint, Lengths, Probe, ServerConfig, Workload
from redline.runner.local import Keeper, local_lab, sent_before
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession

TARGET = target_of(Endpoint(url="http://host:8000", model="m"))


def workload(*rows, **more) -> Workload:
    dataset = parse_dataset("\n".join(map(json.dumps, rows)), "p.jsonl")
    return Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), dataset=dataset, **more)


def numbered(count: int, **more) -> Workload:
    return workload(*({"prompt": f"{n} of many", "output_tokens": n + 1} for n in range(count)), **more)


def bodies(its: Workload, count: int, seed: int = 3, shape: Shape | None = None) -> list[dict]:
    payloads = Payloads(TARGET, "m", its, shape or Shape(), seed)
    return [json.loads(payloads.next().payload.partition(b"\r\n\r\n")[2]) for _ in range(count)]


def texts(its: Workload, count: int, seed: int = 3) -> list[str]:
    return [body["messages"][0]["content"] for body in bodies(its, count, seed)]


def test_each_round_sends_every_prompt_once_in_an_order_of_its_own():
    sent = texts(numbered(50, repeat=True), 100)

    assert len(set(sent[:50])) == len(set(sent[50:])) == 50
    assert sent[:50] != sent[50:]
    assert sent[:50] != texts(numbered(50), 50, seed=4)


def test_a_prompt_goes_with_its_own_length_wherever_requests_are_built():
    sent = bodies(numbered(40), 40)

    assert all(f"{body['max_tokens'] - 1} of many" == body["messages"][0]["content"] for body in sent)
    assert [body["max_tokens"] for body in sent] == lengths.tokens(numbered(40), 3, 0, 40)[1].tolist()


@given(st.integers(0, 200), st.integers(1, 300))
def test_any_split_draws_the_same_prompts(start, count):
    dataset = numbered(30).dataset

    assert lengths.entries(dataset, 7, 0, start + count)[start:].tolist() == (
        lengths.entries(dataset, 7, start, count).tolist()
    )


def test_a_repeat_begins_with_words_of_its_own():
    sent = texts(numbered(5), 15)

    assert all(text.endswith(" of many") for text in sent)
    assert all(text[0].isdigit() for text in sent[:5])
    assert len({text[:20] for text in sent[5:]}) == 10


def test_what_a_system_message_says_stays_first_in_a_repeat():
    its = workload(
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
            "max_tokens": 5,
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "How?"}]}], "max_tokens": 5},
    )
    first, second = sorted((body["messages"] for body in bodies(its, 4)[2:]), key=len, reverse=True)

    assert "Be brief." == first[0]["content"]
    assert first[1]["content"].endswith(" Why?")
    assert ["text", "text"] == [part["type"] for part in second[0]["content"]]
    assert second[0]["content"][1]["text"] == "How?"


def test_trials_of_a_session_go_on_where_the_one_before_ended():
    its, place = numbered(50), Place(numbered(50).dataset)
    sent, told = [], []
    for seed, count in ((3, 20), (4, 30), (5, 10)):
        placed = place.of(its, seed)
        sent += texts(placed, count, seed)
        told.append(place.sent(placed, count))

    assert len(set(sent[:50])) == 50
    assert not sent[50][0].isdigit()
    assert [None, None] == told[:2]
    assert "p.jsonl has 50 prompts, and this server had them before, or may have: each repeat begins" in told[2]


def test_a_trial_that_broke_counts_as_if_it_had_sent_all():
    place = Place(numbered(50).dataset)
    place.of(numbered(50), 3)

    assert not any(text[0].isdigit() for text in texts(place.of(numbered(50), 4), 50))


def opened_by(jobs: list[list[Case]], measured: list[Case] = ()) -> list[Workload]:
    """The workloads as their sessions get them; each list is one life of a server."""
    opened: list[Workload] = []
    lab = local_lab(Keeper(next_id=str, log_dir=Path))
    lab = replace(lab, connect=lambda config: None, open_session=lambda endpoint, case: opened.append(case.workload))
    lab = sent_before(lab, measured)
    for cases in jobs:
        lab.connect(cases[0].server)
        for case in cases:
            lab.open_session(Endpoint(url="http://h", model="m"), case)
    return opened


RUNNING, LAUNCHED = ServerConfig(name="s", url="http://h"), ServerConfig(name="s", command=("serve",))


def case(server: ServerConfig, workload: Workload) -> Case:
    return Case(key="k", server=server, workload=workload)


@pytest.mark.parametrize(("server", "measured", "first"), [(RUNNING, 1, 50), (RUNNING, 0, 0), (LAUNCHED, 1, 0)])
def test_a_running_server_that_had_the_prompts_before_gets_none_of_them_again(server, measured, first):
    (its,) = opened_by([[case(server, numbered(50))]], [case(server, numbered(50))] * measured)

    assert first == its.dataset.first
    assert (first == 0) == all(text[0].isdigit() for text in texts(its, 50))


@pytest.mark.parametrize(("server", "again"), [(RUNNING, 50), (LAUNCHED, 0)])
def test_a_second_workload_of_one_file_repeats_no_prompt_on_a_server_that_still_runs(server, again):
    short = replace(numbered(50), max_tokens=1)
    first, second, other, later = opened_by(
        [[case(server, numbered(50)), case(server, short), case(server, numbered(40))], [case(server, short)]]
    )

    assert [0, 50, 0, again] == [its.dataset.first for its in (first, second, other, later)]


def test_a_simulated_server_gets_the_lengths_of_the_prompts():
    its = numbered(40)
    outcome = VirtualSession(PROFILES["demo"], its).measure(
        Probe(by="rate", load=20, kind="main", max_s=60, max_requests=40), lambda records: None, seed=3
    )

    assert lengths.tokens(its, 3, 0, 40)[1].tolist() == outcome.records.tokens_asked.tolist()


def test_repeats_are_left_alone_where_asked():
    place = Place(numbered(5).dataset)

    assert 5 == len(set(texts(place.of(numbered(5, repeat=True), 3), 20)))


def test_a_line_has_the_last_word_on_its_own_request():
    rows = [
        {"prompt": "a", "output_tokens": 9, "ignore_eos": False, "min_tokens": 4, "extra": {"temperature": 0.1}},
        {"prompt": "b", "output_tokens": 9},
    ]
    its = workload(*rows, extra={"temperature": 0.7, "top_p": 0.9}, api="completions")
    a, b = sorted(bodies(its, 2), key=lambda body: body["prompt"])

    assert (0.1, 0.9, 4) == (a["temperature"], a["top_p"], a["min_tokens"])
    assert "ignore_eos" not in a
    assert (0.7, 0.9, 9, True) == (b["temperature"], b["top_p"], b["min_tokens"], b["ignore_eos"])


@pytest.mark.parametrize(
    ("more", "shape", "expected"),
    [
        ({"max_tokens": 6}, Shape(), {"max_tokens": 6, "min_tokens": 6, "ignore_eos": True}),
        ({"min_tokens": 4, "ignore_eos": False}, Shape(), {"max_tokens": 9, "min_tokens": 4, "ignore_eos": None}),
        ({"min_tokens": 40, "ignore_eos": False}, Shape(), {"max_tokens": 9, "min_tokens": 9, "ignore_eos": None}),
        ({}, Shape(ignore_eos=False), {"max_tokens": 9, "min_tokens": None, "ignore_eos": None}),
        ({}, Shape(min_tokens=False), {"max_tokens": 9, "min_tokens": None, "ignore_eos": True}),
    ],
)
def test_the_workload_says_how_long_outputs_may_and_must_be(more, shape, expected):
    its = Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), **more)
    (body,) = bodies(its, 1, shape=shape)

    assert expected == {name: body.get(name) for name in expected}


def test_outputs_are_cut_so_that_they_fit_beside_a_prompt_that_is_not():
    its = workload({"prompt": "word " * 200, "output_tokens": 5_000})  # 250 tokens by its bytes
    (body,) = bodies(its, 1, shape=Shape(context_limit=1_000))

    assert 200 == len(body["messages"][0]["content"].split())
    assert 600 < body["max_tokens"] < 750


def test_prompts_go_to_the_worker_as_columns():
    its = numbered(20, extra={"top_k": 5})
    its = replace(its, dataset=replace(its.dataset, order=5, first=7, tokens_per_byte=0.3))
    inputs = {name: bytes(memoryview(column).cast("B")) for name, column in inputs_of(its).items() if len(column)}

    there = workload_from(json.loads(json.dumps(to_json(its))), inputs)

    assert its == there
    assert texts(its, 30) == texts(there, 30)


def test_prompts_that_two_tokenizers_count_are_left_out_by_what_each_counts():
    text = "\n".join(json.dumps({"prompt": "a b c d"[: 2 * n + 1]}) for n in range(4))
    by_words, by_bytes = (
        replace(parse_dataset(text, "p.jsonl", count), most_tokens=3)
        for count in (
            lambda texts: array("i", [len(text.split()) for text in texts]),
            lambda texts: array("i", [len(text) for text in texts]),
        )
    )

    assert [3, 2, 3] == [lengths.usable_prompts(dataset) for dataset in (by_words, by_bytes, by_words)]
