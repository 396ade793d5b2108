"""What requests look like, from a name or a few settings; and how people write times, shares and counts."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.experiment.external import check_command
from redline.experiment.presets import PRESETS, PUBLISHED
from redline.experiment.workloads import parse_workload, workload_of
from redline.model import CommandWorkload, Lengths, ThinkTime, UsageError, Workload
from redline.units import nearest, parse_count, parse_duration, parse_load, parse_loads, parse_share, parse_whole


def read(section):
    """(the workload or None, what is wrong)"""
    problems = []
    workload = workload_of("w", section, (), problems)
    return workload, [problem.text for problem in problems]


# ---- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("10 min", 600), ("4h", 14_400), ("1h30m", 5_400), ("500ms", 0.5), ("1d", 86_400)],
)
def test_a_duration_is_read_in_seconds(text, seconds):
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(("value", "seconds"), [("2.5", 2.5), (30, 30), (0.5, 0.5), (" 5 s ", 5), (" 7 ", 7)])
def test_a_number_without_a_unit_is_seconds(value, seconds):
    assert seconds == parse_duration(value)


@pytest.mark.parametrize("text", ["", "4 hours", "h", "5x", "0s", -1, "nan", "inf", "1e999", True, None, [1], "10m,5s"])
def test_what_is_no_duration_is_refused_with_an_example_or_the_limit(text):
    with pytest.raises(UsageError, match=r"write 90s, 10m, 4h|longer than 0"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.05", 0.05), (0.05, 0.05), ("99.9 %", 0.999), (".5", 0.5)]
)
def test_a_share_is_read_with_or_without_the_percent_sign(text, share):
    assert share == parse_share(text)


@pytest.mark.parametrize("text", ["0", "0%", "100%", 1, -0.1, "nan", "x", "%", True, None, {}])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError):
        parse_share(text)


def test_a_forgotten_percent_sign_is_suggested():
    with pytest.raises(UsageError, match="did you mean 5%"):
        parse_share(5)


@given(st.floats(1e-6, 1 - 1e-6))
def test_any_share_is_read_back(share):
    assert share == parse_share(share) == parse_share(repr(share))


@pytest.mark.parametrize(
    ("parse", "value", "expected"),
    [
        (parse_count, "8000", 8_000),
        (parse_count, 1e4, 10_000),
        (parse_whole, 0, 0),
        (parse_load, "0.5", 0.5),
        (parse_loads, "1, 2,4", (1.0, 2.0, 4.0)),
        (parse_loads, [1, 2.5], (1.0, 2.5)),
        (parse_loads, 3, (3.0,)),
    ],
)
def test_numbers_are_read_from_text_or_as_they_are(parse, value, expected):
    assert expected == parse(value)


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        *((parse_count, value) for value in (0, 1.5, "many", float("inf"))),
        *((parse_whole, value) for value in (-1, False, None)),
        *((parse_load, value) for value in (0, float("nan"), "x")),
        *((parse_loads, value) for value in ("", [], [True])),
    ],
)
def test_numbers_that_make_no_sense_are_refused(parse, value):
    with pytest.raises(UsageError):
        parse(value)


def test_a_name_far_from_all_others_gets_the_list():
    assert "did you mean poisson?" == nearest("poison", ["poisson", "gamma"])
    assert "known are poisson, gamma" == nearest("zzz", ["poisson", "gamma"])


# ---- short texts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_its_own_name(name):
    assert PRESETS[name] == parse_workload(name)
    assert PRESETS[name].prompt.low <= PRESETS[name].prompt.mean <= PRESETS[name].prompt.high
    assert PRESETS[name].output.low <= PRESETS[name].output.mean <= PRESETS[name].output.high


@pytest.mark.parametrize("source", PUBLISHED, ids=lambda source: source.name)
def test_what_presets_are_compared_with_is_of_their_use_and_says_where_it_is_from(source):
    assert source.preset in PRESETS
    assert source.url.startswith("https://github.com/")
    assert source.prompt.low < source.prompt.mean < source.prompt.high
    assert source.output.low < source.output.mean < source.output.high


def test_random_lengths_and_more_are_read_from_one_text():
    text = "random:in=512,out=128,cv=0.3,out_cv=0,api=completions,ignore_eos=false,request_timeout_s=5m"

    assert Workload(
        name=text,
        prompt=Lengths(mean=512, cv=0.3),
        output=Lengths(mean=128, cv=0.0),
        api="completions",
        ignore_eos=False,
        request_timeout_s=300.0,
    ) == parse_workload(text)


def test_a_preset_can_be_changed_in_the_same_text():
    workload = parse_workload("rag:api=completions,arrivals=gamma,burstiness=0.5")

    assert PRESETS["rag"].prompt == workload.prompt
    assert ("completions", "gamma", 0.5) == (workload.api, workload.arrivals, workload.burstiness)


def test_all_that_is_wrong_with_a_text_is_said_at_once():
    with pytest.raises(UsageError) as error:
        parse_workload("random:in=5,outt=4,api=grpc,foo,in=6,arrivals=gamma")

    told = str(error.value)
    assert "did you mean out?" in told
    assert "'grpc' is unknown; known are chat, completions" in told
    assert "cannot read 'foo'" in told
    assert "in is given twice" in told
    assert "out missing" in told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chatt", "did you mean chat?"),
        ("", "write one of chat"),
        ("random", "in and out missing"),
        ("chat:in=4", "random:in=512,out=128"),
        ("gone/w.toml", "there is no such file"),
        ("random:in=0,out=5", "above 0"),
        ("random:in=5,out=nan", "above 0"),
        ("random:in=5,out=5,prompt_kind=tokens", 'api = "completions"'),
    ],
)
def test_a_text_that_is_no_workload_is_refused_with_what_to_write(text, says):
    with pytest.raises(UsageError) as error:
        parse_workload(text)

    assert says in str(error.value)


def test_further_fields_of_the_body_are_read_as_json_or_as_text():
    workload = parse_workload("chat:extra.temperature=0.7,extra.stop=end,extra.seed=3,max_tokens=64")

    assert {"temperature": 0.7, "stop": "end", "seed": 3} == workload.extra
    assert 64 == workload.max_tokens


def test_a_field_that_has_a_setting_is_no_further_field():
    with pytest.raises(UsageError, match="extra: stream does not belong here: requests always stream"):
        parse_workload("chat:extra.stream=false")


PIECES = st.sampled_from(
    ["chat", "random", ":", ",", "in", "out", "cv", "=", "5", "0.5", "-1", "api", "tokens", " ", "é"]
)


@given(st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=12).map("".join)))
def test_any_text_is_a_workload_or_a_usage_error(text):
    with suppress(UsageError):
        assert isinstance(parse_workload(text), Workload)


# ---- sections --------------------------------------------------------------------------------------------------------


def test_lengths_can_be_given_one_by_one_or_change_a_preset():
    plain, _ = read({"prompt": 100, "output": {"mean": 50, "cv": 0.5, "high": 200}})
    changed, _ = read({"preset": "chat", "output": {"mean": 5_000}})

    assert (Lengths(mean=100), Lengths(mean=50, cv=0.5, high=200)) == (plain.prompt, plain.output)
    assert PRESETS["chat"].prompt == changed.prompt
    assert 5_000 == changed.output.mean < changed.output.high


@pytest.mark.parametrize(
    ("value", "think"),
    [
        (2, ThinkTime(mean=2.0)),
        ("1m", ThinkTime(mean=60.0)),
        ({"mean": 2.5, "cv": 1}, ThinkTime(mean=2.5, cv=1.0)),
        ({"mean": "500ms"}, ThinkTime(mean=0.5)),
    ],
)
def test_users_think_for_a_time_that_varies_or_not(value, think):
    workload, problems = read({"preset": "chat", "think_time_s": value})

    assert [] == problems
    assert think == workload.think_time_s


def test_a_command_is_split_into_words_without_a_shell():
    workload, _ = read({"command": "bench '{url} x' --rate {rate} {result}", "reader": "vllm", "timeout_s": "5m"})

    assert (
        CommandWorkload(
            name="w", command=("bench", "{url} x", "--rate", "{rate}", "{result}"), reader="vllm", timeout_s=300.0
        )
        == workload
    )


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({}, "says nothing on what is sent"),
        ({"preset": "chat", "random": {"in": 1, "out": 1}}, "keep one"),
        ({"preset": "chat", "command": "b {rate}", "reader": "vllm"}, "preset does nothing beside command"),
        ({"command": "b"}, "reader is missing"),
        ({"command": "b 'x", "reader": "vllm"}, "check the quotes"),
        ({"command": [], "reader": "vllm"}, "is empty"),
        ({"preset": "chat", "reader": "vllm"}, "reader needs command"),
        ({"preset": "chat", "timeout_s": 5}, "request_timeout_s"),
        ({"dataset": "x.json"}, "cannot be read here"),
        ({"preset": "chat", "extra": {"max_tokens": 5}}, "write max_tokens, or output, beside extra"),
        ({"preset": "chat", "extra": {"model": "m"}}, "model does not belong here"),
        ({"preset": "chat", "extra": {"stop": float("nan")}}, "JSON cannot say"),
        ({"preset": "chat", "extra": {"seed": 1 << 64}}, "extra: holds a number of more than 64 bits"),
        ({"preset": "chat", "extra": {"stop": ["\ud800"]}}, "half a character"),
        ({"preset": "chat", "extra": 5}, "must be a table"),
        ({"preset": "chat", "min_tokens": 5}, "needs ignore_eos = false"),
        ({"preset": "chat", "min_tokens": 5, "max_tokens": 4, "ignore_eos": False}, "above max_tokens"),
        ({"preset": "chat", "repeat": True}, "repeat needs dataset, prefix or a trace with hash_ids"),
        ({"trace": "x.jsonl"}, "cannot be read here"),
        ({"preset": "chat", "arrivals": "trace"}, "needs trace"),
        ({"preset": "chat", "goodput": ["ttft_ms<=5"]}, "attainment"),
        ({"preset": "chat", "burstiness": 2}, 'arrivals = "gamma"'),
        ({"preset": "chat", "arrivals": "gamma"}, "needs burstiness"),
        ({"preset": "chat", "prompt": {"mean": 5, "low": 10}}, "lies outside 10"),
        ({"preset": "chat", "prompt": {"mean": 5, "hig": 10}}, "did you mean high?"),
        ({"preset": "chat", "ignore_eos": "yes"}, "true or false"),
        ({"preset": "chat", "turns": 0}, "above 0"),
        ({"preset": "chat", "turns": {"mean": 0.5}}, "less than one request"),
        ({"preset": "chat", "turns": {"cv": 1}}, "mean missing; write { mean = 4, cv = 0.5 }"),
        ({"preset": "chat", "turns": 3, "api": "completions"}, 'turns needs api = "chat"'),
        ({"preset": "chat", "max_in_flight": 0}, "above 0"),
        ({"preset": "chat", "ramp_s": 0}, "longer than 0"),
        ({"preset": "chat", "max_in_flight": 2.5}, "whole number"),
        ({"preset": "chat", "think_time_s": 0}, "longer than 0"),
        ({"preset": "chat", "think_time_s": "long"}, "is no duration"),
        ({"preset": "chat", "think_time_s": {"cv": 1}}, "mean missing; write { mean = 2, cv = 1 }"),
        ({"preset": "chat", "think_time_s": {"men": 1}}, "did you mean mean?"),
        ({"preset": "chat", "think_time_s": {"mean": 1, "cv": -1}}, "cv: -1"),
        ({"command": "b {rate}", "reader": "vllm", "think_time_s": 2}, "think_time_s does nothing beside command"),
        ({"preset": 5}, "is no preset"),
        ({"random": 5}, "must be a table"),
        (["chat"], "must be a table"),
    ],
)
def test_sections_that_cannot_be_used_say_why_and_what_to_write(section, says):
    workload, problems = read(section)

    assert workload is None
    assert says in "\n".join(problems)


@pytest.mark.parametrize(
    ("by", "command", "says"),
    [
        ("rate", "b {rate} {result}", None),
        ("concurrency", "b {concurrency} {url} {model} {requests} {seed} {result}", None),
        ("rate", "b {rate} {concurrency} {result}", "{concurrency} has no value when rate is searched"),
        ("concurrency", "b {rate} {result}", "put {concurrency} in it"),
        ("rate", "b {rte} {rate} {result}", "did you mean rate?"),
        ("rate", "b {rate}", "put {result} in it"),
    ],
)
def test_an_external_command_must_take_the_load_that_is_searched(by, command, says):
    problems = []

    check_command(CommandWorkload(name="x", command=tuple(command.split()), reader="vllm"), by, (), problems)

    assert (says is None) == (not problems)
    assert (says or "") in "\n".join(problem.text for problem in problems)


@pytest.mark.parametrize(
    ("reader", "says"),
    [("sglang", None), ("vlm", "did you mean vllm?"), ("mine.reader:read", None), ("vllm", None)],
)
def test_readers_are_known_or_imported(reader, says):
    problems = []

    check_command(CommandWorkload(name="x", command=("{rate}", "{result}"), reader=reader), "rate", (), problems)

    assert [says is not None] == [bool(problems)]
    assert (says or "") in "\n".join(problem.text for problem in problems)
