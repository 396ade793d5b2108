"""External benchmark commands as workloads: do they take the load that is searched, and nothing that nobody gives?"""

from __future__ import annotations

from redline.experiment.commands import placeholders
from redline.experiment.settings import Path, Problem
from redline.model import CommandWorkload, Variable
from redline.units import nearest

READERS = ("vllm", "sglang", "guidellm", "aiperf", "inference-perf")
PLACEHOLDERS = ("url", "model", "rate", "concurrency", "requests", "seed", "result")  # of an external command


def check_command(workload: CommandWorkload, by: Variable, path: Path, problems: list[Problem]) -> None:
    """Does an external command take the load that is searched, and nothing that nobody gives?"""
    names = placeholders(workload.command)
    other = "concurrency" if by == "rate" else "rate"

    def problem(key: str, text: str) -> None:
        problems.append(Problem(path=(*path, key), text=text))

    if unknown := [name for name in names if name not in PLACEHOLDERS]:
        hints = ", ".join(f"{{{name}}} ({nearest(name, PLACEHOLDERS)})" for name in unknown)
        problem("command", f"unknown placeholder {hints}")
    if other in names:
        problem("command", f"{{{other}}} has no value when {by} is searched: remove it, or search by {other}")
    if by not in names:
        problem("command", f"the command must take the load that is searched: put {{{by}}} in it")
    if "result" not in names:
        problem("command", "the command must leave its result file where it is told: put {result} in it")
    reader = workload.reader
    if ":" not in reader and reader not in READERS:
        why = f"is unknown; {nearest(reader, READERS)}"
        problem("reader", f'reader "{reader}" {why}; your own is "package.module:function"')
