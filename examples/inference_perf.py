"""Run `inference-perf` once: it takes its load from a file, and a duration in whole seconds for a number of requests.

python3 inference_perf.py URL MODEL RATE REQUESTS SEED FOLDER
"""

import json
import math
import subprocess
import sys
from pathlib import Path


def config(url: str, model: str, rate: float, requests: int, seed: int, folder: str) -> dict[str, object]:
    """One stage at this rate, for as long as so many requests take."""
    return {
        "api": {"type": "completion", "streaming": True},
        "server": {"type": "vllm", "base_url": url, "model_name": model, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": "models/tiny-llama"},
        "data": {
            "type": "random",
            "input_distribution": {"type": "fixed", "min": 32, "max": 32, "mean": 32},
            "output_distribution": {"type": "fixed", "min": 16, "max": 16, "mean": 16},
        },
        "load": {
            "type": "poisson",
            "stages": [{"rate": rate, "duration": math.ceil(requests / rate)}],
            "num_workers": 1,
            "base_seed": seed,
        },
        "report": {
            "request_lifecycle": {
                "per_request": True,
                "per_request_fields": {"request": False, "response": False, "response_chunks": False},
                "use_server_output_tokens": True,
            }
        },
        "storage": {"local_storage": {"path": folder}},
    }


def main() -> int:
    url, model, rate, requests, seed, folder = sys.argv[1:]
    file = Path(f"{folder}.yml")
    file.write_text(json.dumps(config(url, model, float(rate), int(requests), int(seed), folder), indent=2))
    return subprocess.run(["inference-perf", "--config_file", str(file)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
