"""Experiment files, read with all their errors at once, and made."""

import json
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.codec import (
    attached_files,
    load_experiment,
    load_workload_file,
)
from redline.experiment import plan
from redline.experiment.build import find_experiment
from redline.experiment.file import experiment_to_toml
from redline.experiment.goals import advice
from redline.experiment.tomllines import lines_of
from redline.experiment.workloads import PRESETS
from redline.model import (
    CommandWorkload,
    Experiment,
    Goal,
    Lengths,
    ServerConfig,
    ThinkTime,
    UsageError,
    Workload,
)
from redline.sla import parse_sla
from redline.talks import turns_like

GOOD = {
    "server": 'command = "vllm serve m --port {port}"',
    "workload.chat": 'preset = "chat"',
    "sla": 'chat = ["p99_ttft_ms<=200"]',
}


def text_of(**changed):
    """The good file with other sections; None leaves one out, `workload` stands for [workload.chat]."""
    sections = {**GOOD, **{key.replace("workload", "workload.chat"): text for key, text in changed.items()}}
    return "\n\n".join(f"[{name}]\n{text}" for name, text in sections.items() if text is not None)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """For hypothesis, which runs a test often with one folder."""
    folder = tmp_path_factory.mktemp("scratch")

    def write(name, text):
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write


@pytest.fixture
def load(tmp_path):
    def load(text=None, options=None, **changed):
        path = tmp_path / "exp.toml"
        path.write_text(text_of(**changed) if text is None else text, encoding="utf-8")
        return load_experiment(path, options)

    return load


@pytest.fixture
def refusal(load):
    def refusal(text=None, options=None, **changed):
        with pytest.raises(UsageError) as error:
            load(text, options, **changed)
        return str(error.value)

    return refusal


# ---- good files ------------------------------------------------------------------------------------------------------


def test_a_whole_file_is_read(load):
    experiment = load(
        """
        [server]
        command = "vllm serve Qwen/Qwen3-8B --port {port} --dtype {dtype}"
        ready = "/health"
        ready_timeout_s = "10m"
        stop_grace_s = 5
        env = { VLLM_SERVER_DEV_MODE = "1", OMP_NUM_THREADS = 2, HF_TOKEN = "${HF_TOKEN}" }
        gpus = 1
        vary = { max_num_seqs = [64, 128], dtype = ["auto", "fp8"] }
        model = "qwen"

        [workload.short]
        random = { in = 32, out = 16 }
        api = "completions"
        request_timeout_s = "20s"

        [workload.external]
        command = "vllm bench serve --base-url {url} --request-rate {rate} --result-filename {result}"
        reader = "vllm"

        [sla]
        interactive = ["p99_ttft_ms<=200", "p90_tpot_ms<=50ms"]
        batch = "p95_e2el_ms<=30s, error_rate<=5%"

        [search]
        by = "rate"
        precision = "4%"
        max_time = "4h"
        max = 50
        seed = 7
        """
    )

    assert [
        "max_num_seqs=64, dtype=auto",
        "max_num_seqs=64, dtype=fp8",
        "max_num_seqs=128, dtype=auto",
        "max_num_seqs=128, dtype=fp8",
    ] == [server.name for server in experiment.servers]
    assert (
        ServerConfig(
            name="max_num_seqs=128, dtype=fp8",
            parameters={"max_num_seqs": 128, "dtype": "fp8"},
            command=(
                *("vllm", "serve", "Qwen/Qwen3-8B", "--port", "{port}"),
                *("--dtype", "fp8", "--max-num-seqs", "128"),
            ),
            env={"VLLM_SERVER_DEV_MODE": "1", "OMP_NUM_THREADS": "2", "HF_TOKEN": "${HF_TOKEN}"},
            ready="/health",
            ready_timeout_s=600.0,
            stop_grace_s=5.0,
            gpus=1,
            model="qwen",
        )
        == experiment.servers[3]
    )
    short, external = experiment.workloads
    assert (
        Workload(
            name="short",
            prompt=Lengths(mean=32),
            output=Lengths(mean=16),
            api="completions",
            request_timeout_s=20.0,
        )
        == short
    )
    assert "external" == external.name
    assert "{url}" in external.command
    assert [("interactive", 3), ("batch", 2)] == [(sla.name, len(sla.criteria)) for sla in experiment.slas]
    assert Goal(precision=0.04, max_time_s=14_400.0, max_load=50.0, seed=7) == experiment.goal
    assert "exp" == experiment.name


def test_concurrency_has_limits_of_its_own(load):
    goal = load(search='by = "concurrency"\nmax = 64').goal

    assert (1.0, 64.0) == (goal.min_load, goal.max_load)


def test_the_command_line_takes_the_place_of_keys_in_the_file(load):
    goal = load(search='by = "rate"\nmax_time = "4h"', options={"by": "concurrency", "loads": "1,2,4"}).goal

    assert Goal(by="concurrency", min_load=1, max_load=8_192, max_time_s=14_400.0, loads=(1, 2, 4)) == goal


@pytest.mark.parametrize(
    ("search", "options", "expected"),
    [
        ("min = 5\nmax = 9\nsustain = 60", {"loads": "1,2"}, Goal(loads=(1.0, 2.0))),
        ("precision = 0.1\nmax_trials = 9", {"loads": "1,2"}, Goal(loads=(1.0, 2.0))),
        ("loads = [1, 2]", {"max": 9}, Goal(max_load=9.0)),
        ("loads = [1, 2]", {"sustain": "1m"}, Goal(sustain_s=60.0)),
    ],
)
def test_an_option_also_replaces_what_contradicts_it_in_the_file(load, search, options, expected):
    assert expected == load(search=search, options=options).goal


def test_a_file_without_its_secrets_describes_the_same_cases(load):
    text = """
        [server]
        command = ["v", "--api-key", "sk-12345678", "--h", "Authorization: Bearer abcdefgh", "--token", "hf_12345678"]
        port = 8000
        stop_grace_s = 5
        headers = { Authorization = "Bearer sk-12345678", "X-Api-Key" = 'sk-12345678' }
        env = { HF_TOKEN = "hf_12345678", A = "b" }
        [workload.chat]
        preset = "chat"
        [sla]
        chat = ["p99_ttft_ms<=200"]
        """
    whole = load(text)
    secrets = plan.secrets(whole)

    without = load(plan.redact(text, secrets))

    assert {"sk-12345678", "hf_12345678"} <= set(secrets)
    assert plan.identity(whole).cases == plan.identity(without).cases
    assert plan.identity(whole).commands == plan.identity(without).commands
    assert {"Authorization": "***", "X-Api-Key": "***"} == without.servers[0].headers


def test_a_server_that_runs_is_named_by_its_address(load):
    (server,) = load(server='url = "http://127.0.0.1:8000"\nheaders = { Authorization = "Bearer ${KEY}" }').servers

    assert server.attached
    assert "127.0.0.1:8000" == server.name
    assert {"Authorization": "Bearer ${KEY}"} == server.headers


def test_a_server_that_is_no_foreground_process_has_commands_to_start_and_stop_it(load):
    (one, two) = load(
        server="""
        start = "docker run -d --name {name} -p {port}:8000 image"
        stop = "docker stop {name}"
        log = ["docker", "logs", "{name}"]
        url = "http://127.0.0.1:{port}"
        vary = [{ name = "a", x = 1 }, { name = "b", x = 2 }]
        """
    ).servers

    assert ("docker", "run", "-d", "--name", "a", "-p", "{port}:8000", "image", "--x", "1") == one.start
    assert ("docker", "stop", "b") == two.stop
    assert ("docker", "logs", "b") == two.log


@pytest.mark.parametrize(
    "server",
    [
        'command = "v --port 8000"',
        'command = "v -p=8000"',
        'command = "v"\nport = 8000',
        'command = "v"\nurl = "http://h:8000"',
        'command = "v {port}"\nurl = "http://h:{port}"',
        'command = "v {port}"\nurl = "http://h:8000"\nport = 8000',
        'command = "v"\nvary = { port = [8000, 8001] }',
    ],
)
def test_where_a_launched_server_answers_can_be_said_in_several_ways(load, server):
    assert not load(server=server).servers[0].attached


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ([{"max_num_seqs": 2}, {"_benchmark_name": "big", "max_num_seqs": 16}], ["max_num_seqs=2", "big"]),
        ({"small": {"max_num_seqs": 2}, "big": {"max_num_seqs": 16}}, ["small", "big"]),
    ],
)
def test_vary_can_name_a_parameter_file_of_vllms_sweep(load, tmp_path, content, names):
    (tmp_path / "params.json").write_text(json.dumps(content))

    servers = load(server=GOOD["server"] + '\nvary = "params.json"').servers

    assert names == [server.name for server in servers]
    assert ("--max-num-seqs", "16") == servers[1].command[-2:]
    assert "_benchmark_name" not in servers[1].parameters
    assert {"params.json": json.dumps(content)} == attached_files(tmp_path / "exp.toml")


def test_a_parameter_file_is_also_found_beside_the_experiment(load, tmp_path):
    (tmp_path / "params.json").write_text('[{"a": 1}]')

    assert 1 == len(load(server=GOOD["server"] + '\nvary = "../elsewhere/params.json"').servers)


def test_a_file_without_parameters_has_nothing_attached(load, tmp_path):
    load()

    assert {} == attached_files(tmp_path / "exp.toml")


# ---- bad files -------------------------------------------------------------------------------------------------------


def test_every_error_of_a_file_is_told_at_once_with_its_line(refusal):
    told = refusal(
        """title = 3
[server]
command = "vllm serve m --port {port}"
gpu = 1
env = { A = 1, B = true }
vary = { a = [1,
  2], b = 3 }

[workload.chat]
preset = "chatt"
api = "grpc"

[sla]
i = [
 "p99_ttft_ms<=200",
 "p99_ttt_ms<=200",
]

[search]
min = 5
max = 2
max_tim = "4h"
""",
        options={"precision": "lots"},
    )

    expected = [
        "--precision: 'lots' is no share",
        "line 1: unknown section title",
        "line 4: [server] unknown key gpu; did you mean gpus?",
        'line 5: [server] env: B must be text; write B = "true"',
        "line 6: [server] vary: b must be a list",
        "line 10: [workload.chat] preset: 'chatt' is no preset; did you mean chat?",
        "line 11: [workload.chat] api: 'grpc' is unknown; known are chat, completions",
        "line 16: [sla.i] SLA 'i': unknown metric p99_ttt_ms: did you mean p99_ttft_ms?",
        "line 20: [search] min 5 is above max 2",
        "line 22: [search] unknown key max_tim; did you mean max_time?",
    ]
    first, *lines = told.splitlines()
    assert first.endswith("exp.toml: 10 problems")
    assert expected == [line.strip()[: len(want)] for line, want in zip(lines, expected, strict=True)]


SERVER = GOOD["server"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"server": None}, "server is missing"),
        ({"server": 'model = "m"'}, "line 1: [server] says no server"),
        ({"server": SERVER + '\nstart = "x"'}, "line 3: [server] command and start"),
        ({"server": 'start = "x"\nurl = "http://h:1"'}, "start needs stop"),
        ({"server": 'start = "x"\nstop = "y"'}, "start needs url"),
        ({"server": SERVER + '\nlog = "x"'}, "log belongs to start"),
        ({"server": 'url = "http://h:1"\nvary = { a = [1] }'}, "vary needs command or start"),
        ({"server": 'url = "ftp://h:1"'}, "write http://HOST:PORT"),
        ({"server": 'url = "http://h:99999"'}, "write http://HOST:PORT"),
        ({"server": 'url = "me:secret@h:1"'}, "'***@h:1' holds credentials, which are not sent from there"),
        ({"server": 'url = "ftp://token@h:1"'}, "'ftp://***@h:1' is no address"),
        ({"server": 'command = "vllm serve {modl} {port}"\nvary = { model = ["a"] }'}, "{modl} (did you mean model?)"),
        ({"server": 'command = "vllm serve m"'}, "line 2: [server] the command does not say on which port it listens"),
        ({"server": 'command = "v {p}"\nvary = [{ p = 1 }, { p = 2 }]'}, "put {port} in it"),
        ({"server": 'command = "v --port {port}"\nurl = "http://h:80"'}, "line 3: [server] url names another port"),
        ({"server": 'start = "v {port}"\nstop = "x"\nurl = "https://h"'}, "write :{port} in the url"),
        ({"server": 'command = "v {port}"\nurl = "h:80"\nport = 81'}, "than {port} in the command, 81"),
        ({"server": "command = 'vllm \"serve'"}, "check the quotes"),
        ({"server": 'command = ""'}, "command: is empty"),
        ({"server": "command = 5"}, "command: must be text, not a number"),
        ({"server": SERVER + "\nport = 70000"}, "they end at 65535"),
        ({"server": SERVER + '\nready = "health"'}, "such as /health"),
        ({"server": SERVER + "\ngpus = -1"}, "not below 0"),
        ({"server": SERVER + "\nvary = { a = [] }"}, "not an empty list"),
        ({"server": SERVER + "\nvary = []"}, "nothing would run"),
        ({"server": SERVER + "\nvary = [{ a = 1 }, { a = 1 }]"}, "configuration a=1 is there twice"),
        ({"server": SERVER + '\nvary = "gone.json"'}, "there is no file"),
        ({"server": SERVER + '\nenv = { "A B" = "x" }'}, "'A B' is no name"),
        ({"server": SERVER + '\nheaders = { A = "x\\ny" }'}, "line break"),
        ({"server": SERVER + '\napi_key_env = "sk-123"'}, "must be the name of an environment variable"),
        ({"workload": None}, "workload is missing"),
        ({"workload": 'command = "b {rate} {concurrency} {result}"\nreader = "vllm"'}, "{concurrency} has no value"),
        ({"workload": 'command = "b {rte} {rate} {result}"\nreader = "vllm"'}, "{rte} (did you mean rate?)"),
        (
            {"workload": 'preset = "chat"\nthink_time_s = 2'},
            "line 6: [workload.chat] think_time_s does nothing by rate",
        ),
        ({"workload": 'dataset = "x.json"'}, "dataset: there is no file"),
        ({"sla": None}, "sla is missing"),
        ({"sla": ""}, "line 7: [sla] sla is missing"),
        ({"sla": "a = 5"}, "must be a list of criteria"),
        ({"sla": "a = []"}, "it has no criterion"),
        ({"sla": 'a = ["p99_ttft_ms<=1", "p99_ttft_ms<=2"]'}, "two bounds"),
        ({"search": 'by = "rates"'}, "did you mean rate?"),
        ({"search": "loads = [1, 2]\nsustain = 5"}, "sustain does nothing beside loads"),
        ({"search": "loads = [1, 2]\nmin = 5"}, "min does nothing beside loads"),
        ({"search": 'by = "concurrency"\nloads = [1, 2.5]'}, "whole numbers"),
        ({"search": 'by = "concurrency"\nmin = 1.5'}, "whole number"),
        ({"search": "max = 1e6"}, "0.01 to 100000"),
        ({"search": "min = 200000"}, "min 200000 is above max 100000 (the default for rate)"),
        ({"search": "max_trials = 0"}, "above 0"),
        ({"search": 'sustain = "soon"'}, "no duration"),
        ({"search": "confidence = 1"}, "must lie between 0% and 100%, and be neither"),
        ({"search": "precision = 5"}, "did you mean 5%?"),
        ({"search": "loads = [1]\nprecision = 0.1"}, "precision does nothing beside loads"),
        ({"search": "loads = [1]\nmax_trials = 3"}, "max_trials does nothing beside loads"),
    ],
)
def test_each_mistake_has_its_own_message(refusal, changed, says):
    told = refusal(**changed)

    assert says in told
    assert "exp.toml: " in told


def test_a_key_in_place_of_its_name_is_not_repeated(refusal):
    assert "sk-123" not in refusal(server=SERVER + '\napi_key_env = "sk-123"')


def test_an_error_in_a_parameter_file_names_that_file(refusal, tmp_path):
    (tmp_path / "params.json").write_text('[{"_benchmark_name": "a"}, {"_benchmark_name": "a"}]')

    told = refusal(server=SERVER + '\nvary = "params.json"')

    assert "line 3: [server] vary:" in told
    assert "params.json: _benchmark_name a is there twice" in told


@pytest.mark.parametrize("text", ["[server\n", "a = ", "x = [1\n", "\x00", "[a]\n[a]"])
def test_what_is_no_toml_is_refused_with_the_place(refusal, text):
    assert "is no TOML" in refusal(text)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"a = '\xff'")

    for name, says in (("gone.toml", "check the name"), ("", "TOML file"), ("latin.toml", "UTF-8")):
        with pytest.raises(UsageError, match=says):
            load_experiment(tmp_path / name)


TOML_PIECES = st.sampled_from(
    [
        *("[server]\n", "[sla]\n", "[search]\n", "[workload.a]\n", "\n"),
        *("command = ", "vary = ", "url = ", "preset = ", "min = ", "loads = ", "env = ", "a = "),
        *('"x {port}"', '"chat"', "5", "-1", "nan", "true", "[1]", "[]", "{}", "{ a = [1] }", "[[1]]"),
        *('["p99_ttft_ms<=1"]', "1979-05-27", '"{"'),
    ]
)


@given(st.lists(TOML_PIECES, max_size=14).map("".join))
def test_any_file_is_an_experiment_or_a_usage_error(scratch, text):
    path = scratch("fuzz.toml", text)
    try:
        found = load_experiment(path)
    except UsageError as error:
        found = str(error)

    assert isinstance(found, Experiment) or "fuzz.toml" in found


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_lines_are_found_whatever_toml_looks_like():
    text = """# [no] = table
a.b = 1 # c = 2
"quoted key" = "x = 1" ; d = 2
[t."x.y"]
long = \"\"\"
not_a_key = 1
\"\"\"
list = [ # comment ]
  "]", { k = 5, l = 6 },
  [1,
   2] ]
float = 1.5
when = 1979-05-27T07:32:00Z
after = 3
[[many]]
p = 1
[[many]]
p = 2
""".replace(" ; d = 2", "\nd = 2")
    tomllib.loads(text)

    lines = lines_of(text)

    table = ("t", "x.y")
    assert {
        ("a", "b"): 2,
        ("quoted key",): 3,
        ("d",): 4,
        table: 5,
        (*table, "long"): 6,
        (*table, "list"): 9,
        (*table, "list", 0): 10,
        (*table, "list", 1, "k"): 10,
        (*table, "list", 1, "l"): 10,
        (*table, "list", 2, 1): 12,
        (*table, "float"): 13,
        (*table, "when"): 14,
        (*table, "after"): 15,
        ("many", 0, "p"): 17,
        ("many", 1, "p"): 19,
    }.items() <= lines.items()
    assert not any("not_a_key" in path or "c" in path for path in lines)


# ---- find, and files that are made -----------------------------------------------------------------------------------


def test_find_reads_its_options_as_a_file_does():
    experiment = find_experiment(
        "localhost:8000",
        ["chat: p99_ttft_ms<=200", "p90_tpot_ms<=50"],
        {"workload": "rag", "api": "completions", "request_timeout": "20s", "model": "m", "max_time": "4h"},
    )

    (server,), (workload,) = experiment.servers, experiment.workloads
    assert ("localhost:8000", "m", True) == (server.url, server.model, server.attached)
    assert ("rag", "completions", 20.0) == (workload.name, workload.api, workload.request_timeout_s)
    assert ["chat", "p90_tpot_ms<=50"] == [sla.name for sla in experiment.slas]
    assert 14_400.0 == experiment.goal.max_time_s


def test_find_tells_all_that_is_wrong_at_once():
    with pytest.raises(UsageError) as error:
        find_experiment(
            "http://", ["p99_ttt_ms<=1", "a: p99_ttft_ms<=1"], {"workload": "chatt", "precision": "5", "by": "x"}
        )

    told = str(error.value)
    for says in (
        "no address of a server",
        "p99_ttft_ms?",
        "did you mean chat?",
        "did you mean 5%?",
        "by: 'x' is unknown",
    ):
        assert says in told


def test_find_needs_an_sla_and_one_name_for_each():
    with pytest.raises(UsageError, match="what must hold"):
        find_experiment("http://h", [], {})
    with pytest.raises(UsageError, match="two SLAs are named 'a'"):
        find_experiment("http://h", ["a: p99_ttft_ms<=1", "a: p90_ttft_ms<=1"], {})


def test_a_benchmark_command_has_no_api_to_choose():
    command = CommandWorkload(name="c", command=("b", "{rate}", "{result}"), reader="vllm")

    with pytest.raises(UsageError, match="--api: a benchmark command"):
        find_experiment("http://h", ["p99_ttft_ms<=1"], {"api": "chat"}, command)


def test_a_precision_under_three_percent_is_advised_against():
    assert ["precision 2% is finer"] == [text[:21] for text in advice(Goal(precision=0.02))]
    assert () == advice(Goal(precision=0.03))


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)
TEXTS = NAMES
WORKLOADS = st.builds(
    Workload,
    name=NAMES,
    prompt=st.builds(Lengths, mean=st.floats(1, 1e4), cv=st.floats(0, 2)),
    output=st.builds(Lengths, mean=st.integers(1, 10_000), cv=st.floats(0, 2)),
    api=st.just("completions"),
    prompt_kind=st.sampled_from(["text", "tokens"]),
    arrivals=st.sampled_from(["poisson", "constant"]),
    ignore_eos=st.booleans(),
    request_timeout_s=st.floats(0.1, 1e5),
)
SERVERS = st.builds(
    ServerConfig,
    name=st.just("server"),
    command=st.lists(NAMES.filter(lambda word: "{" not in word), min_size=1, max_size=4).map(
        lambda words: (*words, "--port", "{port}")
    ),
    env=st.dictionaries(st.from_regex(r"[A-Z]{1,4}", fullmatch=True), TEXTS, max_size=2),
    gpus=st.integers(0, 8),
    port=st.one_of(st.none(), st.integers(1, 65_535)),
    ready_timeout_s=st.floats(1, 1e4),
    model=st.one_of(st.none(), NAMES),
    insecure=st.booleans(),
)
GOALS = st.one_of(
    st.builds(Goal, precision=st.floats(0.01, 0.5), max_time_s=st.one_of(st.none(), st.floats(1, 1e6))),
    st.builds(Goal, by=st.just("concurrency"), min_load=st.just(2.0), max_load=st.just(64.0), seed=st.integers(0, 9)),
    st.builds(Goal, loads=st.lists(st.floats(0.1, 1e3), min_size=1, max_size=3).map(tuple)),
)
EXPERIMENTS = st.builds(
    Experiment,
    name=st.just("made"),
    servers=st.tuples(SERVERS),
    workloads=st.lists(WORKLOADS, min_size=1, max_size=2, unique_by=lambda workload: workload.name).map(tuple),
    slas=st.tuples(st.builds(lambda bound: parse_sla(f"p99_ttft_ms<={bound!r}", "chat it"), st.floats(1, 1e6))),
    goal=GOALS,
)


@given(EXPERIMENTS)
def test_a_file_that_was_made_reads_back_as_the_same_experiment(scratch, experiment):
    assert experiment == load_experiment(scratch("made.toml", experiment_to_toml(experiment)))


def test_a_question_to_a_running_server_reads_back_as_the_same_experiment(load):
    experiment = find_experiment(
        "http://h:1",
        ['a "b": attainment(ttft_ms<=200)>=95%', "error_rate<=2%"],
        {"workload": "random:in=5,out=7,arrivals=gamma,burstiness=1", "headers": {"X": "y"}, "by": "concurrency"},
    )

    assert replace(experiment, name="exp") == load(experiment_to_toml(experiment))


@pytest.mark.parametrize(
    ("by", "shape"),
    [
        ("concurrency", {"think_time_s": ThinkTime(mean=2.0)}),
        ("concurrency", {"think_time_s": ThinkTime(mean=0.5, cv=1.5), "ramp_s": 2.5}),
        ("rate", {"max_in_flight": 8, "ramp_s": 30.0}),
        ("rate", {"turns": turns_like(4, 0.0), "think_time_s": ThinkTime(mean=2.0)}),
        ("concurrency", {"turns": turns_like(2.5, 0.7)}),
    ],
)
def test_a_shaped_load_reads_back_as_the_same_experiment(load, by, shape):
    workload = replace(PRESETS["chat"], name="chat", **shape)
    experiment = find_experiment("http://h:1", ["p99_ttft_ms<=200"], {"by": by}, workload)

    assert replace(experiment, name="exp") == load(experiment_to_toml(experiment))


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ("turns=3,api=chat", {"by": "rate", "api": "completions"}, 'turns needs api = "chat"'),
        ("max_in_flight=8", {"load_workers": 2}, "max_in_flight is counted in one process"),
        ("max_in_flight=8", {"load_workers": 1}, None),
        ("think_time_s=2", {"by": "rate"}, "think_time_s does nothing by rate"),
        ("max_in_flight=8", {"by": "concurrency"}, "max_in_flight does nothing by concurrency"),
        ("think_time_s=2", {"by": "concurrency"}, None),
        ("max_in_flight=8", {"by": "rate"}, None),
        ("turns=3,think_time_s=2", {"by": "rate"}, None),
        ("turns=3", {"by": "concurrency"}, None),
    ],
)
def test_find_refuses_a_shape_that_does_not_fit_its_load(shape, options, says):
    options = {"workload": f"chat:{shape}", **options}
    if says is None:
        assert find_experiment("http://h", ["p99_ttft_ms<=1"], options)
    else:
        with pytest.raises(UsageError, match=says):
            find_experiment("http://h", ["p99_ttft_ms<=1"], options)


def test_several_configurations_are_not_made_into_a_file(load):
    with pytest.raises(UsageError, match="vary"):
        experiment_to_toml(load(server=SERVER + "\nvary = { a = [1, 2] }"))


@pytest.mark.parametrize(
    ("text", "name"), [('preset = "rag"', "mine"), ('[workload.inside]\npreset = "rag"', "inside")]
)
def test_a_workload_can_stand_in_a_file_of_its_own(tmp_path, text, name):
    (tmp_path / "mine.toml").write_text(text)

    workload = load_workload_file(tmp_path / "mine.toml")

    assert name == workload.name
    assert 4_096 == workload.prompt.mean


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('preset = "rags"', "mine.toml: line 1: preset: 'rags' is no preset; did you mean rag?"),
        ('\n[workload.a]\npreset = "rags"', "mine.toml: line 3: [workload.a] preset"),
        ('[workload.a]\npreset = "rag"\n[workload.b]\npreset = "rag"', "one workload, not 2 (a, b)"),
        ("", "says nothing on what is sent"),
    ],
)
def test_a_workload_file_that_cannot_be_used_says_where(tmp_path, text, says):
    (tmp_path / "mine.toml").write_text(text)

    with pytest.raises(UsageError) as error:
        load_workload_file(tmp_path / "mine.toml")

    assert says in str(error.value)
