"""The flags of vLLM's sweep: their names, their defaults, and every error that its description names."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest

from driving import redline_here
from redline.cli.serve_sla import in_our_flags, serve_sla
from redline.model import UsageError
from redline.servesla.asked import Flags, asked_by
from redline.servesla.parameters import Pair

NEEDED = ("--serve-cmd", "vllm serve M", "--bench-cmd", "vllm bench serve", "--sla-params", "sla.json")
NOW = datetime(2025, 11, 24, 20, 7, 33)
SLA = [{"p99_ttft_ms": "<=200"}]


def parsed(*words: str) -> Mapping[str, object]:
    return serve_sla.make_context("serve-sla", [*NEEDED, *words]).params


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("serve_cmd", "vllm serve M"),
        ("bench_cmd", "vllm bench serve"),
        ("sla_params", Path("sla.json")),
        ("after_bench_cmd", None),
        ("show_stdout", False),
        ("server_ready_timeout", 300),
        ("serve_params", None),
        ("bench_params", None),
        ("link_vars", None),
        ("sla_variable", "request_rate"),
        ("output_dir", Path("results")),
        ("experiment_name", None),
        ("num_runs", 3),
        ("dry_run", False),
        ("resume", None),
    ],
)
def test_every_flag_of_vllms_sweep_is_there_with_its_default(name: str, default: object) -> None:
    assert default == parsed()[name]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--after-bench-cmd true", "after_bench_cmd", "true"),
        ("--show-stdout", "show_stdout", True),
        ("--server-ready-timeout 12", "server_ready_timeout", 12.0),
        ("--serve-params s.json", "serve_params", Path("s.json")),
        ("--bench-params b.json", "bench_params", Path("b.json")),
        ("--link-vars a=b,c=d", "link_vars", "a=b,c=d"),
        ("--sla-variable max_concurrency", "sla_variable", "max_concurrency"),
        ("--sla-variable request_rate", "sla_variable", "request_rate"),
        ("-o out", "output_dir", Path("out")),
        ("--output-dir out", "output_dir", Path("out")),
        ("-e mine", "experiment_name", "mine"),
        ("--experiment-name mine", "experiment_name", "mine"),
        ("--num-runs 1", "num_runs", 1),
        ("--dry-run", "dry_run", True),
        ("--resume", "resume", ""),
        ("--resume -e mine", "resume", ""),
        ("--resume 20251124_200733", "resume", "20251124_200733"),
        ("--server_ready_timeout=12", "server_ready_timeout", 12.0),  # as vLLM's parser takes it
        ("--num_runs 1", "num_runs", 1),
    ],
)
def test_every_flag_is_taken_as_vllms_sweep_took_it(words: str, name: str, value: object) -> None:
    assert value == parsed(*words.split())[name]


@pytest.mark.parametrize("missing", ["--serve-cmd", "--bench-cmd", "--sla-params"])
def test_a_flag_that_must_be_there_is_missed(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = NEEDED.index(missing)

    code, _, said = redline_here(["serve-sla", *NEEDED[:at], *NEEDED[at + 2 :]], capsys)

    assert 2 == code
    assert f"Missing option '{missing}'" in said


def flags(folder: Path, files: Mapping[str, object] | None = None, **given: object) -> Flags:
    """Flags with these files: text is written as it is, anything else as JSON."""
    paths = {}
    for name, content in {"sla_params": SLA, **(files or {})}.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(content if isinstance(content, str) else json.dumps(content))
    return Flags(**{"serve_cmd": "vllm serve M", "bench_cmd": "vllm bench serve", **paths, **given})  # type: ignore[arg-type]


def test_the_experiment_is_named_by_the_time(tmp_path: Path) -> None:
    assert "results/20251124_200733" == str(asked_by(flags(tmp_path), NOW).folder)
    assert "o/n" == str(asked_by(flags(tmp_path, output_dir=Path("o"), experiment_name="n"), NOW).folder)


def test_without_parameter_files_the_base_commands_are_the_only_pair(tmp_path: Path) -> None:
    assert (Pair(),) == asked_by(flags(tmp_path), NOW).pairs


def test_an_empty_parameter_file_makes_no_pair(tmp_path: Path) -> None:
    for name in ("serve_params", "bench_params"):
        assert () == asked_by(flags(tmp_path, {name: []}), NOW).pairs


TWICE = [{"_benchmark_name": "x", "a": 1}, {"_benchmark_name": "x", "a": 2}]
ERRORS = [
    ({"serve_params": "7"}, {}, TypeError, "--serve-params", "must be a list of objects"),
    ({"bench_params": '"text"'}, {}, TypeError, "--bench-params", "must be a list of objects"),
    ({"serve_params": [{"a": 1}, 5]}, {}, TypeError, "--serve-params", "item 2 must be an object"),
    ({"bench_params": {"fast": 5}}, {}, TypeError, "--bench-params", "item 1 must be an object"),
    ({"serve_params": TWICE}, {}, ValueError, "--serve-params", "_benchmark_name x is there twice"),
    ({"serve_params": '[{"a": 1'}, {}, ValueError, "--serve-params", "is no JSON"),
    ({"sla_params": {"p99_ttft_ms": "<=200"}}, {}, TypeError, "--sla-params", "must be a list of objects"),
    ({"sla_params": ["p99_ttft_ms<=200"]}, {}, TypeError, "--sla-params", "item 1 must be an object"),
    ({"sla_params": [{"p99_ttft_ms": "=200"}]}, {}, ValueError, "--sla-params", "operators <=, >=, <, >"),
    ({"bench_params": [{"request_rate": 4}]}, {}, ValueError, "--bench-params", "sets request_rate to 4"),
    ({"bench_params": [{"request-rate": 4}]}, {}, ValueError, "--bench-params", "sets request_rate to 4"),
    (
        {"bench_params": [{"max-concurrency": 4}]},
        {"sla_variable": "max_concurrency"},
        ValueError,
        "--bench-params",
        "sets max_concurrency to 4",
    ),
    ({}, {"link_vars": "a"}, ValueError, "--link-vars", "write serve_key=bench_key"),
    ({}, {"serve_cmd": "vllm 'serve"}, ValueError, "--serve-cmd", "check the quotes"),
    ({}, {"bench_cmd": ""}, ValueError, "--bench-cmd", "is empty; give the command"),
    ({}, {"serve_params": Path("gone.json")}, UsageError, "--serve-params", "No such file"),
]


@pytest.mark.parametrize(("files", "given", "kind", "flag", "says"), ERRORS)
def test_every_error_is_of_vllms_class_in_python_and_a_sentence_on_the_command_line(
    files: Mapping[str, object],
    given: Mapping[str, object],
    kind: type[Exception],
    flag: str,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = flags(tmp_path, files, output_dir=tmp_path / "out", **given)
    words = [
        word
        for name in ("serve_cmd", "bench_cmd", "sla_params", "serve_params", "bench_params", "link_vars", "output_dir")
        if (value := getattr(asked, name)) is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]

    code, out, said = redline_here(["serve-sla", *words, "--sla-variable", asked.sla_variable], capsys)

    assert (2, "") == (code, out)
    assert said.startswith(f"redline: {flag}")
    assert says in said
    assert 1 == len(said.splitlines())
    assert not (tmp_path / "out").exists()
    with pytest.raises(kind) as raised:
        asked_by(asked, NOW)
    assert isinstance(raised.value, UsageError)


def test_no_runs_are_a_value_error_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--num-runs must be at least 1"):
        asked_by(flags(tmp_path, num_runs=0), NOW)


def test_an_error_advises_in_our_flags_and_quotes_as_it_was_said() -> None:
    advice = in_our_flags("x is no directory; choose another place with --out")

    assert "x is no directory; choose another place with -e" == advice
    assert "it said: begin with --out" == in_our_flags("it said: begin with --out")
