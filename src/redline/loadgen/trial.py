"""One trial in the load worker: each request is sent when it is due, whatever happened to those before."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any

from redline.loadgen.account import Account
from redline.loadgen.ahead import Ahead
from redline.loadgen.beat import Beat
from redline.loadgen.conn import Exchange
from redline.loadgen.conversation import Conversations
from redline.loadgen.flights import Flight, Rows, named
from redline.loadgen.loop import PromptLoop
from redline.loadgen.nap import NAP_NS, may_nap
from redline.loadgen.payload import Payloads
from redline.loadgen.pool import Pool
from redline.loadgen.sources import not_sent
from redline.loadgen.spec import TrialSpec
from redline.loadgen.timer import Timer
from redline.loadgen.wire import Header
from redline.records import Status
from redline.users import Turn, Users

TICK_S = 1.0
_SWEEP_S = 0.05
_NEVER_NS = 1 << 62
_AT_ONCE = 128  # requests sent before the loop reads again
_PAUSE_S = 0.1  # of a closed-loop user after a failure, so that a server that refuses is not hammered
_WARM = 32  # connections opened ahead for an open loop
_EARLY = 1 << 40  # requests of a ramp count from minus this
_SHORT_NS = 500_000_000  # a report so soon after the beginning would show next to nothing
_LIVE_GAPS = 500_000  # gaps of unfinished requests beyond this number are sent only at the end


class Run:
    """Runs from `begin` until `stop`, or until its budget is spent; `report` gets a header and columns each second.

    What a ramp sends before time 0 is load, and no part of the trial.
    """

    def __init__(
        self, spec: TrialSpec, pool: Pool, payloads: Payloads, report: Callable[[str, Header, dict[str, Any]], bool]
    ) -> None:
        self._spec, self._pool, self._payloads = spec, pool, payloads
        self._report = report  # False: the driver has not taken the last report yet
        self._loop = asyncio.get_running_loop()
        self._timer = Timer(self._loop, self._fire)
        # Without kernel stamps, the loop's lag stands for the delay of reads.
        self._beat = Beat(self._loop, None if pool.has_stamps else lambda us: pool.stamps.read_delays.add(us))
        self._prompt = self._loop if isinstance(self._loop, PromptLoop) else None
        self._handles: dict[str, asyncio.TimerHandle] = {}
        workload = payloads.workload
        self._closed_loop = spec.by == "concurrency"
        self._talks = None if workload.turns is None else Conversations(payloads, spec.seed)
        # A user sends again with each answer.
        self._at_once = self._closed_loop and workload.think_time_s is None and self._talks is None
        self._timeout_ns = int(workload.request_timeout_s * 1e9)
        self._places = workload.max_in_flight or math.inf
        self._most = math.inf if spec.max_requests is None else spec.own(spec.max_requests)
        turns = (spec.worker, spec.workers)
        self._users = Users(workload, spec.by, spec.load, spec.seed, spec.spread_s, turns)
        self._next_due_ns = self._armed_ns = _NEVER_NS
        self._t0_ns = 0
        self._ahead = Ahead(payloads, spec.worker, spec.workers)
        self._over = False
        self._in_flight: dict[int, Flight] = {}
        self._held: deque[tuple[Turn, int]] = deque()  # due, and waiting for a place
        self._launched = self._early = 0  # all requests; those of the ramp
        self._never_sent = 0
        self._ended_rows = Rows()
        self._due_count = self._sent_count = 0
        self._account = Account()

    # ---- its life ----

    async def prepare(self) -> None:
        """Open connections and build requests."""
        self._ahead.fill()
        await self._pool.prewarm(self._warm_connections())
        self._pool.stamps.measure_offset()
        self._report("ready", {}, {})

    def begin(self, t0_ns: int) -> None:
        """Send what is due, by a beginning on the monotonic clock, which all processes of a machine share."""
        if self._over:
            return
        ramp_s = self._payloads.workload.ramp_s
        self._t0_ns = t0_ns
        self._begin()
        self._await_next()
        self._stop_if_that_was_all()  # there may be fewer requests than workers
        self._beat.start()
        self._later("end", self._spec.max_s, self._spent)
        self._later("tick", TICK_S - math.ceil(ramp_s), self._tick)
        self._later("sweep", _SWEEP_S - ramp_s, self._sweep)
        if ramp_s:
            self._later("begin", 0.0, self._begin)

    def _begin(self) -> None:
        """From here on the client is judged."""
        self._pool.stamps.reset()
        self._account.begin()
        self._beat.reset()

    def stop(self, reason: str) -> None:
        """Send no more, drop what is in flight, and report for the last time."""
        if self._over:
            return
        self._over = True
        now_ns = time.monotonic_ns()
        for handle in self._handles.values():
            handle.cancel()
        self._timer.close()
        self._beat.close()
        if self._prompt is not None:
            self._prompt.nap(0)
        in_flight = list(self._in_flight.values())
        rows = self._unfinished(now_ns, in_flight)
        self._in_flight = {}
        for flight in in_flight:
            flight.ended = _ignore
            self._pool.drop(flight, "the trial ended")
        if self._t0_ns:
            while self._next_due_ns <= now_ns:  # due, but this process came too late to send them
                self._due_count += 1
                self._users.take()
                self._next_due_ns = self._ns(self._users.due_s)
        facts = {"reason": reason, **self._facts(now_ns), **self._evidence(now_ns)}
        self._report("ended", facts, named(self._ended_rows, rows))

    def _spent(self) -> None:
        """The budget is spent: end now, or once what is in flight has ended."""
        if not self._spec.drain:
            self.stop("budget")
            return
        self._most = min(self._most, self._due_count)
        self._await_next()
        self._stop_if_drained()

    def _stop_if_drained(self) -> None:
        if self._due_count >= self._most and not (self._in_flight or self._held):
            self.stop("drained")

    # ---- what is due ----

    def _ns(self, at_s: float) -> int:
        return self._t0_ns + int(at_s * 1e9) if at_s < 1e9 else _NEVER_NS

    def _await_next(self) -> None:
        """Set the timer to what is due next, unless it is already."""
        self._next_due_ns = self._ns(self._users.due_s) if self._due_count < self._most else _NEVER_NS
        if self._next_due_ns != self._armed_ns and not self._over:
            self._armed_ns = self._next_due_ns
            self._timer.set(self._next_due_ns)
            if self._prompt is not None:
                self._prompt.due(self._next_due_ns)

    def _fire(self) -> None:
        """Send all that is due; with a pause for reading when that is much, since it may never end."""
        self._armed_ns = 0
        for _ in range(_AT_ONCE):
            now_ns, due_ns = time.monotonic_ns(), self._ns(self._users.due_s)
            if due_ns > now_ns or self._due_count >= self._most:
                break
            self._account.late.add((now_ns - due_ns) // 1_000)
            turn = self._users.take()
            self._due_count += due_ns >= self._t0_ns
            if self._held or len(self._in_flight) >= self._places:
                self._held.append((turn, due_ns))
                continue
            # Users who do not think are ready when they start, whenever that is. This keeps requests in order of
            # their times too.
            self._launch(turn, now_ns if self._at_once else due_ns)
        self._await_next()

    def _launch(self, turn: Turn, scheduled_ns: int, held_ns: int = 0) -> None:
        flight = self._next_flight(turn, scheduled_ns)
        flight.held_ns = held_ns
        self._in_flight[flight.i] = flight
        try:
            self._pool.send(flight)
            self._sent_count += flight.number >= 0
        except OSError as error:
            flight.response.give_up(not_sent(error))
            self._loop.call_soon(self._ended, flight)  # not at once: a user would send again from in here
        self._stop_if_that_was_all()

    def _next_flight(self, turn: Turn, scheduled_ns: int) -> Flight:
        plan = self._ahead.take() if self._talks is None else self._talks.plan(turn)
        flight = Flight(plan, turn, scheduled_ns, scheduled_ns + self._timeout_ns, self._ended)
        if self._talks is not None:
            self._talks.listen(flight)
        if scheduled_ns < self._t0_ns:
            flight.number = self._launched - _EARLY
            self._early += 1
        else:
            flight.number = self._number(self._launched - self._early)
        self._launched += 1
        return flight

    def _number(self, own: int) -> int:
        """A request's number among those of all workers."""
        return self._spec.worker + self._spec.workers * own

    def _stop_if_that_was_all(self) -> None:
        if self._launched - self._early >= self._most:
            self._next_due_ns = _NEVER_NS
            self._loop.call_soon(self._spent)

    def _ended(self, flight: Flight) -> None:
        if self._in_flight.pop(flight.i, None) is None:
            return
        self._finish(flight, *flight.response.outcome(flight.tokens_asked))

    def _finish(self, flight: Flight, status: Status, words: str) -> None:
        response = flight.response
        now_ns = time.monotonic_ns()
        end_ns = now_ns
        if status is Status.OK:
            end_ns = response.last_ns or response.last_choice_ns
            if self._closed_loop or self._held:
                self._account.idle_ns += now_ns - response.arrived_ns
        if flight.number >= 0:
            self._account.without_usage += status is Status.OK and response.tokens_out < 0
            if status is not Status.OK:
                self._account.failed(words)
            self._ended_rows.add(flight, self._t0_ns, status, (end_ns - self._t0_ns) / 1e9)
        if self._talks is not None:
            self._talks.answered(flight, ok=status is Status.OK)
        if self._over:
            return
        if self._spec.drain:
            self._loop.call_soon(self._stop_if_drained)
        if self._at_once and status is Status.OK:
            if self._due_count < self._most:
                self._due_count += now_ns >= self._t0_ns
                self._launch(flight.turn, now_ns)
            return
        if self._held and len(self._in_flight) < self._places:
            turn, due_ns = self._held.popleft()
            self._launch(turn, due_ns, now_ns - due_ns)
        if self._closed_loop or self._talks is not None:
            ok = status is Status.OK
            self._users.answered(flight.turn, (now_ns - self._t0_ns) / 1e9 + (not ok) * _PAUSE_S, ok=ok)
            self._await_next()

    def _warm_connections(self) -> int:
        """Few where few may be needed: servers with a thread for each connection would run out of them."""
        load = max(self._spec.own(math.ceil(self._spec.load)), 1)
        return load if self._at_once else min(load, math.ceil(_WARM / self._spec.workers))

    # ---- beside the load ----

    def _later(self, name: str, at_s: float, do: Callable[[], None]) -> None:
        self._handles[name] = self._loop.call_at(self._t0_ns / 1e9 + at_s, do)

    def _tick(self) -> None:
        now_ns = time.monotonic_ns()
        self._pool.stamps.measure_offset()
        if self._prompt is not None:
            ended = self._launched - len(self._in_flight) if self._closed_loop or self._held else 0
            nap = self._pool.stamps.from_kernel and may_nap(self._in_flight.values(), ended, now_ns - self._t0_ns)
            self._prompt.nap(NAP_NS if nap else 0)
        for flight in [flight for flight in self._in_flight.values() if flight.lingers(now_ns)]:
            self._cut(flight, *flight.response.outcome(flight.tokens_asked))
        elapsed_s = (now_ns - self._t0_ns) / 1e9
        self._later("tick", (math.floor(elapsed_s / TICK_S) + 1) * TICK_S, self._tick)
        if now_ns < self._t0_ns + _SHORT_NS:
            self._report("ramp", self._facts(now_ns), {})
            return
        with_gaps = sum(len(flight.response.gaps_us) for flight in self._in_flight.values()) < _LIVE_GAPS
        rows = self._unfinished(now_ns, self._in_flight.values(), with_gaps=with_gaps)
        if self._report("records", self._facts(now_ns), named(self._ended_rows, rows)):
            self._ended_rows = Rows()

    def _sweep(self) -> None:
        """End what has timed out: the oldest come first."""
        now_ns = time.monotonic_ns()
        late = list(takewhile(lambda flight: flight.deadline_ns <= now_ns, self._in_flight.values()))
        for flight in late:
            self._cut(flight, Status.TIMED_OUT, f"timed out after {self._payloads.workload.request_timeout_s:g} s")
        while self._held and self._held[0][1] + self._timeout_ns <= now_ns:
            flight = self._next_flight(*self._held.popleft())
            flight.held_ns = self._timeout_ns
            self._never_sent += flight.number >= 0
            self._finish(flight, Status.TIMED_OUT, "timed out in the client, before max_in_flight had a place for it")
            self._stop_if_that_was_all()
        self._handles["sweep"] = self._loop.call_later(_SWEEP_S, self._sweep)

    def _cut(self, flight: Flight, status: Status, words: str) -> None:
        del self._in_flight[flight.i]
        flight.ended = _ignore
        self._pool.drop(flight, words)
        self._finish(flight, status, words)

    # ---- records ----

    def _unfinished(self, now_ns: int, in_flight: Iterable[Flight], *, with_gaps: bool = True) -> Rows:
        rows = Rows()
        for flight in in_flight:
            if flight.number >= 0:
                rows.add(flight, self._t0_ns, with_gaps=with_gaps)
        scheduled_s = [(due_ns - self._t0_ns) / 1e9 for _, due_ns in self._held if due_ns >= self._t0_ns]
        first = self._number(self._launched - self._early)
        rows.add_held((first, self._spec.workers), scheduled_s, (now_ns - self._t0_ns) / 1e9)
        return rows

    def _facts(self, now_ns: int) -> Header:
        now_s = (now_ns - self._t0_ns) / 1e9 if self._t0_ns else 0.0
        # What is due and not yet sent will come with a time in the past, where requests have one.
        return {"now_s": now_s, "until_s": now_s if self._at_once else min(now_s, self._users.due_s)}

    def _evidence(self, now_ns: int) -> Header:
        stamps = self._pool.stamps
        wall_s = max((now_ns - self._t0_ns) / 1e9, 1e-9)
        return {
            "due": self._due_count,
            "sent": self._sent_count,
            "taken": self._launched,
            "held_back": self._never_sent + sum(due_ns >= self._t0_ns for _, due_ns in self._held),
            "read_delays": stamps.read_delays.counts,
            "kernel_stamps": stamps.from_kernel,
            "behind_s": self._beat.behind_s,
            **self._account.facts(wall_s),
        }


def _ignore(_: Exchange) -> None:
    """An exchange that has been recorded already."""
