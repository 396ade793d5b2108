"""The requests of a trial as a table: CSV, or an object of JSON in each line, with units in the names."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence

from redline.records import Records, Status

_STATUS = {
    Status.OK: "ok",
    Status.RUNNING: "unfinished",
    Status.FAILED: "failed",
    Status.REJECTED: "rejected",
    Status.TIMED_OUT: "timed out",
}


def csv_lines(records: Records, also: Mapping[str, object] | None = None, *, header: bool = True) -> Iterator[str]:
    """Line by line; `also` are columns that are the same in all rows, and come first."""
    columns = _columns(records)
    same = list((also or {}).values())
    if header:
        yield _line([*(also or {}), *columns])
    for row in zip(*columns.values(), strict=True):
        yield _line([*same, *map(_cell, row)])


def json_lines(records: Records, also: Mapping[str, object] | None = None) -> Iterator[str]:
    """The same with null where there is no time, and with the gaps between the events of each request."""
    columns = _columns(records)
    offsets = records.gap_offsets.tolist() or [0] * (len(records) + 1)
    gaps_ms = (records.gaps_us / 1e3).tolist()
    for i, row in enumerate(zip(*columns.values(), strict=True)):
        fields = dict(zip(columns, map(_plain, row), strict=True))
        yield json.dumps({**(also or {}), **fields, "itls_ms": gaps_ms[offsets[i] : offsets[i + 1]]}) + "\n"


def _columns(records: Records) -> dict[str, Sequence[object]]:
    return {
        "request": range(len(records)),
        "status": [_STATUS[Status(int(code))] for code in records.status],
        "scheduled_s": records.scheduled_s.tolist(),
        "sent_s": records.sent_s.tolist(),
        "first_token_s": records.first_s.tolist(),
        "end_s": records.end_s.tolist(),
        "ttft_ms": records.ttft_ms().tolist(),
        "tpot_ms": records.tpot_ms().tolist(),
        "e2el_ms": records.e2el_ms().tolist(),
        "tokens_in": records.tokens_in.tolist(),
        "tokens_out": records.tokens_out.tolist(),
        "tokens_asked": records.tokens_asked.tolist(),
        **({"held_s": records.held_s.tolist()} if len(records.held_s) else {}),
    }


def _plain(value: object) -> object:
    """Times to the nanosecond; None where there is none."""
    return (None if math.isnan(value) else round(value, 9)) if isinstance(value, float) else value


def _cell(value: object) -> object:
    """Times to the microsecond; empty where there is none."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6f}"
    return value


def _line(cells: Sequence[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
