"""The simulated server in virtual time, as a Session: an hour of load in seconds, and exact records."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from redline import lengths
from redline.model import ClientEvidence, Failed, Measured, Outcome, Probe, Stop, Watch, Workload
from redline.prefixes import BLOCK_TOKENS, blocks_of, group_of, has_blocks, shared
from redline.records import Ints, Records, Status
from redline.simulate.cache import BLOCK
from redline.simulate.columns import Columns, gaps_of, stays_of
from redline.simulate.conversations import Conversations
from redline.simulate.engine import Engine, Request
from redline.simulate.profiles import Profile
from redline.users import Turn, Users

_CHUNK = 1024
_FAR = 1 << 24  # blocks of one prompt at most
_LOOK_AGAIN = 0.03  # after so much of the time so far, or a second: else a long trial costs the square of its length
_TURNAROUND_S = 0.001  # until a user is back: as over a real network, the step that begins meanwhile is missed


class VirtualSession:
    """Measures a profile under a workload. The client is perfect; each trial finds an idle server.

    `clock_s` goes on from trial to trial: a profile that drifts does so through a whole search.
    Not `live`, it does as an external command does: nobody watches, and all requests are let finish.
    """

    def __init__(self, profile: Profile, workload: Workload, *, live: bool = True) -> None:
        self.profile = profile
        self.workload = workload
        self.live = live
        self.clock_s = 0.0

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:
        run = Run(self.profile, self.workload, probe, seed, age_s=self.clock_s, drain=probe.drain or not self.live)
        if not self.live:
            return self._measure_whole(run)
        limit_s = math.inf if probe.drain else probe.max_s
        gaps = not probe.need or any("itl" in text for text in probe.need)  # by the million: made for who asks for them
        now_s, stop = 0.0, None
        while stop is None:
            now_s = min(math.floor(now_s + max(1.0, _LOOK_AGAIN * now_s)), limit_s)
            run.advance(now_s)
            now_s = min(now_s, run.over_s)
            records = run.records(now_s, gaps=gaps)
            if run.crashed:
                self.clock_s += self.workload.ramp_s + now_s
                now_s = max(now_s, 0.0)
                return Failed(reason=run.crashed, duration_s=now_s, log_tail=run.crashed, server_died=True)
            stop = watch(records)
            if stop is None and now_s >= min(limit_s, run.over_s):
                stop = Stop(reason="ended" if probe.drain else "budget", at_s=now_s)
        self.clock_s += self.workload.ramp_s + now_s
        records = records if gaps else run.records(now_s)
        return Measured(stop=stop, duration_s=now_s, records=records, client=run.client())

    def _measure_whole(self, run: Run) -> Outcome:
        run.advance(math.inf)
        self.clock_s += self.workload.ramp_s + run.over_s
        if run.crashed:
            return Failed(reason=run.crashed, duration_s=max(run.over_s, 0.0), log_tail=run.crashed, server_died=True)
        stop = Stop(reason="ended", at_s=run.over_s)
        return Measured(stop=stop, duration_s=run.over_s, records=run.records(run.over_s), client=run.client())


class Run:
    """One load on one engine, from idle: `advance` goes on in virtual time, `records` says what was seen."""

    def __init__(
        self, profile: Profile, workload: Workload, probe: Probe, seed: int, *, age_s: float = 0.0, drain: bool = False
    ) -> None:
        self._drain = drain
        self.crashed = ""  # what a server that died would have said
        self._lead_s = workload.ramp_s  # the engine's time at which the trial begins
        self._early = 0  # requests before that
        self._over_s = math.inf  # when it ended: the server died, or the last request that the probe allows was sent
        self._send_until_s = self._lead_s + probe.max_s if probe.drain else math.inf
        self._faults = profile.faults
        self._limit = math.inf if probe.max_requests is None else probe.max_requests
        self._timeout_s = workload.request_timeout_s
        self._closed = probe.by == "concurrency"
        self._places = workload.max_in_flight or math.inf
        self._held: deque[Request] = deque()  # due, and waiting for a place
        self._engine = Engine(profile, seed, age_s=age_s)
        self._prefix, self._seed = workload.prefix, seed
        self._workload = workload
        self._lengths = _lengths(workload, seed)
        self._users = Users(workload, probe.by, probe.load, seed, probe.spread_s)
        self._turns: dict[int, Turn] = {}  # of the users who will be back
        context = min(profile.max_model_len, profile.kv_tokens)
        self._talks = None if workload.turns is None else Conversations(workload, seed, context)
        self._requests: list[Request] = []
        self._ends = array("d")  # when each step ended
        self._late: list[Request] = []  # finished when the engine's last step ended, which may be after `advance` did
        self._oldest = 0  # all requests before this one have ended
        self._in_flight = 0
        self._columns = Columns()
        self._settled = 0  # requests whose gaps are kept, because they and all before them have ended
        self._settled_gaps: Ints = np.zeros(0, np.int32)

    @property
    def over_s(self) -> float:
        """When it ended, since the trial began: the server died, or the last request that is allowed was sent."""
        return self._over_s - self._lead_s

    @property
    def _counted(self) -> int:
        return len(self._requests) - self._early

    def advance(self, until_s: float) -> None:
        """Let the load run on until this time, or until `over_s`."""
        engine = self._engine
        until_s += self._lead_s
        while True:
            until_s = min(until_s, self._over_s)
            if not engine.busy and not self._late:
                if self._next_due_s() > until_s:
                    if not self._requests and self._send_until_s <= until_s:
                        self._over_s = self._send_until_s
                    return
                self._send()
                continue
            while self._next_due_s() <= min(engine.now_s, until_s):
                self._send()
            until_s = min(until_s, self._over_s)
            if engine.now_s > until_s:
                return
            for request in self._late:
                self._in_flight -= 1
                self._ended(request, Status.OK, engine.now_s)
            self._late = []
            while (timeout_s := self._timeout_at_s()) <= engine.now_s:
                request = self._requests[self._oldest]
                if self._held and request is self._held[0]:
                    self._held.popleft()
                else:
                    engine.abort(request)
                    self._in_flight -= 1
                self._ended(request, Status.TIMED_OUT, timeout_s)
            self._release(engine.now_s)
            if engine.now_s >= until_s:
                return
            stop_s = until_s if engine.full else min(until_s, self._next_due_s())
            self._late = engine.advance(min(stop_s, timeout_s), self._ends)

    def records(self, now_s: float, *, gaps: bool = True) -> Records:
        """Everything sent until now, as a client sees it at this time, which must be where `advance` ended."""
        engine_s, early = now_s + self._lead_s, self._early
        steps = bisect_right(self._ends, engine_s)
        columns = self._columns
        first, out = np.array(columns.first), np.array(columns.out, np.int32)
        for request in self._begun():
            if stays := stays_of(request, steps):
                first[request.number] = self._ends[stays[0][0]]
                out[request.number] = sum(b - a + 1 for a, b in stays)
        flat, offsets = np.zeros(0, np.int32), np.zeros(0, np.int64)
        if gaps:
            offsets = np.concatenate([[0], np.cumsum(np.maximum(out.astype(np.int64) - 1, 0))])
            flat = self._gaps(steps, offsets)
            flat, offsets = flat[offsets[early] :], offsets[early:] - offsets[early]
        scheduled = np.array(columns.scheduled)[early:]
        end = np.array(columns.end)[early:]
        sent, held = scheduled - self._lead_s, np.zeros(0)
        if columns.held:
            waited = np.array(columns.held)[early:]
            held = np.where(np.isnan(waited), np.where(np.isnan(end), engine_s, end) - scheduled, waited)
            sent += waited
        return Records(
            observed_s=now_s,
            scheduled_s=scheduled - self._lead_s,
            sent_s=sent,
            first_s=first[early:] - self._lead_s,
            end_s=end - self._lead_s,
            tokens_in=np.array(columns.tokens_in, np.int32)[early:],
            tokens_out=out[early:],
            tokens_asked=np.array(columns.asked, np.int32)[early:],
            status=np.array(columns.status, np.uint8)[early:],
            gaps_us=flat,
            gap_offsets=offsets,
            held_s=held if held.any() else np.zeros(0),
        )

    def client(self) -> ClientEvidence:
        """What a perfect client reports."""
        early = self._early
        due, waits = len(self._requests) - early, np.array(self._columns.held)[early:]
        status = np.frombuffer(self._columns.status, np.uint8)[early:]
        texts = {
            Status.FAILED: "simulated error",
            Status.REJECTED: "HTTP 429: simulated rejection",
            Status.TIMED_OUT: "timed out",
        }
        errors = {text: count for kind, text in texts.items() if (count := int(np.sum(status == kind)))}
        held, back = int(np.count_nonzero(waits)), int(np.isnan(waits).sum())
        return ClientEvidence(due=due, sent=due - back, held=held, held_back=back, kernel_stamps=True, errors=errors)

    def _begun(self) -> Iterator[Request]:
        """The requests in flight that may have tokens."""
        yield from self._late
        yield from self._engine.running.values()
        for request in self._engine.waiting:  # the preempted are at its head
            if not request.stays:
                return
            yield request

    def _gaps(self, steps: int, offsets: NDArray[np.int64]) -> Ints:
        """Gaps between the tokens of each request until this step, flat.

        Those of the first requests, once all of them have ended, are kept from call to call: making them anew each
        second would cost the square of a trial's length.
        """
        kept = int(offsets[self._settled])
        rows = [(r.number, a, b) for r in self._requests[self._settled :] for a, b in stays_of(r, steps)]
        fresh = gaps_of(np.array(rows, np.int64).reshape(-1, 3), np.array(self._ends))
        flat = np.concatenate([self._settled_gaps[:kept], fresh])
        self._settled = self._oldest
        settled = int(offsets[self._settled])
        if settled > len(self._settled_gaps):
            self._settled_gaps = np.resize(self._settled_gaps, 2 * settled)
        self._settled_gaps[kept:settled] = flat[kept:settled]
        return flat

    def _next_due_s(self) -> float:
        due_s = self._users.due_s + self._lead_s
        return due_s if self._counted < self._limit and due_s <= self._send_until_s else math.inf

    def _send(self) -> None:
        """Send the request that is due next."""
        turn = self._users.take()
        due_s, number = turn.due_s + self._lead_s, len(self._requests)
        self._early += turn.due_s < 0
        if self._closed or self._talks is not None:
            self._turns[number] = turn
        if self._talks is None:
            (prompt, asked), name = next(self._lengths), number
        else:
            prompt, asked, name = self._talks.tokens(turn)
        sent, faults = number + 1, self._faults
        broken = faults.error_every and sent % faults.error_every == 0
        request = Request(number, prompt, max(asked // 2, 1) if broken else asked)
        if self._engine.cache is not None:
            request.blocks = self._blocks(name, prompt)
        self._requests.append(request)
        self._columns.add(due_s, prompt, asked)
        if self._places < math.inf:
            self._columns.held.append(0.0)
        if self._in_flight >= self._places:
            self._columns.held[number] = math.nan
            self._held.append(request)
        else:
            self._submit(request, due_s)

    def _release(self, at_s: float) -> None:
        """Submit those that waited for a place, as long as there is one."""
        while self._held and self._in_flight < self._places:
            request = self._held.popleft()
            self._columns.held[request.number] = at_s - self._columns.scheduled[request.number]
            self._submit(request, at_s)

    def _submit(self, request: Request, at_s: float) -> None:
        faults, sent = self._faults, request.number + 1
        if faults.reject_every and sent % faults.reject_every == 0:
            self._ended(request, Status.REJECTED, at_s)
        elif not self._engine.fits(request.prompt, self._columns.asked[request.number]):
            self._ended(request, Status.FAILED, at_s)
        else:
            self._in_flight += 1
            self._engine.submit(request, at_s)
        if (faults.crash_after and sent >= faults.crash_after) or self._in_flight > (faults.crash_above or math.inf):
            self.crashed = f"simulated crash with {self._in_flight} requests in flight"
        if self.crashed or (sent - self._early >= self._limit and not self._drain):
            self._over_s = at_s

    def _blocks(self, number: int, prompt: int) -> tuple[int, ...]:
        """Blocks of the prompt: those that it has in common with others, and its own."""
        prefix, whole = self._prefix, prompt // BLOCK
        if has_blocks(self._workload):
            of_trace, each = blocks_of(self._workload, self._seed, number), BLOCK_TOKENS // BLOCK
            ours = [(-1 - block) * _FAR + n for block in of_trace for n in range(each)][:whole]
            return (*ours, *(number * _FAR + n for n in range(len(ours), whole)))
        common = 0 if prefix is None else shared(prefix, prompt) // BLOCK
        group = 0 if prefix is None else group_of(prefix, self._seed, number)
        return tuple((-1 - group) * _FAR + n if n < common else number * _FAR + n for n in range(whole))

    def _ended(self, request: Request, status: Status, at_s: float) -> None:
        faults, columns, number = self._faults, self._columns, request.number
        if status is Status.OK and faults.error_every and (number + 1) % faults.error_every == 0:
            status = Status.FAILED
        columns.status[number] = status
        columns.end[number] = at_s
        stays = request.stays = stays_of(request, len(self._ends))
        request.first_step, request.blocks = -1, ()  # a long trial has many requests, and a long prompt many blocks
        if stays:
            columns.first[number] = self._ends[stays[0][0]]
            columns.out[number] = sum(b - a + 1 for a, b in stays)
        if turn := self._turns.pop(number, None):
            ok = status is Status.OK
            if self._talks is not None and ok:
                self._talks.answered(turn, columns.out[number])
            elif self._talks is not None:
                self._talks.broken_off(turn)
            self._users.answered(turn, at_s + _TURNAROUND_S - self._lead_s, ok=ok)
        if not self._in_flight and not self._held and self._next_due_s() == math.inf:
            self._over_s = at_s if self._counted >= self._limit else max(at_s, self._send_until_s)

    def _timeout_at_s(self) -> float:
        """When the oldest request in flight times out."""
        columns, oldest = self._columns, self._oldest
        while oldest < len(columns.status) and columns.status[oldest] != Status.RUNNING:
            oldest += 1
        self._oldest = oldest
        return columns.scheduled[oldest] + self._timeout_s if oldest < len(columns.status) else math.inf


def _lengths(workload: Workload, seed: int) -> Iterator[tuple[int, int]]:
    """Prompt and output tokens of request 0, 1, ..."""
    start = 0
    while True:
        prompts, outputs = lengths.tokens(workload, seed, start, _CHUNK)
        yield from zip(prompts.tolist(), outputs.tolist(), strict=True)
        start += _CHUNK
