"""The pictures of the documentation, drawn from what was measured, each with its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from drawing import WIDTH, Panel, axes, band, bars, dots, figure, legend, level, line, marks, text
from scenes import (
    BATCH,
    LOADS,
    LONG_COUNT,
    LONG_S,
    SHORT_COUNT,
    SHORT_S,
    USERS,
    Backlog,
    Belief,
    Search,
    Seen,
    Shares,
    holds,
)

from redline.records import Records
from redline.stats import quantile
from redline.verdict.exact import NOT_STEADY_Z


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One figure: its file, and the sentences under it."""

    caption: str
    svg: str


def _picture(title: str, caption: str, height: int, parts: Sequence[str]) -> Picture:
    return Picture(caption=caption, svg=figure(title, caption, height, parts))


def draw_in_flight(runs: Sequence[Sequence[Backlog]], rates: Sequence[float]) -> Picture:
    """Runs at each load; the first of each is drawn."""
    called = [
        [sum(getattr(run, name) > NOT_STEADY_Z for run in some) for some in runs] for name in ("short_z", "long_z")
    ]
    early = " and ".join(str(count) for count in called[0][::2])
    late = " and ".join(str(count) for count in called[1][::2])
    caption = (
        f"One run each at 3% less than the server can serve, at as much ({rates[1]:.0f} requests/s), and at 3% more. "
        f"Of {len(runs[0])} runs each, the test for growth fired in {early} after {SHORT_S:.0f} s, "
        f"at 3% less and 3% more, and in {late} after {LONG_S:.0f} s: the shorter the window, the more a full server "
        f"looks like a steady one."
    )
    top = max(float(some[0].counts.max()) for some in runs)
    panel = Panel(left=50, right=WIDTH - 20, top=48, bottom=230, x=(0, LONG_S), y=(0, 1.05 * top))
    seconds = np.arange(LONG_S + 1).tolist()
    start, end = panel.at_x(0), panel.at_x(SHORT_S)
    shade = f'<rect class="band" x="{start}" y="48" width="{float(end) - float(start):g}" height="182"/>'
    kinds = ("good", "soft dash", "bad")
    words = [f"{100 * share:.0f}%: {rate:.1f}/s" for share, rate in zip(LOADS, rates, strict=True)]
    lines = [line(panel, seconds, some[0].counts.tolist(), kind) for some, kind in zip(runs, kinds, strict=True)]
    return _picture(
        "A stable and a growing queue look alike",
        caption,
        300,
        [
            shade,
            *axes(panel, "seconds since the server was idle", "requests in flight"),
            *lines,
            *legend(50, 284, [("line", kind, word) for kind, word in zip(kinds, words, strict=True)]),
        ],
    )


def draw_dependence(trials: Sequence[Shares], bound: str) -> Picture:
    """The batches of the first trial, and how often the intervals of all held the share."""
    share = float(np.mean([trial.long.k / trial.long.n for trial in trials]))
    held = []
    for window in ("short", "long"):
        tallies = [getattr(trial, window) for trial in trials]
        for phis in ([1.0] * len(tallies), [found.phi for found in tallies]):
            kept = sum(holds(found, share, phi) for found, phi in zip(tallies, phis, strict=True))
            held.append(100 * kept / len(tallies))
    batches = 100 * trials[0].batches
    spread = 1.28 * 100 * (share * (1 - share) / BATCH) ** 0.5
    outside = int((abs(batches - 100 * share) > spread).sum())
    caption = (
        f"One load at the capacity: the share over {bound}, in batches of {BATCH} consecutive requests. "
        f"Of independent requests one batch in five would leave the band; here {outside} of {len(batches)} do. "
        f"Of 80% intervals from {SHORT_COUNT} requests that take them for independent, {held[0]:.0f}% hold the true "
        f"share, of those that count n/phi {held[1]:.0f}%; from {LONG_COUNT:,} requests {held[2]:.0f}% and "
        f"{held[3]:.0f}% ({len(trials)} trials)."
    )
    top = max(30.0, 1.1 * float(batches.max()))
    panel = Panel(left=50, right=400, top=48, bottom=210, x=(0, len(batches)), y=(0, top))
    middles = [i + 0.5 for i in range(len(batches))]
    around = [100 * share - spread] * 2, [100 * share + spread] * 2
    cover = Panel(left=455, right=WIDTH - 20, top=48, bottom=210, x=(0, 4), y=(0, 100))
    columns = [0.6, 1.4, 2.6, 3.4]
    numbers = zip(columns, held, strict=True)
    return _picture(
        "Requests of one trial are not independent",
        caption,
        290,
        [
            *axes(panel, "batch", "% of requests over the bound"),
            band(panel, [0, len(batches)], *around),
            bars(panel, middles, [0] * len(batches), batches.tolist(), "good", 5),
            level(panel, 100 * share, "truth"),
            *axes(cover, "", "80% intervals that hold, %", x_ticks=0),
            bars(cover, columns[::2], [0, 0], held[::2], "bad", 26),
            bars(cover, columns[1::2], [0, 0], held[1::2], "good", 26),
            level(cover, 80, "truth"),
            *(text(cover.at_x(x), cover.at_y(y + 3), f"{y:.0f}", kind="ink", anchor="middle") for x, y in numbers),
            text(cover.at_x(1), "226", f"{SHORT_COUNT} requests", anchor="middle"),
            text(cover.at_x(3), "226", f"{LONG_COUNT:,}", anchor="middle"),
            *legend(50, 276, [("box", "band", "4 of 5 batches, if independent"), ("line", "truth", "true share; 80%")]),
            *legend(440, 276, [("line", "bad", "n requests"), ("line", "good", "n/phi")]),
        ],
    )


_MARKS = {
    "scout": ("ring", "soft full", "first look"),
    "met": ("disc", "good full", "met the SLA"),
    "missed": ("diamond", "bad full", "missed it"),
    "early": ("triangle", "bad full", "ended early: hopeless, or the queue grew"),
    "unused": ("ring", "soft", "says nothing"),
}


def _trial_marks(panel: Panel, at: Sequence[float], trials: Sequence[Seen]) -> list[str]:
    parts = []
    for standing, (shape, kind, _) in _MARKS.items():
        chosen = [(x, t.load) for x, t in zip(at, trials, strict=True) if t.standing == standing]
        parts += [marks(panel, [x for x, _ in chosen], [y for _, y in chosen], shape, kind)] if chosen else []
    return parts


def _trial_legend(trials: Sequence[Seen]) -> list[tuple[str, str, str]]:
    there = {t.standing for t in trials}
    return [mark for standing, mark in _MARKS.items() if standing in there]


def draw_search(
    trials: Sequence[Seen], beliefs: Sequence[Belief], answer: tuple[float, float, float], true: float
) -> Picture:
    """Each trial at its load, and the 80% interval of the belief after it; densities after a few of them."""
    capacity, low, high = answer
    scouts = sum(t.standing == "scout" for t in trials)
    inside = "holds" if low <= true <= high else "does not hold"
    caption = (
        f"A whole search: {scouts} first looks, then {len(trials) - scouts} trials. "
        f"The band is the 80% interval of the belief after each trial, the curves its density after some. "
        f"The answer is {capacity:.1f} requests/s, the 90% interval {low:.1f} to {high:.1f}; "
        f"it {inside} the true capacity, {true:.1f}."
    )
    reach = (0.6 * true, 1.4 * true)
    panel = Panel(left=50, right=430, top=48, bottom=250, x=(0.5, len(trials) + 0.5), y=reach)
    xs = [float(b.trials) for b in beliefs]
    steps = [x + side for x in xs for side in (-0.5, 0.5)]
    lows, highs = ([v for b in beliefs for v in (getattr(b, end),) * 2] for end in ("low", "high"))
    shown = [beliefs[min(i, len(beliefs) - 1)] for i in (len(beliefs) // 5, len(beliefs) // 2, len(beliefs) - 1)]
    top = max(float(b.density.max()) for b in shown)
    side = Panel(left=455, right=WIDTH - 20, top=48, bottom=250, x=(0, 1.05 * top), y=reach)
    curves = []
    for belief, kind in zip(shown, ("soft dash", "soft", "good"), strict=True):
        chosen = (belief.loads >= reach[0]) & (belief.loads <= reach[1])
        curves.append(line(side, belief.density[chosen].tolist(), belief.loads[chosen].tolist(), kind))
    numbers = list(range(1, len(trials) + 1))
    after = [("line", k, f"after {b.trials}") for b, k in zip(shown, ("soft dash", "soft", "good"), strict=True)]
    return _picture(
        "A search narrows its belief",
        caption,
        340,
        [
            *axes(panel, "trial", "load, requests/s (those far off stand at the edge)"),
            band(panel, steps, lows, highs),
            level(panel, true, "truth"),
            *_trial_marks(panel, numbers, trials),
            *axes(side, "", "belief", x_ticks=0, y_ticks=0),
            level(side, true, "truth"),
            *curves,
            *legend(50, 304, _trial_legend(trials)),
            *legend(50, 326, [("line", "truth", "true capacity"), ("box", "band", "80% interval"), *after]),
        ],
    )


def draw_answers(panels: Mapping[str, tuple[Sequence[Search], float]]) -> Picture:
    """The intervals of many searches, against the truth, in percent of it."""
    parts, told = [], []
    for place, (name, (found, true)) in enumerate(panels.items()):
        held = [s.holds(true) for s in found]
        edges = sum(s.answer.evidence == "edge" for s in found)
        given = [s.answer.capacity for s in found if s.answer.capacity is not None]
        above = sum(load > true for load in given)
        far = sum(load > 1.05 * true for load in given)
        doubted = sum(bool(s.drifted) for s in found)
        told.append(
            f"{name}: {sum(held)} of {len(found)} intervals held the truth, {edges} ended as `edge`; "
            f"{above} of {len(given)} answers were above it, {far} by more than 5%; "
            f"{doubted} warned of a drift that there was not."
        )
        left = 50 + place * 300
        panel = Panel(left=left, right=left + 265, top=48, bottom=220, x=(-1, len(found)), y=(-25, 25))
        order = sorted(range(len(found)), key=lambda i: found[i].answer.estimate or 0.0)
        rows = [(x, found[i].answer, held[i]) for x, i in enumerate(order)]
        parts += axes(panel, "search, sorted by its estimate", f"{name}: % from the truth", x_ticks=0)
        for good, kind in ((True, "good"), (False, "bad")):
            some = [(x, a) for x, a, ok in rows if ok is good and a.low is not None and a.high is not None]
            ends = [[100 * ((getattr(a, end) or 0.0) / true - 1) for _, a in some] for end in ("low", "high")]
            parts.append(bars(panel, [x for x, _ in some], ends[0], ends[1], kind, 1.6))
        dotted = [(x, a.capacity) for x, a, _ in rows if a.capacity is not None]
        parts.append(dots(panel, [x for x, _ in dotted], [100 * (load / true - 1) for _, load in dotted], "ink"))
        parts.append(level(panel, 0, "truth"))
    caption = " ".join(["90% intervals of many searches on two servers.", *told])
    keys = [("line", "good", "held the truth"), ("line", "bad", "did not"), ("ring", "ink full", "the load to rely on")]
    return _picture("How often an interval holds the truth", caption, 290, [*parts, *legend(50, 276, keys)])


def draw_first_wave(together: Records, spread: Records) -> Picture:
    """Time to first token of a closed loop, all users at once and spread."""
    first = quantile(together.ttft_ms()[:USERS], 0.5)
    three = quantile(together.ttft_ms()[: 3 * USERS], 0.99)
    steady = spread.ttft_ms()[(spread.scheduled_s > 20) & ~np.isnan(spread.first_s)]
    later = quantile(steady, 0.99)
    caption = (
        f"A closed loop of {USERS} users. When all send at once, the median of the first {USERS} times to first token "
        f"is {first:.0f} ms, and the p99 of the first {3 * USERS} is {three:.0f} ms; in the steady state the p99 is "
        f"{later:.0f} ms. Redline spreads the starts, and cuts the warm-up off."
    )
    parts = []
    for place, (name, records) in enumerate((("all users at once", together), ("starts spread", spread))):
        left = 50 + place * 300
        kept = (records.scheduled_s <= 40) & ~np.isnan(records.first_s)
        times, ttft = records.scheduled_s[kept], records.ttft_ms()[kept]
        panel = Panel(
            left=left,
            right=left + 265,
            top=48,
            bottom=220,
            x=(0, 40),
            y=(0, 1.05 * float(together.ttft_ms()[:USERS].max())),
        )
        parts += axes(panel, "seconds since the start", f"{name}: time to first token, ms", x_ticks=4)
        parts += [dots(panel, times.tolist(), ttft.tolist(), "good"), level(panel, later, "truth")]
    parts += legend(50, 276, [("dot", "good full", "a request"), ("line", "truth", "p99 of the steady state")])
    return _picture("The first wave of a closed loop is no steady state", caption, 290, parts)


def draw_drift(
    found: Sequence[Search], told: Sequence[Seen], times_s: Sequence[float], capacities: Sequence[float]
) -> Picture:
    """The trials of the first of these searches over time, and its interval at their end."""
    at_end = [float(np.interp(s.answer.benchmark_s, times_s, capacities)) for s in found]
    began = sum(s.holds(capacities[0]) for s in found)
    ended = sum(s.holds(true) for s, true in zip(found, at_end, strict=True))
    warned = sum(bool(s.drifted) for s in found)
    edges = sum(s.answer.evidence == "edge" for s in found)
    answer = found[0].answer
    caption = (
        f"A server that gets 10% slower every ten minutes. Of {len(found)} searches, {began} intervals held the "
        f"capacity at their start, {ended} the one at their end; {edges} ended as `edge`, and {warned} carried the "
        f"warning of a drift. Drawn: the first of them, {'warned' if found[0].drifted else 'without a warning'}, "
        f"and its interval."
    )
    last = max(answer.benchmark_s, 1.0)
    panel = Panel(
        left=50,
        right=WIDTH - 20,
        top=48,
        bottom=230,
        x=(0, 1.05 * last),
        y=(0.6 * min(capacities), 1.3 * capacities[0]),
    )
    parts = axes(panel, "seconds since the search began", "load, requests/s (those far off stand at the edge)")
    within = [(t, c) for t, c in zip(times_s, capacities, strict=True) if t <= 1.05 * last]
    within.append((1.05 * last, float(np.interp(1.05 * last, times_s, capacities))))
    if answer.low is not None and answer.high is not None:
        parts.append(band(panel, [0, 1.05 * last], [answer.low] * 2, [answer.high] * 2))
    parts.append(line(panel, [t for t, _ in within], [c for _, c in within], "truth"))
    parts += _trial_marks(panel, [t.middle_s for t in told], told)
    parts += legend(50, 284, _trial_legend(told))
    keys = [("line", "truth", "capacity at that time"), ("box", "band", "90% interval of the answer")]
    return _picture("On a server that drifts the interval is wrong", caption, 318, [*parts, *legend(50, 306, keys)])
