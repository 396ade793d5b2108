"""The rows of the load generator benchmark as tables. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from load_figures import STREAMS, Row
from tables import lines_of

OWN, COMPARED, RAW, VLLM = "Redline", "Redline, compared", "raw epoll loop", "vllm bench serve"

PAGE = """# What the load generator costs, and how right its times are

<!-- Made by `python benchmarks/loadgen.py --page docs/explanation/loadgen.md`. -->

A server in C sends words at 50 tokens/s per stream, the first after 10 ms, and stamps each just before it writes it.
Every client meets the same server on the same machine, in turn, in one run.
Values are medians over the rounds, with the smallest and the largest of them.
The machine counts for a lot, and what else runs on it: compare within a column, not with another page.
A process of the lowest priority keeps each core awake, but in the second table.

{tables}

CPU is the user and system time of the client's processes, all of them, while it does nothing but this load:
starting, making prompts, and what is left to do after the last token are left out.
A core that sleeps takes time to wake, a virtual one most of all, and that is charged to the client: to one that waits
for its server, and not to one that keeps its core busy.
Memory is what the client grew by since its first request: when all streams were open, and just before they ended.
One that lets go of something of its own meanwhile, or took all that it needs before, shows too little there.
Chunk lag is the client's stamp minus the server's.
`kernel` is the receive stamp that Redline uses, `read` the time at which its process read the bytes.
A TTFT error is the client's time to first token minus what passed between the server's read and its first write:
connecting, sending and accepting are in it.
Off schedule is how far from a constant rate the requests reached the server; the earliest counts as on time.
Lag and errors of Redline come from runs of their own, which keep all that came for a look at the server's log later.
`raw epoll loop` parses nothing but these, so it is a floor and no usable client.

## Not measured

TLS, remote servers, long prompts, more than one worker, macOS.
Locust has no client for language models: a user here reads the lines of the answer and does not parse them.
It reports no times of tokens.
aiperf, guidellm and locust meet two of the loads only.
Requests of aiperf are matched with the server's by order, the others' by the number in the answer.
The two figures of one client come from different runs, and the runs are short.

## The run

`python benchmarks/loadgen.py`, {minutes:.0f} minutes on {machine}.
{versions}
"""


def table(rows: Sequence[Row], missing: Mapping[str, str]) -> str:
    """Costs, then times, in Markdown."""
    awake, asleep = ([row for row in rows if row.awake is state] for state in (True, False))
    costs = _costs(awake, missing)
    if asleep:
        costs += f"\n\nWhere cores may sleep between two requests or tokens:\n\n{_costs(asleep, {})}"
    return f"## Cost\n\n{costs}\n\n## Times\n\n{_times(awake)}\n\n## Schedule\n\n{_schedule(awake)}"


def page(tables: str, *, machine: str, versions: Sequence[str], minutes: float) -> str:
    """The page of the documentation."""
    named = f"Other clients: {', '.join(versions)}." if versions else "No other client was installed."
    return PAGE.format(tables=tables, machine=machine, versions=named, minutes=minutes)


def _costs(rows: Sequence[Row], missing: Mapping[str, str]) -> str:
    head = (
        "client",
        "CPU s per 1,000 requests, 200/s",
        "times Redline's",
        "CPU s per million tokens, 500 streams",
        "times Redline's",
        "MB per 1,000 streams, opened",
        "and after 6 s of tokens",
    )
    body: list[list[str]] = []
    own = [median(rows, OWN, "200/s", "cpu_s_per_1000"), median(rows, OWN, "500 streams", "cpu_s_per_million")]
    for name in _names(rows, but=COMPARED):
        failed = next((row.failure for row in rows if row.client == name and row.failure), "")
        cells = [name]
        for load, figure, base in (("200/s", "cpu_s_per_1000", own[0]), ("500 streams", "cpu_s_per_million", own[1])):
            cells += [_cell(rows, name, load, figure, "{:.3g}"), _times_own(median(rows, name, load, figure), base)]
        memory = ("opened_mb_per_1000", "streamed_mb_per_1000")
        body.append([*cells, *(_cell(rows, name, "500 streams", figure, "{:.1f}") for figure in memory)])
        if failed:
            body.append([f"{name}: {failed}", *[""] * (len(head) - 1)])
    body += [[f"{name}: {why}", *[""] * (len(head) - 1)] for name, why in missing.items()]
    return "\n".join(lines_of(head, body))


def _times(rows: Sequence[Row]) -> str:
    """Medians and 99th percentiles, in microseconds."""
    head = (
        "client",
        "streams",
        "chunk lag p50 / p99, us",
        "times vLLM's p99",
        "TTFT error p50 / p99, us",
        "times vLLM's p99",
    )
    body: list[list[str]] = []
    kinds = [
        (RAW, "raw epoll loop, kernel", "chunk_lag"),
        (RAW, "raw epoll loop, read", "read_lag"),
        (COMPARED, "Redline, kernel", "chunk_lag"),
        (COMPARED, "Redline, read", "read_lag"),
    ]
    kinds += [(name, name, "chunk_lag") for name in _names(rows, but=COMPARED) if name not in (RAW, OWN)]
    for load in STREAMS:
        for client, label, lag in kinds:
            pairs = [
                _pair(rows, client, load, lag),
                _pair(rows, client, load, "ttft_error") if lag == "chunk_lag" else "-",
            ]
            if pairs == ["-", "-"]:
                continue
            against = [_against(rows, client, load, lag, "chunk_lag")]
            against.append(_against(rows, client, load, "ttft_error", "ttft_error") if lag == "chunk_lag" else "-")
            body.append([label, load.split()[0], pairs[0], against[0], pairs[1], against[1]])
    return "\n".join(lines_of(head, body))


def _schedule(rows: Sequence[Row]) -> str:
    head = (
        "client",
        "rate",
        "off schedule p50 / p99, us",
        "own account of late sends p50 / p99, us",
        "achieved / asked",
    )
    body: list[list[str]] = []
    for load in ("200/s", "1000/s"):
        for name in _names(rows, but=COMPARED):
            if median(rows, name, load, "achieved") is not None:
                pairs = [_pair(rows, name, load, "off"), _pair(rows, name, load, "late")]
                body.append([name, load, *pairs, _cell(rows, name, load, "achieved", "{:.2%}")])
    return "\n".join(lines_of(head, body))


def median(rows: Sequence[Row], client: str, load: str, figure: str) -> float | None:
    """Over the rounds; None where it was not measured."""
    values = _values(rows, client, load, figure)
    return float(np.median(values)) if values else None


def _values(rows: Sequence[Row], client: str, load: str, figure: str) -> list[float]:
    return [row.figures[figure] for row in rows if (row.client, row.load) == (client, load) and figure in row.figures]


def _cell(rows: Sequence[Row], client: str, load: str, figure: str, shape: str) -> str:
    """The median, and the range where there are several rounds."""
    values = _values(rows, client, load, figure)
    if not values:
        return "-"
    middle = shape.format(np.median(values))
    return middle if len(values) == 1 else f"{middle} ({shape.format(min(values))} to {shape.format(max(values))})"


def _pair(rows: Sequence[Row], client: str, load: str, figure: str) -> str:
    middle, most = (median(rows, client, load, f"{figure}_{q}_us") for q in ("p50", "p99"))
    return "-" if middle is None or most is None else f"{middle:,.0f} / {most:,.0f}"


def _against(rows: Sequence[Row], client: str, load: str, figure: str, theirs: str) -> str:
    return _times_own(median(rows, client, load, f"{figure}_p99_us"), median(rows, VLLM, load, f"{theirs}_p99_us"))


def _times_own(value: float | None, base: float | None) -> str:
    return (
        "-" if value is None or not base else f"{value / base:.2g}x" if value / base < 100 else f"{value / base:.0f}x"
    )


def _names(rows: Sequence[Row], *, but: str) -> list[str]:
    return [name for name in dict.fromkeys(row.client for row in rows) if name != but]
