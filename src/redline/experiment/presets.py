"""Workloads by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redline.model import Lengths, Workload


def _preset(name: str, prompt: tuple[float, float, int], output: tuple[float, float, int]) -> Workload:
    (p_mean, p_cv, p_high), (o_mean, o_cv, o_high) = prompt, output
    return Workload(
        name=name,
        prompt=Lengths(mean=p_mean, cv=p_cv, low=8, high=p_high),
        output=Lengths(mean=o_mean, cv=o_cv, low=2, high=o_high),
    )


# Chosen, not measured: round figures for the shape of each use, so that two people who say "rag" mean the same load.
# How far they are from what others published: PUBLISHED, and docs/reference/workloads.md.
# Your own traffic differs; its mean lengths in `random = { in = ..., out = ..., cv = ... }` are the better question.
PRESETS: Mapping[str, Workload] = {
    preset.name: preset
    for preset in (
        _preset("chat", (512, 0.8, 2_048), (256, 0.8, 1_024)),
        _preset("rag", (4_096, 0.3, 8_192), (256, 0.6, 1_024)),  # retrieved passages fill the prompt
        _preset("code", (2_048, 0.8, 8_192), (64, 1.0, 512)),  # completion: much context, a few lines back
        _preset("summarize", (6_144, 0.5, 16_384), (256, 0.4, 1_024)),
        _preset("reasoning", (512, 0.8, 2_048), (4_096, 0.6, 16_384)),  # long thinking before the answer
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a trace that others published says of one use."""

    preset: str
    name: str
    url: str
    prompt: Lengths  # of its file, by mean, coefficient of variation and extremes
    output: Lengths


# Worked out from the files at these addresses (Azure's as of commit 7909210, Mooncake's as of 3cca71d).
_AZURE = "https://github.com/Azure/AzurePublicDataset/blob/master/data/AzureLLMInferenceTrace_{}.csv"
_MOONCAKE = "https://github.com/kvcache-ai/Mooncake/blob/main/FAST25-release/traces/conversation_trace.jsonl"
PUBLISHED = (
    Published(
        preset="chat",
        name="Azure LLM inference 2023, conversation (Splitwise, ISCA 2024)",
        url=_AZURE.format("conv"),
        prompt=Lengths(mean=1_155, cv=0.96, low=2, high=14_050),
        output=Lengths(mean=211, cv=0.77, low=7, high=1_000),
    ),
    Published(
        preset="chat",
        name="Mooncake, conversation (FAST 2025; the system: arXiv 2407.00079)",
        url=_MOONCAKE,
        prompt=Lengths(mean=12_035, cv=1.31, low=891, high=126_195),
        output=Lengths(mean=343, cv=0.73, low=1, high=2_000),
    ),
    Published(
        preset="code",
        name="Azure LLM inference 2023, code (Splitwise, ISCA 2024)",
        url=_AZURE.format("code"),
        prompt=Lengths(mean=2_048, cv=0.96, low=3, high=7_437),
        output=Lengths(mean=28, cv=2.15, low=6, high=1_899),
    ),
)
