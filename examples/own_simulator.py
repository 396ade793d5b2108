"""A simulator of your own as a Session: here a queue with one server. Run it: python examples/own_simulator.py"""

from __future__ import annotations

import numpy as np

from redline.model import Goal, Measured, Outcome, Probe, Stop, Watch
from redline.records import Records, Status
from redline.simulate.find import search_on
from redline.sla import parse_sla


class OneServer:
    """Requests come at random and are served one by one, each for an exponential time. Whole answers, no tokens."""

    live = True  # measure() shows its records while it runs, so that hopeless trials end early

    def __init__(self, mean_service_s: float) -> None:
        self.mean_service_s = mean_service_s

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:
        rng, now_s = np.random.default_rng(seed), 0.0
        count = min(int(probe.load * probe.max_s) + 1, probe.max_requests or 100_000)
        scheduled_s = np.cumsum(rng.exponential(1 / probe.load, count))
        served_s = np.cumsum(service_s := rng.exponential(self.mean_service_s, count))
        end_s = served_s + np.maximum.accumulate(scheduled_s - (served_s - service_s))  # who comes to a queue waits
        last_s = min(float(scheduled_s[-1]), probe.max_s)
        while True:
            now_s = min(now_s + 1.0, last_s)
            sent, done = scheduled_s[scheduled_s <= now_s], end_s[scheduled_s <= now_s] <= now_s
            ends_s, tokens = np.where(done, end_s[: len(sent)], np.nan), np.ones(len(sent), np.int32)
            status = np.where(done, Status.OK, Status.RUNNING).astype(np.uint8)
            records = Records(
                observed_s=now_s,
                scheduled_s=sent,
                sent_s=sent,
                first_s=ends_s,
                end_s=ends_s,
                status=status,
                tokens_in=tokens,
                tokens_out=tokens * done,
                tokens_asked=tokens,
            )
            stop = watch(records) or (Stop(reason="budget", at_s=now_s) if now_s >= last_s else None)
            if stop:
                return Measured(stop=stop, duration_s=now_s, records=records)


def make_session() -> OneServer:
    """For the accuracy suite: --session own_simulator:make_session."""
    return OneServer(0.1)


if __name__ == "__main__":
    answer, trials = search_on(OneServer(0.1), parse_sla("p90_e2el_ms<=1s"), Goal(precision=0.1))
    print(f"{answer.evidence}: rely on {answer.capacity:.2f} requests/s, of [{answer.low:.2f}, {answer.high:.2f}]")
    print(f"the truth is {10 - np.log(10):.2f}; {len(trials)} trials, {answer.requests} requests")
