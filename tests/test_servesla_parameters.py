import json
from pathlib import Path

import pytest

from redline.model import JsonValue, UsageError
from redline.servesla.parameters import (
    BadValueError,
    Pair,
    applied,
    pairs_of,
    parse_links,
    record_text,
    records_of,
    refuse_variable,
)

# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "records"),
    [
        ([{"a": 1}, {"a": 2}], ({"a": 1}, {"a": 2})),
        ({"fast": {"a": 1}, "slow": {}}, ({"_benchmark_name": "fast", "a": 1}, {"_benchmark_name": "slow"})),
        ([], ()),
        ([{"_benchmark_name": "x", "a": 1}, {"a": 1}], ({"_benchmark_name": "x", "a": 1}, {"a": 1})),
    ],
)
def test_records_come_as_a_list_or_as_an_object_of_named_ones(data: object, records: tuple[object, ...]) -> None:
    assert records == records_of(data)


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        ("text", TypeError, "must be a list of objects"),
        (3, TypeError, "not a number"),
        ([{"a": 1}, 5], TypeError, "item 2 must be an object"),
        ({"fast": 5}, TypeError, "item 1 must be an object"),
        ([{"_benchmark_name": "x"}, {"_benchmark_name": "x"}], ValueError, "_benchmark_name x is there twice"),
    ],
)
def test_a_bad_parameter_file_is_the_same_exception_as_in_vllm(data: object, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as raised:
        records_of(data)
    assert isinstance(raised.value, UsageError)


# ---- names and folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({}, ""),
        ({"max_num_seqs": 4, "kv-cache-dtype": "fp8"}, "max_num_seqs=4-kv-cache-dtype=fp8"),
        ({"_benchmark_name": "seqs4", "max_num_seqs": 4}, "max_num_seqs=4"),
        ({"enforce_eager": True, "x": None}, "enforce_eager=True-x=None"),
        ({"cfg": {"a": 1}}, "cfg={'a': 1}"),
    ],
)
def test_a_records_text_is_its_pairs_as_spelled(record: dict[str, object], text: str) -> None:
    assert text == record_text(record)


@pytest.mark.parametrize(
    ("serve", "bench", "folder"),
    [
        ({"a": 1}, {"b": 2}, "SERVE--a=1-BENCH--b=2"),
        ({"a": 1}, {}, "SERVE--a=1"),
        ({}, {"b": 2}, "BENCH--b=2"),
        ({}, {}, ""),
        ({"model": "Qwen/Qwen3"}, {"dataset": "../x.json"}, "SERVE--model=Qwen_Qwen3-BENCH--dataset=___x.json"),
    ],
)
def test_the_folder_of_a_pair_is_named_from_both_texts(serve: object, bench: object, folder: str) -> None:
    assert folder == Pair(serve=serve, bench=bench).folder


@pytest.mark.parametrize(("load", "written"), [(12.0, "12"), (0.75, "0.75")])
def test_a_run_object_gets_all_overrides_and_the_load(load: float, written: str) -> None:
    pair = Pair(serve={"_benchmark_name": "s", "a": 1}, bench={"b": 2})

    overrides = pair.overrides("request_rate", load)

    assert {"_benchmark_name": "s", "a": 1, "b": 2, "request_rate": load} == overrides
    assert written == json.dumps(overrides["request_rate"])


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_the_product_with_serve_records_outside() -> None:
    pairs, notes = pairs_of([{"a": 1}, {"a": 2}], [{"b": 1}, {"b": 2}])

    assert [(1, 1), (1, 2), (2, 1), (2, 2)] == [(pair.serve["a"], pair.bench["b"]) for pair in pairs]
    assert () == notes


def test_no_records_run_nothing() -> None:
    assert ((), ()) == pairs_of([], [{}])


def test_records_that_would_share_a_folder_run_once_or_are_refused() -> None:
    pairs, notes = pairs_of([{"_benchmark_name": "x", "a": 1}, {"a": 1}], [{}])

    assert 1 == len(pairs)
    assert ("the serve record a=1 is there twice and runs once",) == notes
    with pytest.raises(BadValueError, match="share the folder SERVE--a=x_y"):
        pairs_of([{"a": "x/y"}, {"a": "x_y"}], [{}])


@pytest.mark.parametrize(
    ("serve", "bench", "why"),
    [
        ({"max_num_seqs": 4}, {"max_concurrency": 4}, ""),
        ({"max-num-seqs": 4}, {"max_concurrency": 4}, ""),
        ({"max_num_seqs": 4}, {"max_concurrency": 8}, "max_num_seqs is 4, max_concurrency is 8"),
        ({}, {"max_concurrency": 8}, "its serve record has no max_num_seqs"),
        ({"max_num_seqs": 4}, {}, "its bench record has no max_concurrency"),
    ],
)
def test_linked_pairs_run_and_the_others_are_named(serve: object, bench: object, why: str) -> None:
    pairs, notes = pairs_of([serve], [bench], parse_links("max_num_seqs=max_concurrency"))

    assert (not why) == bool(pairs)
    assert bool(why) == bool(notes)
    assert all(why in note and "--link-vars" in note for note in notes)


def test_every_link_must_hold() -> None:
    pairs, _ = pairs_of([{"a": 1, "b": 2}], [{"c": 1, "d": 2}, {"c": 1, "d": 3}], parse_links("a=c, b=d"))

    assert [2] == [pair.bench["d"] for pair in pairs]


@pytest.mark.parametrize("text", ["a", "=b", "a=", "a=b,c"])
def test_a_link_that_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write serve_key=bench_key"):
        parse_links(text)


@pytest.mark.parametrize("key", ["request_rate", "request-rate"])
def test_a_bench_record_must_not_set_what_is_searched(key: str) -> None:
    with pytest.raises(ValueError, match="sets request_rate to 4"):
        refuse_variable([{}, {key: 4}], "request_rate")
    refuse_variable([{"max_concurrency": 4}], "request_rate")


# ---- command lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"enforce_eager": True}, "vllm serve M --enforce-eager"),
        ({"enable_prefix_caching": False}, "vllm serve M --no-enable-prefix-caching"),
        ({"compilation_config.use_inductor": True}, "vllm serve M --compilation-config.use_inductor=true"),
        ({"compilation_config.use_inductor": False}, "vllm serve M --compilation-config.use_inductor=false"),
        ({"compilation_config.cudagraph_mode": "NONE"}, "vllm serve M --compilation-config.cudagraph_mode NONE"),
        ({"max-num-seqs": 4}, "vllm serve M --max-num-seqs 4"),
        ({"max_num_seqs": 4}, "vllm serve M --max-num-seqs 4"),
        ({"gpu_memory_utilization": 0.9}, "vllm serve M --gpu-memory-utilization 0.9"),
        ({"quantization": None}, "vllm serve M --quantization None"),
        ({"_benchmark_name": "x"}, "vllm serve M"),
        ({}, "vllm serve M"),
    ],
)
def test_each_kind_of_value_becomes_its_option(record: dict[str, object], words: str) -> None:
    assert words.split() == list(applied(["vllm", "serve", "M"], record))


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"a": [1, True]}, '{"a": [1, true]}'),
        ({}, "{}"),
        ([1, True], "[1, True]"),
        ("two words", "two words"),
        ("", ""),
    ],
)
def test_an_object_becomes_its_json_and_anything_else_one_word_of_text(value: JsonValue, word: str) -> None:
    assert ["s", "--hf-overrides", word] == list(applied(["s"], {"hf_overrides": value}))


@pytest.mark.parametrize(
    "given",
    [
        "--compilation-config.use_inductor=true",
        "--compilation_config.use_inductor=true",
        "--compilation-config.use_inductor true",
    ],
)
@pytest.mark.parametrize("key", ["compilation_config.use_inductor", "compilation-config.use_inductor"])
def test_an_option_with_a_dot_is_replaced_in_place_and_respelled_before_the_dot_only(given: str, key: str) -> None:
    replaced = applied(["s", *given.split(), "--eager"], {key: False})

    assert ["s", "--compilation-config.use_inductor=false", "--eager"] == list(replaced)


@pytest.mark.parametrize("given", ["--max-num-seqs", "--max_num_seqs"])
@pytest.mark.parametrize("key", ["max-num-seqs", "max_num_seqs"])
def test_an_option_that_is_there_in_either_spelling_is_replaced_in_place(given: str, key: str) -> None:
    assert ["s", "--max-num-seqs", "4", "--eager"] == list(applied(["s", given, "256", "--eager"], {key: 4}))


@pytest.mark.parametrize(
    ("command", "record", "words"),
    [
        ("s --max-num-seqs=256 --eager", {"max_num_seqs": 4}, "s --max-num-seqs 4 --eager"),
        ("s --no-eager x", {"eager": False}, "s --no-eager x"),
        ("s --no-eager --y 1", {"eager": True}, "s --eager --y 1"),
        ("s --eager --y 1", {"eager": False}, "s --no-eager --y 1"),
        ("s --eager true --y 1", {"eager": True}, "s --eager --y 1"),
        ("s --n 1 --y 1 --n=2 --n 3", {"n": 9}, "s --n 9 --y 1"),
        ("s -tp 1 --y 1", {"tp": 8}, "s -tp 8 --y 1"),
        ("s --y 1 --n", {"n": 9}, "s --y 1 --n 9"),
    ],
    ids=[
        "equals sign",
        "false on --no-key",
        "true on --no-key",
        "false on --key",
        "no stray value",
        "every occurrence",
        "short option",
        "last word",
    ],
)
def test_the_known_defects_of_the_override_rules_are_not_there(
    command: str, record: dict[str, object], words: str
) -> None:
    assert words.split() == list(applied(command.split(), record))


def test_the_files_of_the_sample_sweep_are_read() -> None:
    folder = Path(__file__).parent / "data" / "serve_sla" / "params"
    serves, benches = (records_of(json.loads((folder / f"{name}.json").read_text())) for name in ("serve", "bench"))

    pairs, _ = pairs_of(serves, benches)

    assert "SERVE--max_num_seqs=4-BENCH--random_output_len=16" == pairs[0].folder
    assert "SERVE--max_num_seqs=16-BENCH--random_output_len=64" == pairs[-1].folder
