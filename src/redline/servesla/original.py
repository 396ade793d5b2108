"""A sweep by the search that vLLM's made: --search legacy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redline import process
from redline.bench.command import next_folder
from redline.experiment.commands import fill
from redline.model import RedlineError, ServerConfig, UsageError
from redline.server import Server, launch
from redline.servesla import legacy
from redline.servesla.asked import Asked, commands_of
from redline.servesla.parameters import VARIABLES, Pair, Record, applied, record_text
from redline.servesla.runs import execute
from redline.servesla.sweep import Voice, after_bench
from redline.servesla.targets import Target
from redline.servesla.tree import Point, Run, Tree, foreign
from redline.servesla.words import address_of, is_vllm, percentiles_for, prompts_of, run_command, saves_details


def reproduce(asked: Asked, voice: Voice) -> int:
    """Search every pair and target as vLLM's sweep did; the exit code: 1 where something broke, else 0.

    The tree is all that it keeps. Its answers are the original's, with its faults: see the module `legacy`.
    """
    if asked.flags.resume is None and asked.folder.exists():
        raise UsageError(f"{asked.folder} is there already; add --resume to go on with it, or choose another name")
    for note in asked.notes:
        voice.remark(note)
    tree = Tree(folder=asked.folder, variable=asked.variable)
    points, ignored = tree.read(asked.pairs)
    for note in ignored:
        voice.remark(note)
    broken = False
    with process.interruptible():
        for serve in asked.serves:
            pairs = [pair for pair in asked.pairs if record_text(pair.serve) == record_text(serve)]
            with ExitStack() as stack:
                server = _Lazy(asked=asked, serve=serve, voice=voice, stack=stack)
                for pair in pairs:
                    known = _known(asked, pair, points[pair.folder], voice)
                    for target in asked.targets:
                        broken |= not _search(asked, (pair, target), known, tree, server)
    return int(broken)


def _known(asked: Asked, pair: Pair, points: Sequence[Point], voice: Voice) -> dict[int, Sequence[Run]]:
    """The runs at whole loads that this pair's command can have made; the others are named."""
    prompts = prompts_of(commands_of(asked, pair)[1])
    known: dict[int, Sequence[Run]] = {}
    for point in points:
        why = foreign(point, pair, asked.variable, {"num_prompts": prompts} if prompts else {})
        if not why and not float(point.load).is_integer():
            why = "this search knows whole loads only"
        if why:
            voice.remark(f"{point.folder} is not used: {why}")
        else:
            known[int(point.load)] = point.runs
    return known


def _search(
    asked: Asked, what: tuple[Pair, Target], known: dict[int, Sequence[Run]], tree: Tree, server: _Lazy
) -> bool:
    """One target of one pair; False where a measurement broke. `known` gets what is measured."""
    (pair, target), say = what, server.voice.say
    say("[SLA START]")
    if pair.folder:
        say(pair.folder)
    say(f"SLA criteria: {target.words}")
    margins = {load: target.margin(runs) for load, runs in known.items()}
    try:
        while (load := legacy.next_load(margins)) is not None:
            if load in margins:
                server.voice.remark(f"{load} would be tried again, from its file, for ever: the search stops here")
                break
            say(f"Testing {asked.variable}: {load} req/s")
            runs = _measure(asked, pair, load, tree, server)
            tree.finish(pair, load, runs)
            known[load] = runs
            margins[load] = target.margin(runs)
            met = "met" if margins[load] <= 0 else "not met"
            say(f"SLA criteria are {met}. (margin={margins[load]:.2f})")
    except UsageError:
        raise
    except RedlineError as error:
        say(f"No result: {error}")
        say("[SLA END]")
        return False
    say(f"Maximum {asked.variable} for SLA: {legacy.answer(margins)} req/s.")
    if not any(margin <= 0 for margin in margins.values()):
        server.voice.remark("no load met the SLA: 1 is what this search says then")
    say("[SLA END]")
    tree.write_target(pair, target)
    return True


def _measure(asked: Asked, pair: Pair, load: int, tree: Tree, server: _Lazy) -> list[Run]:
    up = server.get()
    bench = commands_of(asked, pair)[1]
    logs = asked.own / "logs" / (pair.folder or "bench")
    runs: list[Run] = []
    for number in range(asked.flags.num_runs):
        folder = next_folder(logs.resolve())
        argv = run_command(
            fill(bench, {VARIABLES[asked.variable]: str(load)}),
            str(folder),
            "result.json",
            percentiles_for(bench, asked.targets),
        )
        if why := execute(argv, folder / "command.log", asked.flags.bench_timeout):
            raise RedlineError(
                f"{why}; last lines of {folder / 'command.log'}:\n{process.tail(folder / 'command.log')}"
            )
        data = _flat(folder / "result.json")
        runs.append(tree.run_object(data, pair, load, number, detailed=saves_details(bench)))
        if asked.after_bench:
            after_bench(asked.after_bench, asked.own / "logs" / "after-bench.log")
        elif is_vllm(asked.serve):
            up.reset_caches()
    return runs


def _flat(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RedlineError(f"{path}: the benchmark left no whole JSON ({error})") from error
    if not isinstance(data, dict):
        raise RedlineError(f"{path}: the benchmark left a {type(data).__name__}, not an object")
    return data


@dataclass(kw_only=True, slots=True)
class _Lazy:
    """The server of one serve record: started when something is to be measured, and not before."""

    asked: Asked
    serve: Record
    voice: Voice
    stack: ExitStack
    up: Server | None = field(default=None)

    def get(self) -> Server:
        if self.up is None:
            self.up = self.stack.enter_context(self._started(self.voice.remark))
        return self.up

    @contextmanager
    def _started(self, remark: Callable[[str], None]) -> Iterator[Server]:
        command = applied(self.asked.serve, self.serve)
        host, port = address_of(command)
        config = ServerConfig(
            name=record_text(self.serve) or "server",
            command=command,
            url=f"http://{host}:{port}",
            env={"VLLM_SERVER_DEV_MODE": "1"},
            ready="/health",
            ready_timeout_s=self.asked.flags.server_ready_timeout,
        )
        remark(f"{config.name}: starting")
        with launch(config, self.asked.own / "logs", warn=remark) as server:
            yield server
