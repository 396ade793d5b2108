from argparse import Namespace

import pytest

import fake_sweep
from redline.servesla.targets import targets_of
from redline.servesla.words import (
    address_of,
    bench_command,
    is_vllm,
    is_vllm_bench,
    percentiles_for,
    prompts_of,
    run_command,
    stored_command,
)

BENCH = ("vllm", "bench", "serve")


@pytest.mark.parametrize(
    ("command", "address"),
    [
        ("vllm serve M", ("localhost", 8000)),
        ("vllm serve M --host 10.0.0.1 --port 9", ("10.0.0.1", 9)),
        ("vllm serve M -p 9 --host=0.0.0.0", ("127.0.0.1", 9)),
        ("vllm serve M --port=9 --host ::1", ("[::1]", 9)),
    ],
)
def test_the_address_is_that_of_the_serve_command(command: str, address: tuple[str, int]) -> None:
    assert address == address_of(command.split())


def test_the_result_options_are_appended_and_details_saved_where_the_client_can() -> None:
    appended = "--percentile-metrics ttft,tpot,itl,e2el --save-result"
    place = "--result-dir DIR --result-filename FILE"

    assert f"vllm bench serve {appended} --save-detailed {place}" == " ".join(run_command(BENCH, "DIR", "FILE", ()))
    assert f"my-bench {appended} {place}" == " ".join(run_command(("my-bench",), "DIR", "FILE", ()))
    own = (*BENCH, "--save-detailed")
    assert f"vllm bench serve --save-detailed {appended} {place}" == " ".join(run_command(own, "DIR", "FILE", ()))


@pytest.mark.parametrize(
    ("command", "sla", "percentiles"),
    [
        ("vllm bench serve", {"p99_ttft_ms": "<=1", "mean_e2el_ms": "<=1"}, ()),
        ("vllm bench serve", {"p90_ttft_ms": "<=1", "p99.9_e2el_ms": "<=1"}, ("90", "99", "99.9")),
        ("vllm bench serve", {"p99.99999_e2el_ms": "<=1", "p99.0_ttft_ms": "<=1"}, ("99", "99.99999")),
        ("vllm bench serve --metric-percentiles 99.99999", {"p99.99999_e2el_ms": "<=1"}, ()),
        ("vllm bench serve --metric-percentiles 100", {"p99.99999_e2el_ms": "<=1"}, ("99.99999", "100")),
        ("vllm bench serve --metric-percentiles 25,90", {"p90_ttft_ms": "<=1"}, ()),
        ("vllm bench serve --metric-percentiles=25", {"p90_ttft_ms": "<=1"}, ("25", "90")),
        ("my-bench", {"p90_ttft_ms": "<=1"}, ()),
    ],
)
def test_the_percentiles_that_the_sla_names_are_asked_for(
    command: str, sla: dict[str, object], percentiles: tuple[str, ...]
) -> None:
    assert percentiles == percentiles_for(command.split(), targets_of([sla]))


@pytest.mark.parametrize(
    "metric", ["p99.99999_e2el_ms", "p99.0_ttft_ms", "p90_itl_ms", "p99.9_tpot_ms", "mean_e2el_ms"]
)
def test_the_percentile_that_the_sla_names_is_read_from_the_result_of_its_command(metric: str) -> None:
    targets = targets_of([{metric: "<=0"}])
    words = ",".join(percentiles_for(BENCH, targets)) or "99"
    asked = {"slots": 4, "fail_share": 0.0, "save_detailed": False, "max_concurrency": None, "result_dir": "run-1"}

    data = fake_sweep.result(Namespace(request_rate=20.0, num_prompts=200, metric_percentiles=words, **asked))

    assert 1 < targets[0].margin([data]) < 1000


def test_percentiles_of_the_users_own_command_are_kept_in_place() -> None:
    words = run_command((*BENCH, "--metric-percentiles", "25", "--seed", "1"), "D", "F", ("25", "90"))

    assert "vllm bench serve --metric-percentiles 25,90 --seed 1" == " ".join(words[:7])


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("request_rate", "b --request-rate {rate} --data {{x}} --n 2"),
        ("max_concurrency", "b --request_rate 3 --data {{x}} --n 2 --max-concurrency {concurrency}"),
    ],
)
def test_the_load_takes_its_place_and_the_users_braces_stay(variable: str, words: str) -> None:
    command = bench_command(["b", "--request_rate", "3", "--data", "{x}", "--n", "1"], {"n": 2}, variable)

    assert words.split() == list(command)


def test_the_stored_command_has_a_place_for_its_result() -> None:
    assert "{result}" == stored_command(BENCH)[-1]


@pytest.mark.parametrize(
    ("command", "prompts"),
    [
        ("vllm bench serve", 1000),
        ("vllm bench serve --num-prompts 40", 40),
        ("my-bench --num_prompts=7", 7),
        ("my-bench", None),
    ],
)
def test_the_number_of_prompts_is_the_commands_own(command: str, prompts: int | None) -> None:
    assert prompts == prompts_of(command.split())


def test_vllm_is_told_from_other_commands() -> None:
    assert is_vllm(["/opt/bin/vllm", "serve"])
    assert not is_vllm(["python", "server.py"])
    assert is_vllm_bench(["/opt/bin/vllm", "bench", "serve"])
    assert not is_vllm_bench(["my-tool", "bench", "serve"])
