"""The commands of a sweep as words: what they name, and what the sweep adds to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from redline.experiment.commands import option_value
from redline.servesla.parameters import VARIABLES, BadValueError, Record, applied
from redline.servesla.targets import Target, percentile_of
from redline.sla import percentile_word

DEFAULT_PROMPTS = 1000  # of `vllm bench serve`
_BRACES = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")


def is_vllm(command: Sequence[str]) -> bool:
    """Is it vLLM's own server, whose caches can be reset?"""
    return PurePath(command[0]).name == "vllm" or "vllm.entrypoints.openai.api_server" in command


def is_vllm_bench(command: Sequence[str]) -> bool:
    """Does it take the options of `vllm bench serve`?"""
    return any(list(command[i : i + 2]) == ["bench", "serve"] for i in range(len(command))) and any(
        PurePath(word).name == "vllm" or word.startswith("vllm.") for word in command
    )


def prompts_of(command: Sequence[str]) -> int | None:
    """How many requests a run makes; None where the command does not say."""
    text = option_value(command, ("--num-prompts", "--num_prompts"))
    if text is not None and text.isdecimal() and int(text) > 0:
        return int(text)
    return DEFAULT_PROMPTS if is_vllm_bench(command) and text is None else None


def address_of(command: Sequence[str]) -> tuple[str, int]:
    """Where a serve command listens, as vLLM's sweep understands it: localhost and 8000 unless it says else."""
    host = option_value(command, ("--host",)) or "localhost"
    port = option_value(command, ("--port", "-p")) or "8000"
    if not port.isdecimal():
        raise BadValueError(f"--serve-cmd: {port} is no port")
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host), int(port)


def bench_command(command: Sequence[str], record: Record, variable: str) -> tuple[str, ...]:
    """The benchmark of a pair, with a placeholder where the search puts the load; the user's own braces stay braces."""
    literal = [_BRACES.sub(r"{{\1}}", word) for word in command]
    return applied(applied(literal, record), {variable: f"{{{VARIABLES[variable]}}}"})


def stored_command(command: Sequence[str]) -> tuple[str, ...]:
    """The same as an experiment's file keeps it: with a place for the result."""
    return (*command, *_result_options(command, "{result}"))


def run_command(command: Sequence[str], folder: str, file: str, percentiles: Sequence[str]) -> tuple[str, ...]:
    """One run of a benchmark: its result goes to `file` in `folder`."""
    words = applied(command, {"metric_percentiles": ",".join(percentiles)}) if percentiles else tuple(command)
    return (*words, *_result_options(command, file, folder))


def _result_options(command: Sequence[str], file: str, folder: str = "") -> list[str]:
    """What vLLM's sweep appended; every request too, where the command is known to be able to save it."""
    place = ["--result-dir", folder] if folder else []
    detailed = ["--save-detailed"] if is_vllm_bench(command) and not saves_details(command) else []
    return ["--percentile-metrics", "ttft,tpot,itl,e2el", "--save-result", *detailed, *place, "--result-filename", file]


def saves_details(command: Sequence[str]) -> bool:
    """Does the user's own command keep every request?"""
    return "--save-detailed" in command or "--save_detailed" in command


def percentiles_for(command: Sequence[str], targets: Iterable[Target]) -> tuple[str, ...]:
    """What --metric-percentiles must be for these targets; empty where the command reports them already."""
    if not is_vllm_bench(command):
        return ()
    given = option_value(command, ("--metric-percentiles", "--metric_percentiles"))
    there = (given or "99").split(",")
    named = (percentile_of(bound.metric) for target in targets for bound in target.bounds)
    missing = {word for word in named if word} - {percentile_word(_value(text)) for text in there}
    return tuple(sorted({*there, *missing}, key=_value)) if missing else ()


def _value(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadValueError(f"--bench-cmd: --metric-percentiles {text!r} is no number") from None
