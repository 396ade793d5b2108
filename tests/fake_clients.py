"""Stand-ins for `guidellm`, `aiperf` and `inference-perf`: they take what the examples say, and write what is read."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import fake_vllm
import fakes

SCRIPT = Path(__file__)


def install(folder: Path) -> None:
    for name in ("guidellm", "aiperf", "inference-perf"):
        fakes.install(folder, name, SCRIPT, name)


def pairs(text: str) -> dict[str, str]:
    """What an option such as kind=poisson,rate=4 says."""
    return dict(pair.split("=", 1) for pair in text.split(","))


def guidellm(argv: list[str]) -> None:
    options = argparse.ArgumentParser()
    for name in ("backend", "profile", "constraint", "data", "output", "seed"):
        options.add_argument(f"--{name}", type=pairs)
    said, _ = options.parse_known_args(argv)
    rate = float(said.profile["rate"])
    given = argparse.Namespace(
        base_url=said.backend["target"],
        model=said.backend["model"],
        num_prompts=int(said.constraint["count"]),
        request_rate=rate,
        seed=int(said.seed["value"]),
        random_input_len=int(said.data["prompt_tokens"]),
        random_output_len=int(said.data["output_tokens"]),
    )
    results, _ = fake_vllm.driven(given)
    benchmark = {
        "config": {"strategy": {"type_": "constant", "rate": rate}, "backend": {"model": given.model}},
        "scheduler_metrics": {"start_time": min(times(result)[0] for result in results)},
        "metrics": {"request_totals": {"total": len(results)}},
        "requests": {"successful": [_guidellms(result) for result in results], "errored": [], "incomplete": []},
    }
    Path(said.output["path"]).write_text(json.dumps({"metadata": {}, "benchmarks": [benchmark]}))


def _guidellms(result: Mapping[str, object]) -> dict[str, object]:
    sent, first, last = times(result)
    named = {
        "targeted_start": sent,
        "request_start": sent,
        "first_token_iteration": first,
        "last_token_iteration": last,
    }
    return {
        "info": {"timings": named},
        "prompt_tokens": result["input_lens"],
        "output_tokens": result["output_lens"],
    }


def aiperf(argv: list[str]) -> None:
    options = argparse.ArgumentParser()
    for name in ("url", "artifact-dir", "model"):
        options.add_argument(f"--{name}", *(("-m",) if name == "model" else ()))
    for name in ("request-count", "isl", "osl", "random-seed"):
        options.add_argument(f"--{name}", type=int)
    options.add_argument("--request-rate", type=float)
    said, _ = options.parse_known_args(argv)
    given = argparse.Namespace(
        base_url=said.url,
        model=said.model,
        num_prompts=said.request_count,
        request_rate=said.request_rate,
        seed=said.random_seed,
        random_input_len=said.isl,
        random_output_len=said.osl,
    )
    results, duration_s = fake_vllm.driven(given)
    totals = {
        "input_config": {"phases": [{"kind": "profiling", "type": "poisson", "rate": said.request_rate}]},
        "request_count": {"avg": len(results)},
        "benchmark_duration": {"avg": duration_s},
    }
    folder = Path(said.artifact_dir)
    folder.mkdir()
    (folder / "profile_export_aiperf.json").write_text(json.dumps(totals, indent=2))
    (folder / "profile_export.jsonl").write_text("\n".join(json.dumps(_aiperfs(result)) for result in results))


def _aiperfs(result: Mapping[str, object]) -> dict[str, object]:
    sent, first, last = times(result)
    metrics = {
        "request_latency": {"value": 1e3 * (last - sent), "unit": "ms"},
        "time_to_first_token": {"value": 1e3 * (first - sent), "unit": "ms"},
        "output_sequence_length": {"value": result["output_lens"]},
        "input_sequence_length": {"value": result["input_lens"]},
    }
    return {"metadata": {"request_start_ns": 1e9 * sent, "benchmark_phase": "profiling"}, "metrics": metrics}


def inference_perf(argv: list[str]) -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--config_file", type=Path)
    said = json.loads(options.parse_args(argv).config_file.read_text())  # JSON is YAML
    (stage,) = said["load"]["stages"]
    given = argparse.Namespace(
        base_url=said["server"]["base_url"],
        model=said["server"]["model_name"],
        num_prompts=int(stage["rate"] * stage["duration"]),
        request_rate=stage["rate"],
        seed=said["load"]["base_seed"],
        random_input_len=said["data"]["input_distribution"]["mean"],
        random_output_len=said["data"]["output_distribution"]["mean"],
    )
    results, _ = fake_vllm.driven(given)
    folder = Path(said["storage"]["local_storage"]["path"])
    folder.mkdir()
    totals = {"load_summary": {"requested_rate": stage["rate"]}}
    (folder / "stage_0_lifecycle_metrics.json").write_text(json.dumps(totals))
    assert said["report"]["request_lifecycle"]["per_request"]
    rows = [_inference_perfs(result) for result in results]
    (folder / "per_request_lifecycle_metrics.json").write_text(json.dumps(rows))


def _inference_perfs(result: Mapping[str, object]) -> dict[str, object]:
    sent, first, last = times(result)
    response = {"output_token_times": [first, last], "server_usage": {"completion_tokens": result["output_lens"]}}
    return {"start_time": sent, "end_time": last, "error": None, "info": {"response_metrics": response}}


def times(result: Mapping[str, object]) -> tuple[float, float, float]:
    """Of the send, the first and the last token."""
    sent, ttft, itls = result["start_times"], result["ttfts"], result["itls"]
    assert isinstance(sent, float)
    assert isinstance(ttft, float)
    assert isinstance(itls, list)
    return sent, sent + ttft, sent + ttft + sum(itls)


if __name__ == "__main__":
    clients = {"guidellm": guidellm, "aiperf": aiperf, "inference-perf": inference_perf}
    clients[sys.argv[1]](sys.argv[2:])
