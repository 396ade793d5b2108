"""Traces of other people: what is read from them, and what is said of lines that cannot be."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.experiment.traces import parse_trace
from redline.model import UsageError

TRACES = Path(__file__).parent / "data" / "traces"


@pytest.mark.parametrize(
    ("name", "times_s", "prompts", "outputs"),
    [
        ("azure.csv", [0, 0.052, 0.098189], [4808, 3180, 110], [10, 8, 27]),
        ("mooncake.jsonl", [0, 0, 3053], [6955, 6472, 2287], [52, 26, 168]),
        ("burstgpt.csv", [0, 40, 113, 180], [472, 1087, 417, 185], [18, 230, 276, 341]),
    ],
)
def test_published_formats_are_read_as_they_are(name, times_s, prompts, outputs):
    trace = parse_trace((TRACES / name).read_text(), name)

    assert times_s == pytest.approx(list(trace.times_s)[: len(times_s)], abs=2e-6)
    assert prompts == list(trace.prompt_tokens)[: len(prompts)]
    assert outputs == list(trace.output_tokens)[: len(outputs)]
    assert trace.has_lengths


def as_csv(text: str) -> str:
    rows = [json.loads(line) for line in text.splitlines()]
    cells = [{name: json.dumps(v) if isinstance(v, list) else v for name, v in row.items()} for row in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(cells[0]))
    writer.writeheader()
    writer.writerows(cells)
    return out.getvalue()


def as_jsonl(text: str) -> str:
    return "\n".join(json.dumps(row) for row in csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("name", "turned"), [("azure.csv", as_jsonl), ("mooncake.jsonl", as_csv), ("burstgpt.csv", as_jsonl)]
)
def test_published_formats_are_read_as_csv_and_as_jsonl(name, turned):
    text = (TRACES / name).read_text()
    one, other = parse_trace(text, name), parse_trace(turned(text), name)

    assert (one.times_s, one.prompt_tokens, one.output_tokens) == (
        other.times_s,
        other.prompt_tokens,
        other.output_tokens,
    )
    assert (one.blocks, one.block_ends) == (other.blocks, other.block_ends)


def test_blocks_of_prompts_are_numbered_in_the_order_in_which_they_come():
    trace = parse_trace((TRACES / "mooncake.jsonl").read_text(), "m")
    named = '{"t": 1, "in": 5, "out": 5, "hash_ids": ["b", "a"]}\n{"t": 2, "in": 5, "out": 5}'

    assert [[0, 1, 2], [0, 1, 3], [0, 4]] == [list(trace.blocks_of(entry)) for entry in range(3)]
    assert trace.has_blocks
    assert [[0, 1], []] == [list(parse_trace(named, "n").blocks_of(entry)) for entry in range(2)]
    floats = 't,in,out,hash_ids\n1,5,5,"[46.0, 47]"\n2,5,5,"[46, 48.0]"\n'
    assert [[0, 1], [0, 2]] == [list(parse_trace(floats, "f").blocks_of(entry)) for entry in range(2)]
    assert not parse_trace((TRACES / "azure.csv").read_text(), "a").has_blocks


def test_requests_of_no_tokens_are_left_out():
    assert 4 == len(parse_trace((TRACES / "burstgpt.csv").read_text(), "b").times_s)


def test_times_alone_make_a_trace_and_need_no_order():
    trace = parse_trace("arrived_at\n3.5\n1\n2\n", "t")

    assert ([0.0, 1.0, 2.5], False) == (list(trace.times_s), trace.has_lengths)


@pytest.mark.parametrize(
    "text", ["timestamp,in,out\r\n0,5,5\r\n\r\n1,6,6\r\n", '\ufeff{"t":0,"in":5,"out":5}\n\n{"t":1,"in":6,"out":6}']
)
def test_blank_lines_line_ends_and_byte_order_marks_do_not_matter(text):
    assert [5, 6] == list(parse_trace(text, "t").prompt_tokens)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "line 2: has no time; it stands under one of timestamp"),
        ("timestamp\nyesterday\n", "line 2: 'yesterday' is no time"),
        ("timestamp\n1\nnan\n", "line 3: 'nan' is no time"),
        ("timestamp,in,out\n0,5,5\n1,,5\n", "line 3: has no prompt tokens"),
        ("timestamp,in,out\n0,5,5\n1,5\n", "line 3: has 2 fields, and the first line names 3"),
        ("timestamp,in,out\n0,5,-5\n", "line 2: '-5' is no number of tokens"),
        ("timestamp,in,out\n0,5,1.5\n", "line 2: '1.5' is no number of tokens"),
        ('{"timestamp": 0}\n{"timestamp": 1, "in": 3, "out": 3}\n', "line 2: has tokens, and other lines have none"),
        ('{"timestamp": 0}\n\n{"timestamp"\n', "line 3: is no JSON"),
        ('{"timestamp": 0}\n[1]\n', "line 2: must be an object"),
        ('{"timestamp": true}\n', "line 1: True is no time"),
        ('{"t": 0, "in": 3, "out": 3, "hash_ids": 7}\n', "line 1: hash_ids: 7 is no list of numbers or names"),
        ('t,in,out,hash_ids\n0,3,3,"[1, 2.5]"\n', "line 2: hash_ids: '[1, 2.5]' is no list"),
        ("", "holds 0 requests"),
        ("timestamp,in,out\n0,5,5\n1,5,0\n", "holds 1 requests besides 1 of no tokens"),
        ("timestamp\n4\n4\n", "came at one time"),
    ],
)
def test_what_cannot_be_replayed_is_named_with_its_line(text, says):
    with pytest.raises(UsageError) as error:
        parse_trace(text, "t")

    assert says in str(error.value)


def test_all_lines_that_are_wrong_are_told_up_to_ten():
    with pytest.raises(UsageError) as error:
        parse_trace("timestamp\n" + "x\n" * 13, "t")

    assert "line 2: " in str(error.value)
    assert "line 11: " in str(error.value)
    assert str(error.value).endswith("; and 3 more")


@given(st.text(max_size=60))
def test_any_text_is_a_trace_or_a_usage_error(text):
    try:
        trace = parse_trace("timestamp\n" + text, "t")
    except UsageError:
        return
    assert len(trace.times_s) >= 2
