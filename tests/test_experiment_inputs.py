"""Workloads that name files: read where they are measured, remembered by their digest where they are shown."""

import shutil
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from redline.api import Place, prepare_find, prepare_run
from redline.codec import load_experiment, load_workload_file
from redline.experiment.datasets import parse_dataset
from redline.experiment.inputs import INPUTS, noted, reader, remembered
from redline.experiment.plan import case_key
from redline.experiment.presets import PRESETS
from redline.experiment.workloads import parse_workload
from redline.model import Lengths, ServerConfig, UsageError, Vocabulary, Workload

TRACES = Path(__file__).parent / "data" / "traces"
FILE = """[server]
url = "http://127.0.0.1:9"

[workload.replayed]
trace = "azure.csv"
{more}
[sla]
i = ["p99_ttft_ms<=200"]
"""


@pytest.fixture
def write(tmp_path):
    """An experiment file beside its trace."""
    shutil.copy(TRACES / "azure.csv", tmp_path)

    def write(more=""):
        path = tmp_path / "exp.toml"
        path.write_text(FILE.format(more=more))
        return path

    return write


def measuring(path):
    return load_experiment(path, {}, lambda name: None)


def keys(experiment):
    return [case_key(experiment.servers[0], workload) for workload in experiment.workloads]


def test_a_trace_brings_its_times_and_its_lengths(write):
    (workload,) = measuring(write()).workloads

    assert ("trace", 8) == (workload.arrivals, len(workload.trace.times_s))
    assert (workload.prompt.mean, workload.prompt.low, workload.prompt.high) == (2252.4, 34, 7433)
    assert workload.trace.has_lengths


@pytest.mark.parametrize(
    ("more", "arrivals", "mean"),
    [
        ('preset = "rag"', "trace", 4_096),
        ("random = { in = 20, out = 5 }", "trace", 20),
        ("prompt = 30\noutput = 5", "trace", 30),
        ('arrivals = "poisson"', "poisson", 2252.4),
    ],
)
def test_what_is_said_beside_a_trace_takes_its_place(write, more, arrivals, mean):
    (workload,) = measuring(write(more)).workloads

    assert (arrivals, mean) == (workload.arrivals, workload.prompt.mean)
    assert workload.trace.has_lengths == (mean == 2252.4)


def test_what_is_stored_is_read_without_the_trace_and_has_the_same_keys(write, tmp_path):
    path = write('[workload.times]\ntrace = "azure.csv"\npreset = "chat"\n')
    prepared = prepare_run(path, Place())
    stored = tmp_path / "stored"
    stored.mkdir()
    (stored / "experiment.toml").write_text(prepared.text)
    for name, text in prepared.files.items():
        (stored / name).write_text(text)

    shown = load_experiment(stored / "experiment.toml")

    assert keys(prepared.experiment) == keys(shown)
    assert [workload.prompt for workload in prepared.experiment.workloads] == [w.prompt for w in shown.workloads]
    with pytest.raises(UsageError, match=r"line 5: \[workload.replayed\] trace: there is no file .*azure.csv"):
        measuring(stored / "experiment.toml")


def test_another_content_is_another_workload_and_another_name_is_not(write, tmp_path):
    before = keys(measuring(write()))
    (tmp_path / "azure.csv").rename(tmp_path / "other.csv")
    path = write()
    path.write_text(path.read_text().replace("azure.csv", "other.csv"))
    renamed = keys(measuring(path))
    (tmp_path / "other.csv").write_text((tmp_path / "other.csv").read_text() + "2023-11-16 18:18:00,5,5\n")

    assert before == renamed
    assert before != keys(measuring(path))


def test_every_error_of_a_trace_is_told_with_its_lines_among_the_others(write, tmp_path):
    (tmp_path / "azure.csv").write_text("timestamp,in,out\n0,5,5\n1,x,5\nlate,5,5\n")
    with pytest.raises(UsageError) as error:
        measuring(write('api = "grpc"\n'))

    told = str(error.value)
    assert "line 5: [workload.replayed] trace: " in told
    assert "azure.csv: line 3: 'x' is no number of tokens; line 4: 'late' is no time" in told
    assert "line 6: [workload.replayed] api: 'grpc' is unknown" in told


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("output = 5", "remove output, or give both prompt and output"),
        ('preset = "chat"\nrandom = { in = 1, out = 1 }', "keep one"),
        ('command = "b {rate} {result}"\nreader = "vllm"', "trace does nothing beside command"),
    ],
)
def test_what_contradicts_a_trace_is_refused(write, more, says):
    with pytest.raises(UsageError) as error:
        measuring(write(more + "\n"))

    assert says in str(error.value)


def test_a_trace_of_times_alone_needs_lengths(write, tmp_path):
    (tmp_path / "azure.csv").write_text("timestamp\n0\n1\n3\n")

    with pytest.raises(UsageError, match="the trace has times only"):
        measuring(write())
    (workload,) = measuring(write('preset = "chat"')).workloads
    assert PRESETS["chat"].prompt == workload.prompt


@pytest.mark.parametrize("content", [b"\xff\xfe1", None])
def test_a_file_that_cannot_be_read_is_named(write, tmp_path, content):
    path = tmp_path / "azure.csv"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)

    with pytest.raises(UsageError, match=r"azure\.csv"):
        measuring(write())


def test_a_short_text_names_a_trace_from_where_one_stands():
    workload = parse_workload("trace:file=azure.csv,api=completions", reader(TRACES, absolute=True))

    assert (str(TRACES / "azure.csv"), "completions") == (workload.trace.file, workload.api)
    assert "trace" == parse_workload("chat:trace=azure.csv", reader(TRACES)).arrivals


@pytest.mark.parametrize(
    ("text", "says"), [("trace", "trace:file=azure.csv"), ("trace:file=gone.csv", "there is no file")]
)
def test_a_short_text_without_a_trace_to_read_says_so(text, says):
    with pytest.raises(UsageError) as error:
        parse_workload(text, reader(TRACES))

    assert says in str(error.value)


def test_find_keeps_a_name_that_holds_anywhere(write, tmp_path):
    write()
    file = tmp_path / "w.toml"
    file.write_text('trace = "azure.csv"\n')
    prepared = prepare_find("http://127.0.0.1:9", ["p99_ttft_ms<=200"], Place(), workload=str(file))
    stored = tmp_path / "stored"
    stored.mkdir()
    (stored / "experiment.toml").write_text(prepared.text)

    assert keys(prepared.experiment) == keys(measuring(stored / "experiment.toml"))
    assert prepared.experiment.workloads == load_experiment(stored / "experiment.toml").workloads
    assert str(tmp_path / "azure.csv") in prepared.files[INPUTS]
    assert load_workload_file(file) == prepared.experiment.workloads[0]


def test_prompts_that_are_counted_in_two_ways_are_remembered_in_both(tmp_path):
    text = '{"prompt": "a few letters of many words", "output_tokens": 3}'
    known = [
        Workload(
            name="w",
            prompt=Lengths(mean=tokens),
            output=Lengths(mean=3),
            dataset=replace(parse_dataset(text, "p.jsonl"), prompt_tokens=array("i", [tokens])),
            tokenizer=vocabulary,
        )
        for tokens, vocabulary in (
            (6, None),
            (9, Vocabulary(file="a", sha256="1")),
            (8, Vocabulary(file="b", sha256="2")),
        )
    ]
    (tmp_path / INPUTS).write_text(noted(known)[INPUTS])
    shown = [parse_workload(f"p.jsonl{more}", remembered(tmp_path)) for more in ("", ":tokenizer=a", ":tokenizer=b")]

    assert [6, 9, 8] == [workload.prompt.mean for workload in shown]


def test_workloads_without_files_leave_nothing_to_remember():
    assert {} == noted([PRESETS["chat"]])


def test_older_workloads_keep_their_key():
    """What an earlier version hashed: its trials must still be found."""

    assert "8b24b17bcaf63ac1" == case_key(ServerConfig(name="x", url="http://h"), PRESETS["chat"])
    assert Lengths(mean=512, cv=0.8, low=8, high=2_048) == PRESETS["chat"].prompt
