"""Exact token counts: words that are a token each, and what is said where a tokenizer cannot give them."""

import json
import re
import sys
from array import array

import pytest

from redline.api import Place, prepare_find
from redline.codec import load_experiment
from redline.experiment.datasets import parse_dataset
from redline.experiment.inputs import reader
from redline.experiment.plan import case_key
from redline.experiment.vocabulary import whole_words
from redline.experiment.workloads import parse_workload
from redline.lengths import prompt_tokens
from redline.loadgen.payload import Payloads, Shape, target_of
from redline.model import Endpoint, Lengths, UsageError, Vocabulary, Workload

WORDS = [first + second for first in ("al", "be", "co", "du", "en") for second in ("ma", "ne", "ri", "so", "tu")]
PIECES = ["<s>", "Ġ", "a", *("Ġ" + word for word in WORDS), *WORDS, "Ġlone", "Zed", "Ġnö", "of2"]


def count(texts):
    """By longest match, as a tokenizer does: a word with its blank, a word at the start, else each letter."""
    known = set(PIECES)

    def tokens(text):
        parts = re.findall(r"^\S+| \S+", text)
        return sum(1 if part.replace(" ", "Ġ") in known else len(part) for part in parts)

    return [tokens(text) for text in texts]


def test_words_are_those_that_are_one_token_wherever_they_stand():
    words = whole_words(PIECES, count)

    assert words == tuple(WORDS)
    assert "lone" not in words  # a token behind a blank only


def test_a_vocabulary_of_few_words_is_refused_with_what_to_do():
    with pytest.raises(UsageError, match="only 3 lower-case words are a token each, and prompts need 16: leave"):
        whole_words(WORDS[:3], count)


def test_words_that_merge_with_their_neighbours_are_refused():
    def merging(texts):
        return [min(tokens, 5) for tokens in count(texts)]

    with pytest.raises(UsageError, match="25 words of a token each are 5 tokens together"):
        whole_words(PIECES, merging)


def test_made_up_prompts_are_of_these_words_and_as_long_as_asked_to_the_token():
    vocabulary = Vocabulary(file="t", sha256="s", text="\n".join(WORDS).encode())
    workload = Workload(name="w", prompt=Lengths(mean=300), output=Lengths(mean=9), tokenizer=vocabulary)
    payloads = Payloads(
        target_of(Endpoint(url="http://h", model="m")), "m", workload, Shape(tokens_per_word=1.0, extra_tokens=12), 3
    )
    bodies = [json.loads(payloads.next().payload.partition(b"\r\n\r\n")[2]) for _ in range(50)]
    texts = [body["messages"][0]["content"] for body in bodies]

    assert {288} == set(count(texts))
    assert 50 == len({text[:40] for text in texts})


def test_prompts_of_a_file_are_counted_where_there_is_something_to_count_with():
    text = json.dumps([{"conversations": [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "a b c"}]}])
    dataset = parse_dataset(text, "s.json", lambda texts: array("i", [len(each.split()) for each in texts]))

    assert ([2], [3]) == (prompt_tokens(dataset).tolist(), list(dataset.output_tokens))


def test_without_the_package_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "tokenizer.json").write_text("{}")

    with pytest.raises(
        UsageError, match=r"tokenizer.json: exact counts need the package tokenizers.*redline\[tokenizers\]"
    ):
        parse_workload("chat:tokenizer=.", reader(tmp_path))


# ---- with the package ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A model's folder with a byte-level tokenizer, as most have, trained on our words."""
    tokenizers = pytest.importorskip("tokenizers")
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=600, show_progress=False)
    inner.train_from_iterator([word + "\n" + " ".join(WORDS) for word in WORDS] * 20, trainer)
    inner.enable_truncation(8)
    inner.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_tokenizer_is_read_from_its_file_or_from_its_folder(folder):
    whole = parse_workload("chat:tokenizer=tokenizer.json", reader(folder)).tokenizer
    folders = parse_workload("chat:tokenizer=.", reader(folder)).tokenizer

    assert len(set(WORDS) & set(whole.words)) > 20
    assert (whole.sha256, whole.text) == (folders.sha256, folders.text)


def test_token_ids_need_no_tokenizer(folder):
    with pytest.raises(UsageError, match='tokenizer does nothing beside prompt_kind = "tokens"'):
        parse_workload("chat:tokenizer=.,prompt_kind=tokens,api=completions", reader(folder))


def test_a_file_that_is_no_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text('{"model": 5}')

    with pytest.raises(UsageError, match=r"tokenizer.json: is no tokenizer.json"):
        parse_workload("chat:tokenizer=.", reader(folder))


def test_lengths_in_a_dataset_are_counted_beyond_what_the_file_would_cut(folder):
    row = {"messages": [{"role": "user", "content": " ".join(WORDS)}, {"role": "assistant", "content": "alma bene"}]}
    (folder / "p.jsonl").write_text(json.dumps(row))
    dataset = parse_workload("p.jsonl:tokenizer=.", reader(folder)).dataset

    assert ([25], [2]) == (prompt_tokens(dataset).tolist(), list(dataset.output_tokens))


def test_the_key_rests_on_the_tokenizer_and_is_read_from_what_is_stored(folder, monkeypatch):
    monkeypatch.chdir(folder)
    prepared = prepare_find(
        "http://127.0.0.1:9", ["p99_ttft_ms<=200"], Place(), workload="chat:tokenizer=tokenizer.json"
    )
    stored = folder / "stored"
    stored.mkdir()
    (stored / "experiment.toml").write_text(prepared.text)
    for name, text in prepared.files.items():
        (stored / name).write_text(text)
    (folder / "tokenizer.json").unlink()

    shown = load_experiment(stored / "experiment.toml")
    (server,), (workload,) = shown.servers, shown.workloads
    assert case_key(server, workload) == case_key(prepared.experiment.servers[0], prepared.experiment.workloads[0])
    assert case_key(server, workload) != case_key(server, parse_workload("chat"))
