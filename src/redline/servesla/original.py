"""A sweep by the search that vLLM's made: --search legacy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from redline import process
from redline.api import stop_left_behind
from redline.bench.command import next_folder
from redline.events import Event, Noted
from redline.experiment.commands import fill
from redline.model import RedlineError, ServerConfig, UsageError
from redline.server import Server, launch
from redline.servesla import legacy
from redline.servesla.asked import Asked, commands_of
from redline.servesla.parameters import VARIABLES, BadValueError, Pair, Record, applied, record_text
from redline.servesla.runs import execute, limit_of
from redline.servesla.sweep import Voice, after_bench
from redline.servesla.targets import Target
from redline.servesla.tree import Point, Run, Tree, foreign
from redline.servesla.words import address_of, is_vllm, percentiles_for, prompts_of, run_command, saves_details
from redline.store import Held, hold


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
    configs = [_server(asked, serve) for serve in asked.serves]
    with process.interruptible(), hold(asked.own) as held:
        stop_left_behind(held, configs, partial(_tell, voice))
        for serve, config in zip(asked.serves, configs, strict=True):
            pairs = [pair for pair in asked.pairs if record_text(pair.serve) == record_text(serve)]
            with ExitStack() as stack:
                server = _Lazy(config=config, held=held, voice=voice, stack=stack)
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
    margins = _margins(target, known, server.voice)
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
    except RedlineError as error:
        if isinstance(error, UsageError) and not isinstance(error, BadValueError):
            raise
        say(f"No result: {error}")
        say("[SLA END]")
        server.stop_dead()
        return False
    say(f"Maximum {asked.variable} for SLA: {legacy.answer(margins)} req/s.")
    if not any(margin <= 0 for margin in margins.values()):
        server.voice.remark("no load met the SLA: 1 is what this search says then")
    say("[SLA END]")
    tree.write_target(pair, target)
    return True


def _margins(target: Target, known: Mapping[int, Sequence[Run]], voice: Voice) -> dict[int, float]:
    """The margin at each load of which the runs tell it."""
    margins = {}
    for load, runs in known.items():
        try:
            margins[load] = target.margin(runs)
        except BadValueError as error:
            voice.remark(f"what is known at {load} is not used: {error}")
    return margins


def _measure(asked: Asked, pair: Pair, load: int, tree: Tree, server: _Lazy) -> list[Run]:
    up = server.get()
    bench = commands_of(asked, pair)[1]
    logs = asked.own / "logs" / (pair.folder or "bench")
    limit_s = limit_of(asked.flags.bench_timeout, bench, VARIABLES[asked.variable], load)
    before, runs = len(tree.runs_at(pair, load)), list[Run]()
    for number in range(before, before + asked.flags.num_runs):
        folder = next_folder(logs.resolve())
        argv = run_command(
            fill(bench, {VARIABLES[asked.variable]: str(load)}),
            str(folder),
            "result.json",
            percentiles_for(bench, asked.targets),
        )
        if why := execute(argv, folder / "command.log", limit_s):
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


def _server(asked: Asked, serve: Record) -> ServerConfig:
    command = applied(asked.serve, serve)
    host, port = address_of(command)
    return ServerConfig(
        name=record_text(serve) or "server",
        command=command,
        url=f"http://{host}:{port}",
        env={"VLLM_SERVER_DEV_MODE": "1"},
        ready="/health",
        ready_timeout_s=asked.flags.server_ready_timeout,
    )


def _tell(voice: Voice, event: Event) -> None:
    if isinstance(event, Noted):
        voice.remark(event.text)


@dataclass(kw_only=True, slots=True)
class _Lazy:
    """The server of one serve record: started when something is to be measured, and not before."""

    config: ServerConfig
    held: Held
    voice: Voice
    stack: ExitStack
    up: Server | None = field(default=None)

    def get(self) -> Server:
        if self.up is None:
            self.voice.remark(f"{self.config.name}: starting")
            logs = self.held.directory / "logs"
            self.up = self.stack.enter_context(launch(self.config, logs, self.held.note, self.voice.remark))
        return self.up

    def stop_dead(self) -> None:
        """What is measured next gets a new one where this one died."""
        if self.up is not None and not self.up.alive():
            self.up = None
            self.stack.close()
