"""What is wrong with the input, where, and what to do: in one paragraph, with nothing half-written."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from driving import SimServer, redline, redline_here
from tiny_server import tiny_server

GOOD = """
[server]
command = "redline sim-server --port {port}"
ready_timeout_s = 20
stop_grace_s = 5

[workload.small]
random = { in = 16, out = 8 }

[sla]
quick = ["p90_ttft_ms<=500"]

[search]
loads = [100]
max_requests = 150
"""
BENCH = 'command = "no-such-bench {rate} {result}"\nreader = "nope:fn"'
NO_ENGINE = ("cannot start 'no-such-engine'", "install it")
SIM = "redline sim-server --port {port}"


@dataclass(frozen=True)
class Case:
    """A command line, its exit code, and what the message must say: what, where, what to do."""

    name: str
    argv: tuple[str, ...]
    code: int
    words: tuple[str, ...]
    file: str = ""  # experiment.toml


OFFLINE = [
    # ---- criteria and metrics
    Case("no SLA", ("find", "http://127.0.0.1:1"), 2, ("what must hold?", "--sla")),
    Case(
        "bad operator", ("find", "http://127.0.0.1:1", "--sla", "p99_ttft_ms=200"), 2, ("p99_ttft_ms=200", "one of <=")
    ),
    Case("wrong direction", ("find", "http://127.0.0.1:1", "--sla", "p99_ttft_ms>=200"), 2, ("from above", "write <=")),
    Case(
        "no number", ("find", "http://127.0.0.1:1", "--sla", "p99_ttft_ms<=fast"), 2, ("p99_ttft_ms<=fast", "METRIC OP")
    ),
    Case("negative", ("find", "http://127.0.0.1:1", "--sla", "p99_ttft_ms<=-5"), 2, ("-5", "above 0")),
    Case("no such unit", ("find", "http://127.0.0.1:1", "--sla", "p99_ttft_ms<=5%"), 2, ("%", "use us or ms or s")),
    Case(
        "mistyped metric", ("find", "http://127.0.0.1:1", "--sla", "p99_tfft_ms<=200"), 2, ("did you mean p99_ttft_ms",)
    ),
    Case(
        "max of a metric",
        ("find", "http://127.0.0.1:1", "--sla", "max_ttft_ms<=200"),
        2,
        ("max_ttft_ms", "p99.9_ttft_ms"),
    ),
    Case(
        "goodput", ("find", "http://127.0.0.1:1", "--sla", "request_goodput>=3"), 2, ("request_goodput", "attainment")
    ),
    Case(
        "all at once",
        (
            "find",
            "http://127.0.0.1:1",
            "--sla",
            "p99_tfft_ms<=2",
            "--precision",
            "x",
            "--workload",
            "chatt",
            "--max",
            "0",
        ),
        2,
        ("p99_ttft_ms", "'x' is no share", "did you mean chat?", "must be above 0"),
    ),
    Case(
        "two SLAs of one name",
        ("find", "http://127.0.0.1:1", "--sla", "a: p99_ttft_ms<=2", "--sla", "a: p90_ttft_ms<=2"),
        2,
        ("two SLAs are named 'a'",),
    ),
    # ---- contradictions
    Case(
        "min above max",
        ("find", "http://127.0.0.1:1", "--sla", "p90_ttft_ms<=200", "--min", "9", "--max", "3"),
        2,
        ("min 9 is above max 3",),
    ),
    Case(
        "loads and min",
        ("find", "http://127.0.0.1:1", "--sla", "p90_ttft_ms<=200", "--loads", "1,2", "--min", "3"),
        2,
        ("min does nothing beside loads", "remove one"),
    ),
    Case(
        "loads and what only a search has",
        (
            *("find", "http://127.0.0.1:1", "--sla", "p90_ttft_ms<=1e999", "--loads", "1,2", "--precision", "5%"),
            *("--max-trials", "3", "--sustain", "1m"),
        ),
        2,
        *(("finite number", *(f"{key} does nothing beside loads" for key in ("precision", "max_trials", "sustain"))),),
    ),
    Case(
        "half a user",
        ("find", "http://127.0.0.1:1", "--sla", "p90_ttft_ms<=200", "--by", "concurrency", "--loads", "1.5"),
        2,
        ("whole numbers",),
    ),
    Case("csv and JSON", ("show", ".", "--requests", "0001", "--json"), 2, ("--requests", "leave out")),
    Case(
        "no load workers",
        ("find", "http://127.0.0.1:1", "--sla", "p90_ttft_ms<=200", "--load-workers", "0"),
        2,
        ("load_workers", "above 0"),
    ),
    # ---- addresses, headers, keys
    Case(
        "no URL", ("find", "ftp://127.0.0.1", "--sla", "p90_ttft_ms<=200"), 2, ("ftp://127.0.0.1", "http://HOST:PORT")
    ),
    Case(
        "credentials in the URL",
        ("find", "http://me:pw-1@127.0.0.1:1", "--sla", "p90_ttft_ms<=200"),
        2,
        ("'http://***@127.0.0.1:1' holds credentials", "--header or --api-key-env"),
    ),
    Case(
        "a key that is not set",
        ("find", "http://127.0.0.1:1", "--sla", "p90_ttft_ms<=200", "--api-key-env", "NO_SUCH_KEY"),
        2,
        ("NO_SUCH_KEY is not set", "export NO_SUCH_KEY"),
    ),
    Case(
        "a header without a colon",
        ("find", "http://127.0.0.1:1", "--sla", "p90_ttft_ms<=200", "--header", "X-Team"),
        2,
        ("--header 'X-Team'", "NAME:VALUE"),
    ),
    # ---- files
    Case("no file", ("run", "missing.toml"), 2, ("cannot read missing.toml", "check the name")),
    Case("no TOML", ("run", "experiment.toml"), 2, ("experiment.toml is no TOML", "line 1"), "server = vllm\n"),
    Case(
        "unknown keys",
        ("run", "experiment.toml"),
        2,
        ("experiment.toml: 3 problems", "line 3", "did you mean command?", "line 16", "did you mean max_trials?"),
        GOOD.replace("command", "comand") + "max_trails = 3\n",
    ),
    *(
        Case(
            f"what only a launch would show, by {command}",
            (command, "experiment.toml"),
            2,
            (
                "3 problems",
                "line 3: [server] the command does not say",
                "line 9: ",
                "cannot be imported",
                "max_trials?",
            ),
            GOOD.replace(" --port {port}", "").replace("random = { in = 16, out = 8 }", BENCH) + "max_trails = 3\n",
        )
        for command in ("run", "plan")
    ),
    Case("no such program", ("run", "experiment.toml"), 1, NO_ENGINE, GOOD.replace("redline", "no-such-engine")),
    Case(
        "no such benchmark command",
        ("run", "experiment.toml"),
        1,
        ("cannot start 'no-such-bench'", "install it"),
        GOOD.replace("random = { in = 16, out = 8 }", BENCH.replace("nope:fn", "vllm")),
    ),
    Case(
        "unknown section",
        ("plan", "experiment.toml"),
        2,
        ("did you mean server?",),
        GOOD.replace("[server]", "[servr]"),
    ),
    Case(
        "unknown placeholder",
        ("run", "experiment.toml"),
        2,
        ("unknown placeholder {prot}", "port"),
        GOOD.replace("{port}", "{prot}"),
    ),
    Case(
        "a bad option beside a good file",
        ("run", "experiment.toml", "--precision", "200%"),
        2,
        ("--precision", "between 0% and 100%"),
        GOOD,
    ),
    Case(
        "a variable of env that is not set",
        ("run", "experiment.toml"),
        2,
        ("NO_SUCH_KEY is not set", "export NO_SUCH_KEY"),
        GOOD.replace("ready_", 'env = { TOKEN = "${NO_SUCH_KEY}" }\nready_'),
    ),
    Case("no experiment to show", ("show", "."), 2, (". holds no experiment", "redline find")),
    Case("nothing to report on", ("report", "missing"), 2, ("missing is not there", "redline find")),
    Case("no such profile", ("sim-server", "--profile", "dmo"), 2, ("'dmo'", "did you mean demo?")),
    # ---- nobody there
    Case(
        "a URL that does not answer",
        ("find", "http://127.0.0.1:1", "--sla", "p90_ttft_ms<=200"),
        1,
        ("http://127.0.0.1:1", "does not answer", "start the server, or correct the URL"),
    ),
]


@pytest.mark.parametrize("case", OFFLINE, ids=lambda case: case.name)
def test_what_can_be_seen_before_anything_starts_writes_nothing(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if case.file:
        (tmp_path / "experiment.toml").write_text(case.file)
    before = sorted(tmp_path.iterdir())

    code, out, err = redline_here(case.argv, capsys)

    assert case.code == code, err
    assert out == ""
    _is_one_paragraph(err, case.words)
    assert before == sorted(tmp_path.iterdir())


def _is_one_paragraph(text: str, words: tuple[str, ...]) -> None:
    message = text[text.index("redline: ") :].strip()
    assert "Traceback" not in text
    assert "bug in Redline" not in text
    assert "\n\n" not in message
    assert [] == [word for word in words if word not in message], message


# ---- a server that runs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sim() -> Iterator[SimServer]:
    with SimServer() as server:
        yield server


FIND = ("--sla", "p90_ttft_ms<=500", "--workload", "random:in=16,out=8", "--loads", "100", "--json", "-q")
BRIEF = ("--max-requests", "150")


def test_a_model_that_is_not_served_is_named_with_those_that_are(
    sim: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    code, out, err = redline_here(("find", sim.url, *FIND, "--model", "llama"), capsys)

    assert code == 1
    _is_one_paragraph(err, ("model 'llama' is not served", sim.url, "it serves simulated", "--model"))
    assert out == ""
    assert [] == list(tmp_path.iterdir())


def test_a_workload_too_long_for_the_model_is_a_mistake_and_leaves_nothing_behind(
    sim: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    code, out, err = redline_here(("find", sim.url, *FIND[:2], "--workload", "random:in=9000,out=8"), capsys)

    assert code == 2
    assert out == ""
    _is_one_paragraph(err, ("asks for 9008 tokens", "takes 4096", "shorten the workload"))
    assert [] == list(tmp_path.iterdir())


def test_what_was_measured_beside_a_workload_that_is_too_long_is_answered(
    sim: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    long = "[workload.long]\nrandom = { in = 9000, out = 8 }\n\n[sla]"
    server = f'url = "{sim.url}"'
    text = GOOD.replace(f'command = "{SIM}"\nready_timeout_s = 20\nstop_grace_s = 5', server).replace("[sla]", long)
    (tmp_path / "experiment.toml").write_text(text)

    code, out, _ = redline_here(("run", "experiment.toml", "--json"), capsys)

    short, too_long = json.loads(out)["answers"]
    assert 1 == code
    assert (1, 0) == (short["trials"], too_long["trials"])
    assert "takes 4096" in too_long["error"]


def test_a_wrong_path_in_the_url_is_said_to_be_one(
    sim: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    code, _, err = redline_here(("find", sim.url + "/foo", *FIND), capsys)

    assert code == 1
    _is_one_paragraph(err, (f"{sim.url}/foo/v1/models answers 404", "correct the URL", "--model"))
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"key": "secret"}, ("it wants a key", "--api-key-env")),
        ({"redirect": "http://127.0.0.1:9/v1"}, ("redirects to http://127.0.0.1:9/v1", "give that URL")),
        ({"models": []}, ("names no model", "--model")),
    ],
    ids=["key", "redirect", "no model"],
)
def test_a_server_that_does_not_let_us_in_says_how(
    behaviour: dict[str, object],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with tiny_server() as tiny:
        for name, value in behaviour.items():
            setattr(tiny.behaviour, name, value)

        code, _, err = redline_here(("find", tiny.url, *FIND), capsys)

    assert code == 1
    _is_one_paragraph(err, words)
    assert [] == list(tmp_path.iterdir())


def test_a_server_that_rejects_half_of_all_requests_ends_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with SimServer("--faults.reject-every", "2") as server:
        search = ("--sla", "p90_ttft_ms<=500", "--workload", "random:in=16,out=8", "--min", "20", "--json", "-q")

        code, out, err = redline_here(("find", server.url, *search), capsys)

    (answer,) = json.loads(out)["answers"]
    assert code == 1
    assert "Traceback" not in err
    assert answer["capacity"] is None
    assert "429" in answer["error"]
    assert "simulated rejection: the server is full" in answer["error"]


def test_a_busy_server_is_a_warning_in_the_answer(
    sim: SimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with sim.busy(tokens=300):
        code, out, err = redline_here(("find", sim.url, *FIND, *BRIEF), capsys)

    (answer,) = json.loads(out)["answers"]
    assert code in (0, 5), err  # 5: this machine may be too busy itself
    assert any("the server was busy before the first trial" in warning for warning in answer["warnings"])


# ---- a server that is launched ---------------------------------------------------------------------------------------


def _launching(command: str, **settings: object) -> str:
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    return GOOD.replace(f'"{SIM}"', json.dumps(command)).replace("[workload", f"{lines}\n[workload", 1)


def test_what_this_machine_lacks_is_a_warning_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = 'env = { TOKEN = "${NO_SUCH_KEY}" }\nready_'
    (tmp_path / "experiment.toml").write_text(_launching("no-such-engine --port {port}").replace("ready_", settings))

    code, out, _ = redline_here(("plan", "experiment.toml"), capsys)

    assert 0 == code
    assert "warning: environment variable NO_SUCH_KEY is not set" in out
    assert "warning: cannot start 'no-such-engine'" in out


def _port_in_use(sim: SimServer) -> str:
    return _launching(f"redline sim-server --port {sim.port}")


def _exits_at_once(sim: SimServer) -> str:
    return _launching(f"{sys.executable} -c \"print('no GPU found'); raise SystemExit(3)\" --port {{port}}")


def _never_ready(sim: SimServer) -> str:
    return _launching(SIM + " --faults.never-ready true").replace("ready_timeout_s = 20", "ready_timeout_s = 2")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (_port_in_use, ("is already in use by pid", "stop it, or choose another port")),
        (_exits_at_once, ("exited with code 3", "no GPU found")),
        (_never_ready, ("not ready after 2 s", "503")),
    ],
)
def test_a_configuration_that_does_not_start_is_an_answer_that_says_why(
    file: Callable[[SimServer], str],
    words: tuple[str, ...],
    sim: SimServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.toml").write_text(file(sim))

    code, out, err = redline_here(("run", "experiment.toml", "--json"), capsys)

    (answer,) = json.loads(out)["answers"]
    assert code == 1
    assert "Traceback" not in err + answer["error"]
    assert "not_started" == answer["evidence"]
    assert [] == [word for word in words if word not in answer["error"]], answer["error"]
    assert sim.answers()


# ---- where it is to be written ---------------------------------------------------------------------------------------


def test_a_directory_of_another_experiment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.toml").write_text(_launching("false one --port {port}"))
    (tmp_path / "two.toml").write_text(_launching("false two --port {port}"))
    redline_here(("run", "one.toml", "--out", "kept"), capsys)
    before = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}

    code, out, err = redline_here(("run", "two.toml", "--out", "kept"), capsys)

    assert code == 2
    assert out == ""
    _is_one_paragraph(err, ("kept holds another experiment", "--out DIR", "--again"))
    assert before == {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("where", "code", "words"),
    [
        ("notes", 2, ("notes holds other files (todo.txt)", "--out")),
        ("notes/todo.txt", 2, ("notes/todo.txt is no directory", "--out")),
        ("notes/todo.txt/deeper", 1, ("cannot write", "notes/todo.txt", "Not a directory")),
        ("/proc/redline", 1, ("cannot write", "/proc/redline")),  # where not even root may write
    ],
)
def test_a_place_that_cannot_be_written_is_named(
    where: str,
    code: int,
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.toml").write_text(GOOD)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk\n")

    ended, out, err = redline_here(("run", "experiment.toml", "--out", where), capsys)

    assert code == ended, err
    assert out == ""
    _is_one_paragraph(err, words)
    assert ["experiment.toml", "notes", "notes/todo.txt"] == sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")
    )


def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_was_finished(sim: SimServer, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk; it holds for root as well."""
    find = ("find", sim.url, *FIND, "--out", "kept")
    redline(*find, "--loads", "60", *BRIEF, cwd=tmp_path)
    loads = ("--loads", "60,400", "--max-requests", "900")  # the requests of the second trial need more room

    done = redline(*find, *loads, cwd=tmp_path, largest_file=20_000)

    assert done.returncode == 1
    assert "" == done.stdout
    _is_one_paragraph(done.stderr, ("cannot write", "kept", "what was finished before is kept", "--out"))
    files = [path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert [] == [name for name in files if name.endswith((".tmp", ".partial"))]
    lines = (tmp_path / "kept" / "trials.jsonl").read_text().splitlines()
    assert {60.0} == {json.loads(line)["probe"]["load"] for line in lines}
    assert "60 requests/s" in redline("show", "kept", cwd=tmp_path).stdout


def test_the_port_of_the_simulated_server_may_be_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()

        code, _, err = redline_here(("sim-server", "--port", str(holder.getsockname()[1])), capsys)

    assert code == 1
    _is_one_paragraph(err, ("cannot listen on 127.0.0.1", "choose another one"))
