"""An LLM engine with continuous batching, as a pure state machine over steps.

Each step computes one token for every decoding request and fills what the token budget leaves with prompts, first come
first served; a long prompt is spread over steps. It lasts a fixed time plus so much per prompt token, per decoding
request and per token of KV cache read. Without room in the KV cache the youngest request is preempted and recomputed.

A decoding request gets a token at the end of *every* step until its last. So a request needs two numbers only, the
steps of its first and last token, and steps in which nobody comes or goes cost one addition each.

With a prefix cache, tokens at the start of a prompt that were computed before need no computing.

Not modelled: blocks of KV cache (it is counted in tokens, also where prompts share some), speculative decoding.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from redline.simulate.cache import PrefixCache
from redline.simulate.profiles import Profile


@dataclass(slots=True, eq=False)
class Request:
    """A request on its way through the engine. Steps are counted from the engine's start."""

    number: int
    prompt: int
    output: int
    emitted: int = 0  # tokens given out before the present stay in the batch
    to_prefill: int = 0  # tokens still to compute before the next one can be given out
    first_step: int = -1  # the step that gave the first token of this stay; -1: none yet
    last_step: int = -1  # the step that gives the last token, when it stays
    stays: list[tuple[int, int]] = field(default_factory=list)  # (first, last) step of each stay that preemption ended
    gone: bool = False  # finished or aborted
    blocks: tuple[int, ...] = ()  # of its prompt, for a prefix cache
    cached: int | None = None  # tokens that were found there; None: there is no cache


@dataclass(frozen=True, slots=True)
class Step:
    """What one step does. Its tokens are there when it ends."""

    duration_s: float
    tokens: list[Request]  # requests that get a token
    finished: list[Request]  # those for which it is the last


class Engine:
    """Requests in, steps out. `now_s` is when the next step can start, since the engine's start or, of one that has
    run for `age_s` before, since then.
    """

    def __init__(self, profile: Profile, seed: int = 0, *, age_s: float = 0.0) -> None:
        self.profile = profile
        self.now_s = 0.0
        self._age_s = age_s
        # Read at every step: plain attributes in seconds are worth a tenth of the speed.
        self._step_s, self._prefill_s = profile.step_ms * 1e-3, profile.prefill_us * 1e-6
        self._decode_s, self._read_s = profile.decode_us * 1e-6, profile.kv_ns * 1e-9
        self._slots, self._budget, self._kv_tokens = (
            profile.max_num_seqs,
            profile.max_num_batched_tokens,
            profile.kv_tokens,
        )
        self._varies = profile.drift_per_s != 0 or (profile.cold_factor != 0 and profile.cold_s > 0)
        self.cache = PrefixCache(profile.prefix_cache_tokens) if profile.prefix_cache_tokens else None
        self.steps = 0
        self.waiting: deque[Request] = deque()
        self.running: dict[int, Request] = {}  # in order of admission; at most the last one is still in prefill
        self.kv_used = 0  # tokens held, reserved for a whole prompt when it is admitted
        self.preemptions = 0
        self._decoding = 0
        self._context = 0  # tokens of KV cache that a step reads
        self._partial: Request | None = None  # admitted, its prompt not yet computed
        self._last_steps: list[tuple[int, int, Request]] = []  # a heap; entries of preempted requests are stale
        self._admissions = 0
        rng = np.random.default_rng([0xE0, abs(seed)])
        self._run_factor = math.exp(profile.run_noise * rng.standard_normal())
        stall = profile.stall_every_s
        self._next_stall_s = stall * rng.random() if stall > 0 else math.inf

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def full(self) -> bool:
        """No slot is free: whoever comes now changes nothing until a request ends."""
        return len(self.running) >= self._slots

    def fits(self, prompt: int, output: int) -> bool:
        """Could this request ever be served?"""
        return prompt + output <= min(self.profile.max_model_len, self.profile.kv_tokens)

    def submit(self, request: Request, at_s: float) -> None:
        """Queue a request that `fits`. An idle engine starts its next step no sooner than `at_s`."""
        if not self.busy:
            self.now_s = max(self.now_s, at_s)
            self._skip_stalls()
        request.to_prefill = request.prompt + request.emitted
        self.waiting.append(request)

    def _skip_stalls(self) -> None:
        """Those of the time that nothing ran in harmed nobody, but for what is left of the last one."""
        if self.now_s < self._next_stall_s:
            return
        every_s = self.profile.stall_every_s
        last_s = self._next_stall_s + every_s * math.floor((self.now_s - self._next_stall_s) / every_s)
        self.now_s = max(self.now_s, last_s + self.profile.stall_s)
        self._next_stall_s = last_s + every_s

    def abort(self, request: Request) -> None:
        """Forget a request, wherever it is."""
        if request.gone:
            return
        if request.number in self.running:
            self._leave(request)
        else:
            self.waiting.remove(request)
        request.gone = True

    def step(self) -> Step | None:
        """Do the next step; None when there is nothing to do."""
        if not self.busy:
            return None
        before_s = self.now_s
        self._step()
        tokens = [r for r in self.running.values() if r is not self._partial]
        return Step(self.now_s - before_s, tokens, self._finish())

    def advance(self, until_s: float, ends: array[float]) -> list[Request]:
        """Do steps until one ends at or after `until_s`, or requests finish: those are returned.

        The end of each step is appended to `ends`.
        """
        while self.now_s < until_s and self.busy:
            computed = self._step()
            ends.append(self.now_s)
            finished = self._finish()
            if finished:
                return finished
            if computed or not self._decoding:
                continue
            # Nobody was admitted, so nobody will be before the next arrival, end or preemption: only time passes.
            count, read, now_s = self._decoding, self._context, self.now_s
            same = min(self._next_end() - self.steps, (self._kv_tokens - self.kv_used) // count)
            stop_s = min(until_s, self._next_stall_s, now_s + 1.0 if self._varies else math.inf)
            factor = self._factor() if self._varies else self._run_factor
            base_s = factor * (self._step_s + self._decode_s * count)
            read_s, append = factor * self._read_s, ends.append
            done = 0
            while done < same and now_s < stop_s:
                now_s += base_s + read_s * read
                read += count
                done += 1
                append(now_s)
            self.now_s, self._context = now_s, read
            self.steps += done
            self.kv_used += done * count
        return []

    def _step(self) -> int:
        """Do one step; how many prompt tokens it computed."""
        waiting, running = self.waiting, self.running
        while self.kv_used + self._decoding > self._kv_tokens:
            self._preempt()
        count = self._decoding
        budget = room = max(self._budget - count, 0)
        begun: list[Request] = []
        if self._partial is not None:
            budget = self._compute(self._partial, budget, begun)
        while budget > 0 and waiting and len(running) < self._slots:
            request = waiting[0]
            held = request.to_prefill
            if self.kv_used + count + held > self._kv_tokens:
                break
            waiting.popleft()
            running[request.number] = request
            self.kv_used += held
            if self.cache is not None:
                request.cached = self.cache.look_up(request.blocks, held)
                request.to_prefill -= request.cached
            budget = self._compute(request, budget, begun)
        computed = room - budget
        duration_s = (self._factor() if self._varies else self._run_factor) * (
            self._step_s + self._prefill_s * computed + self._decode_s * count + self._read_s * self._context
        )
        if self.now_s >= self._next_stall_s:
            duration_s += self.profile.stall_s
            every_s = self.profile.stall_every_s
            self._next_stall_s += every_s * math.ceil((self.now_s + duration_s - self._next_stall_s) / every_s)
        self.now_s += duration_s
        self.kv_used += count
        self._context += count
        for request in begun:
            if self.cache is not None:
                self.cache.keep(request.blocks)
            request.first_step = self.steps
            request.last_step = self.steps + request.output - request.emitted - 1
            self._admissions += 1
            heapq.heappush(self._last_steps, (request.last_step, self._admissions, request))
            self._decoding += 1
            self._context += request.prompt + request.emitted
        self.steps += 1
        return computed

    def _compute(self, request: Request, budget: int, begun: list[Request]) -> int:
        """Spend the budget on a prompt; what is left of it."""
        tokens = min(request.to_prefill, budget)
        request.to_prefill -= tokens
        if request.to_prefill:
            self._partial = request
        else:
            self._partial = None
            begun.append(request)
        return budget - tokens

    def _finish(self) -> list[Request]:
        """Take out the requests whose last token came with the step just done."""
        finished = []
        while self._next_end() < self.steps:
            request = self._last_steps[0][2]
            self._leave(request)
            request.gone = True
            finished.append(request)
        return finished

    def _next_end(self) -> float:
        """The step that ends the next request, when nothing else happens."""
        heap = self._last_steps
        while heap and (heap[0][2].gone or heap[0][2].last_step != heap[0][0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def _leave(self, request: Request) -> None:
        """Free the slot and the KV cache of a running request."""
        del self.running[request.number]
        held = request.prompt + request.emitted
        if request is self._partial:
            self._partial = None
        else:
            held += min(self.steps - 1, request.last_step) - request.first_step  # each later token wrote the one before
            self._decoding -= 1
            self._context -= held
        self.kv_used -= held

    def _preempt(self) -> None:
        """Put the youngest request back to the head of the queue, to be computed anew."""
        request = next(reversed(self.running.values()))
        partial = request is self._partial
        self._leave(request)
        if not partial:
            request.stays.append((request.first_step, self.steps - 1))
            request.emitted += self.steps - request.first_step
            request.first_step = request.last_step = -1
        request.to_prefill = request.prompt + request.emitted
        self.waiting.appendleft(request)
        self.preemptions += 1

    def _factor(self) -> float:
        """How much slower than the profile says an engine that changes with time is now."""
        profile = self.profile
        age_s = self._age_s + self.now_s
        cold = profile.cold_factor * math.exp(-age_s / profile.cold_s) if profile.cold_s > 0 else 0.0
        return self._run_factor * (1.0 + profile.drift_per_s * age_s + cold)
