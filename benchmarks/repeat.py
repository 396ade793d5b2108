"""Does a search find the same again? `redline find` several times on one running server, each from nothing.

    python benchmarks/repeat.py http://127.0.0.1:8000 --times 10 --hold 300 --out DIR -- --sla "p99_ttft_ms<=200"

What follows `--` goes to `redline find`, and to `redline bench` if --hold is given: that then holds the
median lower end of the intervals for so many seconds, and 1.15 times their median upper end for a tenth of that. Two
intervals that each hold the capacity overlap: of 90% intervals of one unchanging server at least 81 pairs in 100 do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from tables import lines_of

HEAD = ("search", "evidence", "capacity", "low", "high", "trials", "requests", "benchmark s", "stopped because")


def find(url: str, options: Sequence[str], out: Path) -> dict[str, Any]:
    """The first answer of one search."""
    command = [sys.executable, "-m", "redline", "find", url, *options, "--out", str(out), "--json", "--quiet", "--yes"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if not done.stdout.strip():
        raise SystemExit(f"search {out} gave no answer: exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)["answers"][0]
    return found


def table(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each search, then how far they agree."""
    rows = [
        [str(n), a["evidence"], *(_told(a[key]) for key in ("capacity", "low", "high")), str(a["trials"]),
         f"{a['requests']:,}", f"{a['benchmark_s']:.0f}", a["stop_reason"]]
        for n, a in enumerate(answers, start=1)
    ]  # fmt: skip
    return [*lines_of(HEAD, rows), "", agreement(answers)]


def agreement(answers: Sequence[Mapping[str, Any]]) -> str:
    """How many pairs of intervals overlap, and where the middle of all lies."""
    bounded = [a for a in answers if a["low"] is not None and a["high"] is not None]
    pairs = list(combinations(bounded, 2))
    if not pairs:
        return "No two intervals to compare."
    together = sum(a["low"] <= b["high"] and b["low"] <= a["high"] for a, b in pairs)
    low, high = ends(answers)
    return f"{together} of {len(pairs)} pairs of intervals overlap; their median ends are {low:.4g} and {high:.4g}."


def ends(answers: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The median lower and the median upper end of the intervals."""
    lows = [a["low"] for a in answers if a["low"] is not None]
    highs = [a["high"] for a in answers if a["high"] is not None]
    return statistics.median(lows), statistics.median(highs)


def hold(url: str, options: Sequence[str], by: str, load: float, duration_s: float) -> str:
    """What `redline bench` says of one load that is held."""
    load = round(load) if by == "concurrency" else float(f"{load:.4g}")
    command = [sys.executable, "-m", "redline", "bench", url, f"--{by}", str(load), "--duration", f"{duration_s:g}s"]
    done = subprocess.run([*command, *options, "--json", "--quiet", "--yes"], stdout=subprocess.PIPE, text=True)
    if not done.stdout.strip():
        return f"{load:g} held for {duration_s:g} s: no result, exit code {done.returncode}"
    told = json.loads(done.stdout)["redline"]
    verdicts = ", ".join(f"{v['sla']}: {v['verdict']}" for v in told["verdicts"])
    client = "" if told["client"]["good"] else f" (the client: {told['client']['reason']})"
    return f"{load:g} held for {duration_s:g} s: {verdicts}{client}"


def _told(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}"


def main() -> int:
    own, given = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, given = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="a new folder; each search has one in it")
    parser.add_argument("--precision", default="5%")
    parser.add_argument("--by", choices=["rate", "concurrency"], default="rate")
    parser.add_argument(
        "--hold", type=float, metavar="SECONDS", help="then hold the lower end, and 1.15 times the upper"
    )
    args = parser.parse_args(own)
    answers = []
    for n in range(1, args.times + 1):
        answers.append(find(args.url, [*given, "--by", args.by, "--precision", args.precision], args.out / str(n)))
        print("\n".join(table(answers)[-3 if n > 1 else 0 :]), file=sys.stderr)
    print("\n".join(table(answers)))
    if args.hold:
        low, high = ends(answers)
        print("", hold(args.url, given, args.by, low, args.hold), sep="\n")
        print("", hold(args.url, given, args.by, 1.15 * high, args.hold / 10), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
