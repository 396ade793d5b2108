"""Loads measured by hand as tables, from the very results that are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console as Screen
from rich.console import Group, RenderableType
from rich.text import Text

from redline import wording
from redline.console.fitting import fitting
from redline.sla import LATENCIES

_SAVE = ("heads", "alike", "tokens/s", "time", "offered/s", "cells")


def benches(results: Sequence[Mapping[str, Any]], screen: Screen) -> RenderableType:
    """One load in full, or a row for each of several; then verdicts, and what is not plain."""
    rows = [{**_offered(result), **(_tails(result) if len(results) > 1 else {})} for result in results]
    parts: list[RenderableType] = [Text(""), *fitting(rows, screen, _SAVE)]
    if len(results) == 1:
        parts += [Text(""), *fitting(list(_latencies(results[0])), screen, ("heads",))]
        parts += _steady(results[0])
    parts.append(Text(f"seed {results[0]['redline']['seed']}: --seed draws the same requests again", "dim"))
    for result in results:
        about = f"{_load(result)}: " if len(results) > 1 else ""
        parts += [line for verdict in result["redline"]["verdicts"] for line in _verdict(verdict, about)]
        parts += [Text(f"{about}{text}") for text in _troubles(result)]
    warnings = dict.fromkeys(text for result in results for text in result["redline"]["warnings"])
    return Group(*parts, *(Text("warning: ", "yellow").append(text, "default") for text in warnings))


def _load(result: Mapping[str, Any]) -> str:
    return wording.load_text(result["redline"]["load"], result["redline"]["variable"])


def _offered(result: Mapping[str, Any]) -> dict[str, str]:
    cells = {
        "load": _load(result),
        "requests": f"{result['completed'] + result['failed']:,}",
        "failed": f"{result['failed']:,}",
        "time": wording.duration(result["duration"]),
        "offered/s": wording.number(result["redline"]["offered_per_s"] or 0.0),
        "requests/s": wording.number(result["request_throughput"]),
        "good/s": wording.number(result["request_goodput"] or 0.0),
        "output tokens/s": wording.number(result["output_throughput"]),
        "tokens/s": wording.number(result["total_token_throughput"]),
    }
    known = {"good/s": result["request_goodput"], "offered/s": result["redline"]["offered_per_s"]}
    return {name: cell for name, cell in cells.items() if known.get(name, 0.0) is not None}


def _tails(result: Mapping[str, Any]) -> dict[str, str]:
    """Medians, and the highest percentile that was asked for."""
    top = _percentiles(result)[-1:] or ["mean"]
    names = [f"{what}_{kind}_ms" for kind in ("ttft", "tpot") for what in ("median", *top)] + [f"{top[0]}_e2el_ms"]
    verdicts = {verdict["sla"]: str(verdict["verdict"]) for verdict in result["redline"]["verdicts"]}
    return {**{name: wording.quantity(name, result[name]) for name in names}, **verdicts}


def _percentiles(result: Mapping[str, Any]) -> list[str]:
    names = [key.removesuffix("_ttft_ms") for key in result if key.startswith("p") and key.endswith("_ttft_ms")]
    return sorted(names, key=lambda name: float(name[1:]))


def _latencies(result: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for kind in LATENCIES:
        known = ["mean", "median", "std", *(p for p in _percentiles(result) if p != "p50")]
        values = {f"{what}_ms": wording.quantity("_ms", result[f"{what}_{kind}_ms"]) for what in known}
        yield {"latency": kind.upper(), **values}


def _steady(result: Mapping[str, Any]) -> Iterator[Text]:
    """What the search would look at: without the warm-up, from the schedule, failed requests over every bound."""
    if (steady := result["redline"]["steady"]) is None:
        return
    names = [name for name in ("median_ttft_ms", "p99_ttft_ms", "p99_tpot_ms") if steady.get(name) is not None]
    values = ", ".join(f"{name} {wording.quantity(name, steady[name])}" for name in names)
    yield Text("")
    yield Text(f"steady part, {steady['from_s']:.0f} s to {steady['to_s']:.0f} s, from the schedule: {values}", "dim")


def _verdict(verdict: Mapping[str, Any], about: str) -> Iterator[Text]:
    styles = {"pass": "green", "fail": "red", "undecided": "yellow"}
    reason = f" ({verdict['reason']})" if verdict["reason"] else ""
    yield Text(f"{about}SLA {verdict['sla']}: ").append(verdict["verdict"], styles[verdict["verdict"]]).append(reason)
    for criterion in verdict["criteria"]:
        metric = criterion["criterion"].rpartition("<")[0] or criterion["criterion"].rpartition(">")[0]
        value = "-" if criterion["value"] is None else wording.quantity(metric, criterion["value"])
        more = criterion["more_requests"]
        wanted = f", about {more:,} more requests would decide" if more else ""
        yield Text(f"  {criterion['criterion']}: {value}, {criterion['verdict']}{wanted}")


def _troubles(result: Mapping[str, Any]) -> Iterator[str]:
    ours = result["redline"]
    if ours["cut_short"]:
        flying = f"; {ours['unfinished']:,} requests were in flight and do not count" if ours["unfinished"] else ""
        yield f"cut short after {wording.duration(result['duration'])}{flying}"
    if not ours["client"]["good"]:
        yield f"not usable: {ours['client']['reason']}"
    if errors := ours["errors"]:
        most = max(errors, key=errors.__getitem__)
        yield f"of the failed requests, {errors[most]:,} had: {most}"
