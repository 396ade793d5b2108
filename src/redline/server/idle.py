"""Whether a server has nothing to do."""

from __future__ import annotations

import math
import time
import uuid

from redline.model import Endpoint
from redline.server.ask import NoReplyError, SlowReplyError, ask, first_token_s

# Requests that run or wait, as vLLM, SGLang, llama.cpp and TGI name them.
_GAUGES = frozenset(
    {
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "llamacpp:requests_processing",
        "llamacpp:requests_deferred",
        "tgi_batch_current_size",
        "tgi_queue_size",
    }
)
_PAUSE_S = 0.1
_STALE_S = 2.0  # a gauge that stands still this long may just not be updated any more
_QUICK = 1.5  # a lone request this much slower than the first one did not have the server for itself
_JITTER_S = 0.01  # times that differ by less are the same


class Stillness:
    """Tells whether one server is idle: from its metrics, else from how long a single small request takes."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._apis = ["chat", "completions"]
        self._reference_s: float | None = None

    def load(self) -> float | None:
        """Requests that run or wait now; None where the server does not show it."""
        try:
            reply = ask(self._endpoint, "/metrics")
        except NoReplyError:
            return None
        return requests_in(reply.body) if reply.status == 200 else None

    def busy(self) -> float:
        """Requests of others in a server that we do not use; 0 where none are seen."""
        load = self.load()
        if load:
            self.lone_ttft_s(5.0)  # moves gauges that stand still
            load = self.load()
        return load or 0.0

    def settle(self, limit_s: float) -> str | None:
        """Wait until the server is idle; a warning where it is not within `limit_s`."""
        deadline = time.monotonic() + limit_s
        load = self.load()
        idle = self._wait_by_request(deadline) if load is None else self._wait_by_gauge(load, deadline)
        if idle:
            return None
        return (
            f"the server was not idle before a trial, even after {limit_s:.0f} s: others use it, "
            "or requests of the trial before still ran; latencies may be too high"
        )

    def lone_ttft_s(self, timeout_s: float) -> float | None:
        """Time to first token of one small request, inf after `timeout_s`; None where the server answers none."""
        for api in list(self._apis):
            try:
                took_s = first_token_s(self._endpoint, api, uuid.uuid4().hex, timeout_s=timeout_s)
            except SlowReplyError:
                return math.inf
            except NoReplyError:
                return None
            if took_s is not None:
                self._apis = [api]
                return took_s
        return None

    def _wait_by_gauge(self, load: float, deadline: float) -> bool:
        last, since = load, time.monotonic()
        while load > 0:
            now = time.monotonic()
            if now >= deadline:
                return False
            if load != last:
                last, since = load, now
            elif now - since >= _STALE_S:
                self.lone_ttft_s(deadline - now)
                since = time.monotonic()
            time.sleep(_PAUSE_S)
            again = self.load()
            load = last if again is None else again
        return True

    def _wait_by_request(self, deadline: float) -> bool:
        if self._reference_s is None:
            times = [self.lone_ttft_s(max(1.0, deadline - time.monotonic())) for _ in range(3)]
            self._reference_s = min((took_s for took_s in times if took_s is not None), default=math.inf)
            return True  # nothing to compare with yet
        while (took_s := self.lone_ttft_s(max(1.0, deadline - time.monotonic()))) is not None:
            if took_s <= max(_QUICK * self._reference_s, self._reference_s + _JITTER_S):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_S)
        return True  # it answers no such request: nothing can be seen


def requests_in(metrics: str) -> float | None:
    """Requests that run or wait, summed over engines and models, in a Prometheus page; None where none is shown."""
    values = []
    for line in metrics.splitlines():
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        if name in _GAUGES:
            values.append(float(rest.rpartition("}")[2].split()[0]))
    return sum(values) if values else None
