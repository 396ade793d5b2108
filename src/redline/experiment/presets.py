"""Workloads by name."""

from __future__ import annotations

from collections.abc import Mapping

from redline.model import Lengths, Workload


def _preset(name: str, prompt: tuple[float, float, int], output: tuple[float, float, int]) -> Workload:
    (p_mean, p_cv, p_high), (o_mean, o_cv, o_high) = prompt, output
    return Workload(
        name=name,
        prompt=Lengths(mean=p_mean, cv=p_cv, low=8, high=p_high),
        output=Lengths(mean=o_mean, cv=o_cv, low=2, high=o_high),
    )


# Chosen, not measured: round figures for the shape of each use, so that two people who say "rag" mean the same load.
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
