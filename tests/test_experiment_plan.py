"""Parameters, placeholders, keys, secrets and estimates."""

import argparse
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.experiment import plan
from redline.experiment.commands import placeholders, record_text
from redline.experiment.estimate import estimate_of, judged_requests, largest_percentile
from redline.experiment.presets import PRESETS
from redline.model import (
    ClientEvidence,
    CommandWorkload,
    Experiment,
    Goal,
    Lengths,
    Measured,
    Probe,
    ServerConfig,
    Stop,
    ThinkTime,
    Trial,
    UsageError,
    Workload,
)
from redline.sla import parse_criterion, parse_sla
from redline.stats import floor_to_pass

SERVER = ServerConfig(name="server", command=("vllm", "serve", "m", "--port", "{port}"))
RUNNING = ServerConfig(name="there", url="http://127.0.0.1:8000")
EXPERIMENT = Experiment(
    name="e", servers=(SERVER,), workloads=(PRESETS["chat"],), slas=(parse_sla("p99_ttft_ms<=200"),), goal=Goal()
)


# ---- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "parameters", "expected"),
    [
        # what a value becomes
        ("vllm serve m", {"max_num_seqs": 64}, "vllm serve m --max-num-seqs 64"),
        ("vllm serve m", {"enforce_eager": True}, "vllm serve m --enforce-eager"),
        ("vllm serve m", {"enforce-eager": False}, "vllm serve m --no-enforce-eager"),
        ("vllm serve m", {"c_c.use_x": True}, "vllm serve m --c-c.use_x=true"),
        ("vllm serve m", {"c_c.use_x": False}, "vllm serve m --c-c.use_x=false"),
        ("vllm serve m", {"c_c.level": 3}, "vllm serve m --c-c.level 3"),
        ("vllm serve m", {"_benchmark_name": "a", "x": 1}, "vllm serve m --x 1"),
        # an option that is there is replaced where it stands, in any spelling
        ("v --a_b 1 --c", {"a-b": 2}, "v --a-b 2 --c"),
        ("v --a-b=1 --c", {"a_b": 2}, "v --a-b 2 --c"),
        ("v --x --a-b 1", {"a_b": 2}, "v --x --a-b 2"),
        ("v --a_b.c_d 1 --x", {"a-b.c_d": 2}, "v --a-b.c_d 2 --x"),
        ("v --a-b.c_d 1", {"a-b.c-d": 2}, "v --a-b.c_d 1 --a-b.c-d 2"),
        ("v --a 1 --b --a=3 --a 4", {"a": 2}, "v --a 2 --b"),
        ("v --no-a --b", {"a": False}, "v --no-a --b"),
        ("v --no-a --b", {"a": True}, "v --a --b"),
        ("v --a --b", {"a": False}, "v --no-a --b"),
        ("v --a true --b", {"a": True}, "v --a --b"),
        ("v --a thing --b", {"a": True}, "v --a --b"),
        ("v --a.b false --b", {"a.b": True}, "v --a.b=true --b"),
        ("v --a -1 --b", {"a": -2}, "v --a -2 --b"),
        ("v -tp 2 --b", {"tp": 4}, "v -tp 4 --b"),
        ("v --b --last", {"last": 7}, "v --b --last 7"),
        ("v --ab 1 --abc 2", {"ab": 3}, "v --ab 3 --abc 2"),
        ("v -- --a 1", {"a": 2}, "v --a 2 -- --a 1"),
        # a flag before the model must not swallow it
        ("vllm serve --enforce-eager m", {"enforce_eager": True}, "vllm serve --enforce-eager m"),
        ("vllm serve --enforce-eager m", {"enforce_eager": False}, "vllm serve --no-enforce-eager m"),
        ("vllm serve m --enforce-eager x", {"enforce_eager": True}, "vllm serve m --enforce-eager"),
        # a placeholder takes the value instead
        ("run --seqs={max_num_seqs} {port}", {"max_num_seqs": 64}, "run --seqs=64 {port}"),
        ("run {eager}", {"eager": True}, "run true"),
    ],
)
def test_parameters_follow_vllms_rule_without_its_defects(command, parameters, expected):
    assert tuple(expected.split()) == plan.apply_parameters(command.split(), parameters)


def test_an_object_becomes_one_word_of_json():
    applied = plan.apply_parameters(["v"], {"compilation_config": {"level": 3, "x": [1, "a b"]}})

    assert ("v", "--compilation-config", '{"level": 3, "x": [1, "a b"]}') == applied


KEYS = st.from_regex(r"[a-z]{1,3}(_[a-z]{1,3})?", fullmatch=True)
VALUES = st.one_of(st.booleans(), st.integers(-5, 99), st.sampled_from(["auto", "fp8", "a b"]), st.just({"x": 1}))
OPTIONS = st.tuples(KEYS, st.sampled_from(["--{}", "--{} 8", "--{} word", "--no-{}", "--{}=4"]))
WORDS = st.lists(OPTIONS, max_size=6).map(lambda found: [w for key, form in found for w in form.format(key).split()])


@given(WORDS, st.dictionaries(KEYS, VALUES, max_size=4))
def test_applying_parameters_twice_changes_nothing_more(words, parameters):
    once = plan.apply_parameters(["v", *words], parameters)

    assert once == plan.apply_parameters(once, parameters)


@given(WORDS, KEYS, st.integers(-5, 99))
def test_a_command_line_parser_reads_the_value_that_was_applied(words, key, value):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    option = "--" + key.replace("_", "-")
    parser.add_argument(option, dest="it", type=int)

    known, _ = parser.parse_known_args([*plan.apply_parameters(["v", *words], {key: value})][1:])

    assert value == known.it


def test_the_grid_is_the_product_in_the_order_of_the_file():
    assert (
        {"b": 1, "a": "x"},
        {"b": 1, "a": "y"},
        {"b": 2, "a": "x"},
        {"b": 2, "a": "y"},
    ) == plan.grid({"b": [1, 2], "a": ["x", "y"]})
    assert ({},) == plan.grid({})


def test_a_configuration_is_called_by_its_parameters():
    assert "max_num_seqs=64, eager=true" == record_text({"max_num_seqs": 64, "_benchmark_name": "n", "eager": True})


# ---- placeholders ----------------------------------------------------------------------------------------------------


def test_a_value_with_spaces_stays_one_word():
    assert ("b", "--url=http://a b", "{model}") == plan.fill(["b", "--url={url}", "{{model}}"], {"url": "http://a b"})


def test_unknown_placeholders_are_named_with_the_nearest_known_one():
    with pytest.raises(UsageError, match=r"\{prot\} \(did you mean port\?\), \{x\} \(known are port, model\)"):
        plan.fill(["--port", "{prot}", "{x}", "{model}"], {"port": 1, "model": "m"})


@pytest.mark.parametrize("word", ['{"level": 3}', '{"a":{"b":1}}', "{}", "{ port }", "a{1}"])
def test_braces_of_json_are_no_placeholders(word):
    assert () == placeholders([word])
    assert (word,) == plan.fill([word], {})


@given(st.text(), st.text())
def test_filling_keeps_every_value_as_it_is(url, model):
    assert (url, f"<{model}>") == plan.fill(["{url}", "<{model}>"], {"url": url, "model": model})


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "other"}, True),
        ({"ready_timeout_s": 5.0, "stop_grace_s": 1.0, "ready": "/x", "gpus": 2}, True),
        ({"parameters": {"port": 1}}, True),
        ({"command": ("vllm", "serve", "m2", "--port", "{port}")}, False),
        ({"env": {"A": "1"}}, False),
        ({"model": "m"}, False),
    ],
)
def test_the_key_of_a_case_hashes_what_really_runs(change, same):
    changed = plan.case_key(replace(SERVER, **change), PRESETS["chat"])

    assert same == (changed == plan.case_key(SERVER, PRESETS["chat"]))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "other"}, True),
        ({"prompt": Lengths(mean=512.0, cv=0.8, low=8, high=2_048)}, True),
        ({"output": Lengths(mean=257, cv=0.8, low=2, high=1_024)}, False),
        ({"request_timeout_s": 5.0}, False),
        ({"arrivals": "constant"}, False),
        ({"think_time_s": ThinkTime(mean=2.0)}, False),
    ],
)
def test_the_key_of_a_case_hashes_what_is_sent(change, same):
    changed = plan.case_key(SERVER, replace(PRESETS["chat"], **change))

    assert same == (changed == plan.case_key(SERVER, PRESETS["chat"]))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://127.0.0.1:8000/", "HTTP://127.0.0.1:8000/v1/"])
def test_one_address_has_one_key_however_it_is_written(url):
    written = replace(RUNNING, url=url)

    assert plan.case_key(RUNNING, PRESETS["chat"]) == plan.case_key(written, PRESETS["chat"])


def test_an_attached_server_is_told_by_its_address_and_model():
    keys = {
        plan.case_key(server, PRESETS["chat"])
        for server in (
            RUNNING,
            replace(RUNNING, url="http://127.0.0.1:8001"),
            replace(RUNNING, url="http://127.0.0.1:8000/other"),
            replace(RUNNING, model="m"),
        )
    }

    assert 4 == len(keys)


def test_a_new_api_key_is_no_new_server():
    ours = replace(SERVER, command=(*SERVER.command, "--api-key", "sk-one"), env={"HF_TOKEN": "hf_one"})
    theirs = replace(SERVER, command=(*SERVER.command, "--api-key", "sk-two"), env={"HF_TOKEN": "hf_two"})

    assert plan.case_key(ours, PRESETS["chat"]) == plan.case_key(theirs, PRESETS["chat"])


def test_there_is_a_job_for_each_server_with_a_case_for_each_workload():
    experiment = replace(
        EXPERIMENT,
        servers=(SERVER, replace(SERVER, name="b", command=("x",))),
        workloads=(PRESETS["chat"], PRESETS["rag"]),
    )

    jobs = plan.jobs(experiment)

    assert [("server", ["chat", "rag"]), ("b", ["chat", "rag"])] == [
        (job.server.name, [case.workload.name for case in job.cases]) for job in jobs
    ]
    assert 4 == len({case.key for job in jobs for case in job.cases})


def test_each_question_to_a_server_has_its_own_directory():
    def directory(server=RUNNING, workload=PRESETS["chat"], by="rate"):
        return plan.find_directory(server, workload, by)

    assert directory().startswith("redline-results/127.0.0.1-")
    assert directory() == directory(server=replace(RUNNING, headers={"Authorization": "Bearer x"}))
    others = {
        directory(by="concurrency"),
        directory(workload=PRESETS["rag"]),
        directory(server=replace(RUNNING, model="m")),
        directory(server=replace(RUNNING, url="http://[::1]:8000")),
    }
    assert 4 == len(others - {directory()})
    assert all("/" not in name.removeprefix("redline-results/") and ":" not in name for name in others)


# ---- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Authorization = "Bearer sk-abc def"', 'Authorization = "***"'),
        ('Authorization = """abc"""', 'Authorization = """***"""'),
        ('{"Authorization": "Bearer zzzz"}', '{"Authorization": "***"}'),
        ('curl -H "Authorization: Basic dXNlcg==" x', 'curl -H "Authorization: Basic ***" x'),
        (r'"serve --h \"Authorization: Bearer abc\" x"', r'"serve --h \"Authorization: Bearer ***\" x"'),
        ("vllm serve m --api-key sk-1 --port 3", "vllm serve m --api-key *** --port 3"),
        ("vllm serve m --api_key=sk-1 --port 3", "vllm serve m --api_key=*** --port 3"),
        ('["--api-key", "sk-1"]', '["--api-key", "***"]'),
        ("api_key=['sk-1'], port=3", "api_key=['***'], port=3"),
        ("x-api-key: abc", "x-api-key: ***"),
        ('HF_TOKEN = "hf_abc"', 'HF_TOKEN = "***"'),
        ('POSTGRES_PASSWORD="x y"', 'POSTGRES_PASSWORD="***"'),
        ("http://user:word@host:1/x", "http://user:***@host:1/x"),
        ("sent Bearer abcdefgh to it", "sent Bearer *** to it"),
    ],
)
def test_secrets_in_text_are_hidden(text, expected):
    assert expected == plan.redact(text)
    assert expected == plan.redact(expected)


@pytest.mark.parametrize(
    "text",
    [
        'Authorization = "Bearer ${KEY}"',
        'env = { HF_TOKEN = "${HF_TOKEN}" }',
        "--api-key ${KEY} --port 1",
        'api_key_env = "OPENAI_API_KEY"',
        "'api_key': None, 'x': 1",
        'TOKENIZERS_PARALLELISM = "false"',
        "--max-num-batched-tokens 8192 max_token = 5",
        "http://host:8000/a@b",
        "12.5 tokens per second: 3",
    ],
)
def test_what_is_no_secret_stays(text):
    assert text == plan.redact(text)


def test_secrets_in_nested_values_are_hidden_by_the_name_they_stand_under():
    given = {
        "headers": {"Authorization": "Bearer x", "X-Api-Key": "${KEY}", "Accept": "a"},
        "command": ["vllm", "--api-key", "sk", "--port", "1"],
        "words": ("--api-key", "sk"),
        "n": 3,
    }

    assert {
        "headers": {"Authorization": "***", "X-Api-Key": "${KEY}", "Accept": "a"},
        "command": ["vllm", "--api-key", "***", "--port", "1"],
        "words": ("--api-key", "***"),
        "n": 3,
    } == plan.redact(given)


def test_the_secrets_of_an_experiment_are_known_wherever_they_turn_up():
    server = replace(
        SERVER,
        command=("vllm", "--api-key", "sk-in-command", "--key=x"),
        env={"HF_TOKEN": "hf_in_env", "PATH": "/somewhere/long"},
        headers={"Authorization": "Bearer sk-in-header", "X-Api-Key": "${KEY}"},
    )

    found = plan.secrets(replace(EXPERIMENT, servers=(server,)))

    assert {"sk-in-command", "hf_in_env", "sk-in-header"} == set(found)
    assert "the key *** is wrong" == plan.redact("the key sk-in-header is wrong", found)


# ---- estimates -------------------------------------------------------------------------------------------------------


def test_the_sample_floor_is_that_of_the_binomial_rule():
    assert [459, 90, 44] == [floor_to_pass(share, 0.99) for share in (0.01, 0.05, 0.1)]
    assert 230 == floor_to_pass(0.01, 0.9)


@given(st.floats(0.001, 0.5), st.sampled_from([0.8, 0.9, 0.99]))
def test_the_largest_percentile_is_the_inverse_of_the_floor(share, confidence):
    requests = floor_to_pass(share, confidence)

    assert largest_percentile(requests, confidence) >= 100 * (1 - share) - 1e-6
    assert largest_percentile(requests - 1, confidence) <= 100 * (1 - share) + 1e-6


def test_a_harder_percentile_needs_more_requests():
    needs = [
        judged_requests(parse_criterion(text)) for text in ("p50_ttft_ms<=1", "p99_ttft_ms<=1", "p99.9_ttft_ms<=1")
    ]

    assert [150, 800, 8_000] == needs


def test_an_estimate_adds_up_and_says_what_it_assumes():
    found = plan.estimate(EXPERIMENT, {})

    assert 1 == found.launches
    assert found.seconds == pytest.approx(found.cases[0].seconds + 60)
    assert 0 < found.requests <= 8_000 + 100
    assert any("10 requests/s" in text for text in found.assumptions)
    assert any("p99.97" in text for text in found.assumptions)
    assert () == found.warnings


def test_what_was_measured_makes_the_rest_shorter_and_tells_its_pace():
    key = plan.jobs(EXPERIMENT)[0].cases[0].key
    done = tuple(trial_at(load, sent=600, duration_s=6.0) for load in (90.0, 100.0, 110.0))

    before, after = plan.estimate(EXPERIMENT, {}), plan.estimate(EXPERIMENT, {key: done})

    assert 3 == after.cases[0].done
    assert after.cases[0].trials < before.cases[0].trials
    assert after.cases[0].seconds < before.cases[0].seconds / 2


def test_what_is_left_is_what_the_slas_still_ask_for():
    case = plan.jobs(EXPERIMENT)[0].cases[0]
    done = {case.key: [replace(trial_at(5.0, sent=300, duration_s=60.0), id=str(i)) for i in range(20)]}
    (sla,) = EXPERIMENT.slas
    asked = replace(done[case.key][0], probe=replace(done[case.key][0].probe, asked_by=sla.name))

    by_count = plan.estimate(EXPERIMENT, done)
    answered = estimate_of(EXPERIMENT, [case], done, {case.key: ()})
    added = estimate_of(EXPERIMENT, [case], done, {case.key: (sla.name,)})
    nearly = estimate_of(EXPERIMENT, [case], {case.key: [*done[case.key], asked]}, {case.key: (sla.name,)})

    assert [0, 0, 8, 1] == [found.cases[0].trials for found in (by_count, answered, added, nearly)]
    assert added.requests > nearly.requests > 0
    assert (0, 1) == (answered.launches, added.launches)


def test_the_time_allowed_bounds_the_estimate():
    found = plan.estimate(replace(EXPERIMENT, goal=Goal(max_time_s=30.0)), {})

    assert 30.0 == found.cases[0].seconds


def test_a_list_of_loads_costs_what_each_load_takes():
    experiment = replace(EXPERIMENT, goal=Goal(loads=(1.0, 100.0)))
    key = plan.jobs(experiment)[0].cases[0].key

    whole = plan.estimate(experiment, {})
    left = plan.estimate(experiment, {key: (trial_at(1.0, sent=800, duration_s=800.0),)})

    assert 2 == whole.cases[0].trials
    assert 800 / 1 + 800 / 100 <= whole.cases[0].seconds <= 900
    assert 1 == left.cases[0].trials
    assert left.cases[0].seconds < 30


def test_a_budget_that_can_never_decide_is_a_warning_with_the_percentile_that_it_can():
    experiment = replace(
        EXPERIMENT, slas=(parse_sla("p99.9_ttft_ms<=200"),), goal=Goal(max_requests=1_000, confidence=0.9)
    )

    (warning,) = plan.estimate(experiment, {}).warnings

    assert "p99.9_ttft_ms<=200 needs 2,302 requests" in warning
    assert "ask for p99.77" in warning


def test_an_external_command_is_said_to_cost_more():
    command = CommandWorkload(name="c", command=("b", "{rate}", "{result}"), reader="vllm")

    ours, theirs = (plan.estimate(replace(EXPERIMENT, workloads=(w,)), {}) for w in (PRESETS["chat"], command))

    assert theirs.requests > ours.requests or theirs.seconds > ours.seconds
    assert any("cannot be stopped early" in text for text in theirs.warnings)


@given(
    st.floats(0.01, 0.3),
    st.one_of(st.none(), st.integers(1, 10**6)),
    st.one_of(st.none(), st.floats(1, 1e5)),
    st.integers(0, 30),
)
def test_no_estimate_is_negative_or_endless(precision, max_requests, max_time_s, done):
    goal = Goal(precision=precision, max_requests=max_requests, max_time_s=max_time_s)
    experiment = replace(EXPERIMENT, goal=goal)
    key = plan.jobs(experiment)[0].cases[0].key

    found = plan.estimate(experiment, {key: [trial_at(5.0, sent=300, duration_s=60.0)] * done})

    assert 0 <= found.requests
    assert 0 <= found.seconds
    assert math.isfinite(found.seconds)


def trial_at(load, *, sent, duration_s):
    outcome = Measured(
        stop=Stop(reason="full", at_s=duration_s), duration_s=duration_s, client=ClientEvidence(due=sent, sent=sent)
    )
    probe = Probe(by="rate", load=load, kind="main")
    return Trial(id="1", case="c", probe=probe, seed=1, started="2026-01-01T00:00:00+00:00", outcome=outcome)


def test_workloads_of_one_content_share_a_key():
    assert isinstance(PRESETS["chat"], Workload)
    assert plan.case_key(SERVER, PRESETS["chat"]) == plan.case_key(SERVER, replace(PRESETS["chat"], name="mine"))


def test_each_trial_takes_its_ramp_longer():
    ramped = replace(EXPERIMENT, workloads=(replace(PRESETS["chat"], ramp_s=30.0),))
    plain, longer = (plan.estimate(experiment, {}) for experiment in (EXPERIMENT, ramped))

    assert longer.cases[0].trials == plain.cases[0].trials
    assert longer.seconds == pytest.approx(plain.seconds + 30.0 * plain.cases[0].trials)
