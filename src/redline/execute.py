"""Jobs on this machine, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redline.lab import Lab
from redline.model import Answer, Emit, Experiment, Job, Trial
from redline.run import run_job


def run_jobs(
    jobs: Sequence[Job], history: Mapping[str, Sequence[Trial]], experiment: Experiment, lab: Lab, emit: Emit
) -> list[Answer]:
    """The answers in the order of the cases; a job that breaks answers so, and the next one starts."""
    return [answer for job in jobs for answer in run_job(job, history, experiment, lab, emit)]
