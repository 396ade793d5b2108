"""The main job on the simulated server, whose true capacity is known."""

from __future__ import annotations

import json
from pathlib import Path

from redline import api
from redline.codec import answers_document
from redline.console import Console
from redline.events import Noted
from redline.model import Answer, Experiment, Workload
from redline.simulate.profiles import load_profile
from redline.simulate.truth import Truth, true_capacity
from redline.wording import number

EXPERIMENT = Path(__file__).with_name("demo.toml")
DIRECTORY = Path("redline-demo")
_TRUTH = "true capacity"


def run(directory: Path | None, as_json: bool, again: bool, console: Console) -> int:
    """Search each configuration, then say how far the answers are from the truth; running it again continues."""
    prepared = api.prepare_run(EXPERIMENT, api.Place(out=directory or DIRECTORY, again=again))
    with console:
        console.begin(prepared.experiment)
        result = api.carry_out(prepared, console.on_event)
        console.on_event(Noted(text="working out the true capacities from long simulated runs"))
        truths = true_capacities(prepared.experiment, result.answers)
    if as_json:
        known = [{"true_capacity": truth.capacity} for truth in truths]
        print(json.dumps(answers_document(result.directory, result.answers, known), indent=2, allow_nan=False))  # noqa: T201 - the answer
        return result.exit_code
    console.answers(
        result.answers,
        columns={
            _TRUTH: [f"{number(truth.capacity)} ±{100 * truth.error:.1g} %" for truth in truths],
            "in the interval": [held(answer, truth) for answer, truth in zip(result.answers, truths, strict=True)],
        },
    )
    return result.exit_code


def true_capacities(experiment: Experiment, answers: tuple[Answer, ...]) -> list[Truth]:
    """For each answer, what its configuration of the simulated server really carries."""
    servers = {config.name: config for config in experiment.servers}
    workloads = {w.name: w for w in experiment.workloads if isinstance(w, Workload)}
    slas = {sla.name: sla for sla in experiment.slas}
    return [
        true_capacity(
            load_profile("demo", servers[answer.server].parameters),
            workloads[answer.workload],
            slas[answer.sla],
            answer.variable,
        )
        for answer in answers
    ]


def held(answer: Answer, truth: Truth) -> str:
    """Does the interval hold the truth?"""
    if answer.low is None or answer.high is None:
        return "no interval"
    return "yes" if answer.low <= truth.capacity <= answer.high else "no"
