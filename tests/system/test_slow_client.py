"""A slow client is found out, and changes no verdict: a worker that is stopped now and then, or shares its core."""

import os
import sys
from pathlib import Path

import pytest

from driving import SimServer
from redline.api import Place, find
from redline.loadgen import open_session
from redline.model import Endpoint, Lengths, Measured, Outcome, Probe, Stop, Trial, Workload
from redline.process import table
from redline.sla import parse_sla
from redline.verdict import judge, usable
from scripted import scripted
from streams import DONE, HEAD, chunk, delta

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from planted import crowded, stopped

ONE = Workload(name="w", prompt=Lengths(mean=20), output=Lengths(mean=1))
MANY = Workload(name="w", prompt=Lengths(mean=20), output=Lengths(mean=8))
TTFT, TPOT = parse_sla("p90_ttft_ms<=100"), parse_sla("p90_tpot_ms<=100")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plants its faults by Linux means")


def takes_30_ms(request):
    """The first token after 30 ms, the others each after 10."""
    tokens = request.json.get("max_tokens", 1)
    steps = [step for _ in range(tokens) for step in (chunk(delta(content="a")), 0.01)]
    return [HEAD, 0.03, *steps, chunk(delta("length")), chunk(DONE) + chunk(b"")]


def trial(outcome: Outcome, probe: Probe) -> Trial:
    return Trial(id="1", case="c", probe=probe, seed=1, started="", outcome=outcome)


def until_2_s(records):
    return Stop(reason="full", at_s=records.observed_s) if records.observed_s > 2 else None


def measured(workload: Workload, probe: Probe, **fault: float) -> Trial:
    """A trial whose worker is stopped."""
    with (
        scripted(takes_30_ms) as server,
        open_session(Endpoint(url=server.url, model="m"), workload) as session,
        stopped(lambda: [session.worker_pid or 0], **fault),
    ):
        return trial(session.measure(probe, until_2_s, seed=1), probe)


def test_late_sends_make_a_trial_unusable():
    found = measured(ONE, Probe(by="rate", load=60, kind="main"))
    good, why = usable(found, TTFT)

    assert not good
    assert "late" in why
    assert "give the client cores of its own" in why
    assert judge(found, TTFT, 0.9).verdict == "undecided"


def test_a_load_that_a_slow_client_lowered_makes_a_trial_unusable():
    found = measured(ONE, Probe(by="concurrency", load=20, kind="main", spread_s=0.1))
    good, why = usable(found, parse_sla("p90_e2el_ms<=100000"))

    assert not good
    assert "kept its users waiting" in why
    assert isinstance(found.outcome, Measured)
    assert found.outcome.client.idle_share > 0.1


def test_first_tokens_that_the_next_ones_overtook_make_a_trial_unusable():
    found = measured(MANY, Probe(by="concurrency", load=20, kind="main", spread_s=0.1))

    assert not usable(found, TTFT)[0]
    assert isinstance(found.outcome, Measured)
    assert found.outcome.client.behind["20"] > 0.05


def test_a_worker_on_a_crowded_core_is_never_taken_for_a_slow_server():
    probe = Probe(by="rate", load=60, kind="main", max_s=4.0)
    with scripted(takes_30_ms) as server, open_session(Endpoint(url=server.url, model="m"), ONE) as session:
        assert session.worker_pid
        with crowded(session.worker_pid, hogs=3):
            found = trial(session.measure(probe, lambda _: None, seed=1), probe)

    assert judge(found, TTFT, 0.9).verdict != "fail" or not usable(found, TTFT)[0]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0  # it has ended


def workers() -> list[int]:
    """Those that this very process started: another run of these tests may be under way beside it."""
    own = [process.pid for process in table.table() if parent(process.pid) == os.getpid()]
    return [pid for pid in own if "redline.loadgen.worker" in table.command_line(pid)]


def test_a_client_that_stays_slow_is_the_answer(tmp_path):
    with SimServer("--max-num-seqs", "64") as server, stopped(workers):  # it carries 40 requests/s of these
        short, place = "random:in=20,out=8", Place(out=tmp_path / "out")
        result = find(server.url, ["p90_ttft_ms<=100"], place=place, workload=short, min=20, max=40)

    answer = result.answers[0]
    assert answer.evidence == "client_limited"
    assert result.exit_code == 5
    assert "give the client cores of its own" in answer.stop_reason
