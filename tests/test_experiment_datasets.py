"""Prompts of other people: what is read from files, and what is said of lines that cannot be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.api import Place, prepare_find, prepare_run
from redline.codec import load_experiment
from redline.experiment.datasets import parse_dataset
from redline.experiment.estimate import estimate_of
from redline.experiment.inputs import reader
from redline.experiment.plan import case_key, jobs
from redline.experiment.workloads import parse_workload
from redline.model import Lengths, UsageError

SHAREGPT = json.dumps(
    [
        {
            "id": "a",
            "conversations": [
                {"from": "human", "value": "What is a queue?"},
                {"from": "gpt", "value": "A line of those who wait, and it has an end." * 4},
                {"from": "human", "value": "And a stack?"},
            ],
        },
        {"id": "b", "conversations": [{"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Unanswered"}]},
        {
            "id": "c",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Grüße"},
                {"from": "gpt", "value": "Hallo"},
            ],
        },
    ]
)
CHATS = "\n".join(
    json.dumps(line)
    for line in (
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
            "max_tokens": 7,
        },
        {"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "Like this, always."}]},
    )
)
BATCH = json.dumps(
    {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "gpt-4",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 12,
            "temperature": 0.2,
            "stream": False,
        },
    }
)


def prompts(dataset):
    return [json.loads(dataset.prompt(n)) for n in range(len(dataset.sizes))]


def own(dataset):
    return [json.loads(dataset.own(n) or b"{}") for n in range(len(dataset.sizes))]


def test_a_conversation_gives_its_first_question_and_asks_for_an_answer_as_long_as_its_own():
    dataset = parse_dataset(SHAREGPT, "s.json")

    assert ["What is a queue?", "Grüße"] == prompts(dataset)
    assert [44, 1] == list(dataset.output_tokens)  # a token for four bytes
    assert [16, 7] == list(dataset.sizes)


def test_csv_and_jsonl_hold_prompts_lengths_and_further_fields():
    csv = parse_dataset('prompt,output_tokens\n"one, two",5\n"a\nb",6\n', "p.csv")
    line = {"prompt": "x", "max_tokens": 9, "min_tokens": 2, "ignore_eos": False, "extra": {"temperature": 0.7}}
    jsonl = parse_dataset(json.dumps(line), "p.jsonl")

    assert (["one, two", "a\nb"], [5, 6]) == (prompts(csv), list(csv.output_tokens))
    assert [{"temperature": 0.7, "min_tokens": 2, "ignore_eos": False}] == own(jsonl)
    assert (("ignore_eos", "min_tokens", "temperature"), [9]) == (jsonl.names, list(jsonl.output_tokens))


def test_a_prompt_in_csv_can_be_long():
    dataset = parse_dataset(f"prompt,output_tokens\n{'word ' * 100_000},5\n", "p.csv")

    assert [500_000] == list(dataset.sizes)


def test_messages_are_sent_as_they_are_and_a_last_answer_gives_the_length():
    dataset = parse_dataset(CHATS, "c.jsonl")

    assert [["system", "user"], ["user"]] == [[message["role"] for message in prompt] for prompt in prompts(dataset)]
    assert [7, 4] == list(dataset.output_tokens)


def test_a_line_of_the_batch_format_is_the_request_in_its_body():
    dataset = parse_dataset(BATCH, "b.jsonl")

    assert [[{"role": "user", "content": "Hi"}]] == prompts(dataset)
    assert ([{"temperature": 0.2}], [12]) == (own(dataset), list(dataset.output_tokens))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1}\n', "line 1: has no prompt; it stands under prompt, messages"),
        (
            '{"prompt": "x", "output_tokens": 5}\n{"prompt": 7, "output_tokens": 5}',
            "line 2: prompt must be text, not int",
        ),
        ('{"prompt": "x", "output_tokens": 5}\n{"prompt": "y"}', "line 2: does not say how long its answer is"),
        ('{"prompt": "x"}\n{"prompt": "y", "max_tokens": 5}', "line 2: says how long its answer is, and others do not"),
        ('{"prompt": "x", "output_tokens": 1.5}', "line 1: the output: 1.5 is no number of tokens"),
        ('{"prompt": "x", "output_tokens": 0}', "line 1: asks for no output"),
        ('{"prompt": "x", "extra": {"max_tokens": 4}}', "write output_tokens beside extra"),
        ('{"prompt": "x", "extra": {"stream": true}}', "stream does not belong here"),
        ('{"prompt": "x", "extra": [1]}', "extra must be an object"),
        ('{"prompt": "x", "ignore_eos": 3}', "ignore_eos must be true or false"),
        ('{"prompt": "\\ud800"}', "half a character"),
        ('{"prompt": "x", "extra": {"seed": NaN}}', "line 1: holds what JSON cannot say"),
        ('{"messages": [{"role": "user", "content": "x", "weight": 1e999}]}', "line 1: holds what JSON cannot say"),
        (f'{{"prompt": "x", "extra": {{"seed": {1 << 64}}}}}', "line 1: holds a number of more than 64 bits"),
        ('{"prompt": "x", "extra": {"a": ' + 300 * "[" + 300 * "]" + "}}", "line 1: holds more than 200 lists"),
        pytest.param('{"prompt": ' + 100_000 * "[", "line 1: is no JSON: maximum recursion depth", id="deep"),
        ('{"messages": "x"}', "line 1: messages must be a list"),
        ('{"messages": [{"role": "user", "content": 5}]}', "content of a message must be text"),
        ('{"prompt": "x"}\n\n{"prompt"', "line 3: is no JSON"),
        ("prompt,output_tokens\nx,5\ny\n", "line 3: has 1 fields"),
        ('[{"prompt": "x"}, 5]', "entry 2: must be an object"),
        ('[{"conversations": [{"from": "human", "value": "x"}]}]', "holds no prompt besides 1 without a question"),
        ('[{"conversations": 4}]', "entry 1: conversations must be a list"),
        ("[", "line 1: is no JSON"),
        ("", "holds no prompt"),
        ("timestamp,in,out\n0,5,5\n", "a file of times is a trace: trace:file=t"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_line(text, says):
    with pytest.raises(UsageError) as error:
        parse_dataset(text, "t")

    assert says in str(error.value)


def test_all_lines_that_are_wrong_are_told_at_once():
    with pytest.raises(UsageError) as error:
        parse_dataset("\n".join(['{"prompt": 1}'] * 13), "t")

    assert "line 1: " in str(error.value)
    assert "line 10: " in str(error.value)
    assert str(error.value).endswith("; and 3 more")


@given(st.text(max_size=60))
def test_any_text_is_a_dataset_or_a_usage_error(text):
    for start in ("", "prompt\n", '{"prompt": "', "["):
        try:
            dataset = parse_dataset(start + text, "t")
        except UsageError:
            continue
        assert len(dataset.sizes) == len(prompts(dataset)) >= 1


# ---- in a workload ---------------------------------------------------------------------------------------------------

FILE = """[server]
url = "http://127.0.0.1:9"

[workload.mine]
dataset = "p.jsonl"
{more}
[sla]
i = ["p99_ttft_ms<=200"]
"""


@pytest.fixture
def write(tmp_path):
    """An experiment file beside its prompts."""

    def write(more="", lines=(("one prompt", 5), ("another prompt", 7))):
        rows = [{"prompt": text, **({"output_tokens": tokens} if tokens else {})} for text, tokens in lines]
        (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
        path = tmp_path / "exp.toml"
        path.write_text(FILE.format(more=more))
        return path

    return write


def measuring(path):
    return load_experiment(path, {}, lambda name: None)


def key(experiment):
    return case_key(experiment.servers[0], experiment.workloads[0])


def test_prompts_bring_their_lengths_and_what_is_said_of_outputs_takes_their_place(write):
    (as_they_are,) = measuring(write()).workloads
    (own,) = measuring(write("output = 30")).workloads

    assert (as_they_are.output.mean, as_they_are.dataset.has_lengths) == (6, True)
    assert (own.output, own.dataset.has_lengths) == (Lengths(mean=30), False)


def test_prompts_without_lengths_need_an_output(write):
    with pytest.raises(UsageError, match="does not say how long its outputs are: add output_tokens to each prompt, or"):
        measuring(write(lines=[("x", None)]))

    (workload,) = measuring(write("max_tokens = 20\nignore_eos = false", lines=[("x", None)])).workloads
    assert Lengths(mean=20) == workload.output


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('preset = "chat"', "dataset and preset both say what is sent"),
        ("prompt = 5", "prompt does nothing beside dataset"),
        ('prompt_kind = "tokens"\napi = "completions"', "prompt_kind does nothing beside dataset"),
        ('command = "b {rate} {result}"\nreader = "vllm"', "dataset does nothing beside command"),
    ],
)
def test_what_contradicts_prompts_of_a_file_is_refused(write, more, says):
    with pytest.raises(UsageError) as error:
        measuring(write(more))

    assert says in str(error.value)


def test_messages_for_completions_are_refused_with_their_place(write, tmp_path):
    path = write('api = "completions"')
    (tmp_path / "p.jsonl").write_text('{"prompt": "x", "max_tokens": 4}\n' + CHATS.splitlines()[0])

    with pytest.raises(UsageError, match=r"prompt 2 of p.jsonl is messages"):
        measuring(path)


def test_times_of_a_trace_and_prompts_of_a_file_go_together(write, tmp_path):
    (tmp_path / "t.csv").write_text("timestamp,in,out\n0,5,5\n1,6,6\n")

    (workload,) = measuring(write('trace = "t.csv"')).workloads
    assert ("trace", False, 6) == (workload.arrivals, workload.trace.has_lengths, workload.output.mean)


def test_the_key_rests_on_the_content_of_the_file_alone(write, tmp_path):
    before = key(measuring(write()))
    (tmp_path / "p.jsonl").rename(tmp_path / "q.jsonl")
    path = tmp_path / "exp.toml"
    path.write_text(path.read_text().replace("p.jsonl", "q.jsonl"))
    renamed = key(measuring(path))
    changed = key(measuring(write(lines=[("another", 5)])))

    assert before == renamed
    assert len({before, changed, key(measuring(write("output = 5"))), key(measuring(write("repeat = true")))}) == 4


@pytest.mark.parametrize("more", ["", "output = 9", "max_tokens = 6", "repeat = true\nextra = { temperature = 0.5 }"])
def test_what_is_stored_is_read_without_the_file_and_has_the_same_key(write, tmp_path, more):
    prepared = prepare_run(write(more), Place())
    stored = tmp_path / "stored"
    stored.mkdir()
    (stored / "experiment.toml").write_text(prepared.text)
    for name, text in prepared.files.items():
        (stored / name).write_text(text)

    shown = load_experiment(stored / "experiment.toml")

    assert key(prepared.experiment) == key(shown)
    assert prepared.experiment.workloads == shown.workloads


@pytest.mark.parametrize("more", ["", ":out=9", ":max_tokens=6,extra.temperature=0.5,api=completions"])
def test_find_takes_the_file_itself_and_keeps_a_name_that_holds_anywhere(write, tmp_path, monkeypatch, more):
    write()
    monkeypatch.chdir(tmp_path)
    prepared = prepare_find("http://127.0.0.1:9", ["p99_ttft_ms<=200"], Place(), workload="p.jsonl" + more)
    stored = tmp_path / "stored"
    stored.mkdir()
    (stored / "experiment.toml").write_text(prepared.text)

    (workload,) = prepared.experiment.workloads
    assert ("p.jsonl" + more, str(tmp_path / "p.jsonl")) == (workload.name, workload.dataset.file)
    assert key(prepared.experiment) == key(measuring(stored / "experiment.toml"))


def test_a_short_text_names_prompts_too(write, tmp_path):
    write()

    assert 6 == parse_workload("dataset:file=p.jsonl", reader(tmp_path)).output.mean
    with pytest.raises(UsageError, match=r"which dataset\? Write dataset:file=prompts.jsonl"):
        parse_workload("dataset", reader(tmp_path))
    with pytest.raises(UsageError, match="there is no file"):
        parse_workload("gone.jsonl", reader(tmp_path))


def test_a_plan_says_where_prompts_will_repeat(write):
    def told(experiment):
        cases = [case for job in jobs(experiment) for case in job.cases]
        return "\n".join(estimate_of(experiment, cases, {}).warnings)

    assert "p.jsonl has 2 prompts, for up to 8,000 requests: each repeat begins with" in told(measuring(write()))
    assert "" == told(measuring(write("repeat = true")))
