"""From the worker's reports to records and evidence: nothing lost, everything in order."""

import math
import tracemalloc
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.loadgen.beat import BEHIND_MS
from redline.loadgen.collect import Collector
from redline.loadgen.evidence import evidence_of, offered, summed
from redline.loadgen.flights import COLUMNS
from redline.loadgen.stamps import Histogram, Stamps
from redline.loadgen.wire import Decoder, encode
from redline.model import ClientEvidence
from redline.records import Records, Status


@given(
    st.lists(st.tuples(st.text(max_size=5), st.dictionaries(st.text(max_size=3), st.binary(max_size=40)))), st.data()
)
def test_messages_survive_any_split(sent, data):
    wire = b"".join(encode(kind, {"n": n}, columns) for n, (kind, columns) in enumerate(sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    decoder = Decoder()
    got = [said for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True) for said in decoder.feed(wire[a:b])]

    assert [(kind, n) for n, (kind, _) in enumerate(sent)] == [(said.kind, said.header["n"]) for said in got]
    assert [{k: v for k, v in columns.items() if v} for _, columns in sent] == [dict(said.columns) for said in got]


def rows(requests, prefix):
    """Columns of (number, gaps, status)."""
    columns = {name: array(kind) for name, kind in COLUMNS.items()}
    for number, gaps, status in requests:
        columns["i"].append(number)
        for name in ("scheduled_s", "sent_s", "first_s"):
            columns[name].append(float(number))
        columns["end_s"].append(math.nan if status is Status.RUNNING else number + 0.5)
        for name in ("tokens_in", "tokens_out", "tokens_asked"):
            columns[name].append(number)
        columns["status"].append(status)
        columns["gap_count"].append(len(gaps))
        columns["held_s"].append(0.0)
        columns["gaps_us"].extend(gaps)
    return {f"{prefix}.{name}": column.tobytes() for name, column in columns.items()}


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(12)), st.lists(st.integers(0, 12), max_size=4), st.randoms())
def test_records_are_in_order_and_complete_whenever_requests_end(order, ticks, random):
    gaps = {i: [100 * i + k for k in range(random.randrange(4))] for i in range(12)}
    collector, done = Collector(), 0
    for tick in [*sorted(ticks), 12]:
        ended, running = order[done:tick], order[tick:]
        done = tick
        finished = rows([(i, gaps[i], Status.OK) for i in ended], "done")
        collector.add(finished | rows([(i, gaps[i][:1], Status.RUNNING) for i in running], "live"))
        records = collector.records(float(tick))

        running = set(running)
        expected = [gaps[i][:1] if i in running else gaps[i] for i in range(12)]
        assert list(range(12)) == records.scheduled_s.tolist() == records.tokens_in.tolist()
        assert [i in running for i in range(12)] == records.running.tolist()
        assert [gap for own in expected for gap in own] == records.gaps_us.tolist()
        assert np.cumsum([0, *map(len, expected)]).tolist() == records.gap_offsets.tolist()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_records_of_several_workers_never_change_what_was_seen(data):
    collector, told = Collector(3), [0, 0, 0]
    seen = []
    for _ in range(data.draw(st.integers(1, 8))):
        worker = data.draw(st.integers(0, 2))
        until = told[worker] + data.draw(st.integers(0, 6))
        mine = [(i, [], Status.OK) for i in range(told[worker], until) if i % 3 == worker]
        told[worker] = until
        collector.add(rows(mine, "done"), float(until), worker)
        seen.append(collector.records(0.0).scheduled_s.tolist())

    assert seen[-1] == list(range(min(told)))
    for earlier in seen:
        assert earlier == seen[-1][: len(earlier)]


@pytest.mark.parametrize(("holds", "most"), [(False, 110), (True, 180)])
def test_a_long_trial_is_kept_once_in_few_bytes(holds, most):
    """Beside the records that were seen last, where somebody holds those."""
    many, each = 100_000, 2_000
    records = None
    tracemalloc.start()
    collector = Collector()
    for first in range(0, many, each):
        collector.add(rows([(i, (7, 7), Status.OK) for i in range(first, first + each)], "done"))
        if not holds:
            del records
        records = collector.records(1.0)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(records) == many
    assert kept < 75 * many  # 65 of columns: a million requests in 75 MB
    assert peak < most * many


def test_what_was_seen_before_stays_as_it_was():
    collector = Collector()
    collector.add(rows([(0, (5,), Status.OK)], "done") | rows([(1, (6,), Status.RUNNING)], "live"))
    before = collector.records(1.0)
    collector.add(rows([(1, (6, 7), Status.OK)], "done") | rows([(2, (), Status.RUNNING)], "live"))
    after = collector.records(2.0)

    assert ([0, 1], [Status.OK, Status.RUNNING], [5, 6]) == (
        before.scheduled_s.tolist(),
        before.status.tolist(),
        before.gaps_us.tolist(),
    )
    assert ([0, 1, 2], [5, 6, 7]) == (after.scheduled_s.tolist(), after.gaps_us.tolist())


def test_evidence_of_many_gaps_takes_no_copy_of_all():
    gaps_us = np.tile(np.array([0, 10_000, 20_000, 20_000, 30_000], np.int32), 1_000_000)
    tracemalloc.start()
    client = evidence(delays_us=[9_000] * 10 + [11_000] * 10, gaps_us=gaps_us)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert client.merged_reads == pytest.approx(0.5)
    assert peak < 45_000_000  # of which 20 are the gaps themselves


def test_no_reports_are_no_requests():
    records = Collector().records(1.0)

    assert (len(records), records.gap_offsets.tolist()) == (0, [0])


@given(st.lists(st.integers(-5, 10**10), min_size=1), st.floats(0, 1))
def test_a_histogram_is_close_to_the_samples(samples, q):
    histogram = Histogram()
    for sample in samples:
        histogram.add(sample)

    exact = float(np.quantile(np.maximum(samples, 0), q, method="inverted_cdf"))
    assert len(samples) == histogram.total()
    assert histogram.quantile_us(q) == pytest.approx(exact, rel=0.04)


def test_a_histogram_knows_what_lies_above():
    histogram = Histogram()
    for sample in range(100):
        histogram.add(sample)

    assert histogram.share_over(49) == pytest.approx(0.5)
    assert Histogram().share_over(1) == 0.0


def test_stamps_of_a_wall_clock_that_was_set_are_not_believed():
    stamps, now_ns = Stamps(), 10**15
    far = [(1, 35, (12345).to_bytes(8, "little") + bytes(8))]

    assert now_ns == stamps.arrived_ns(far, now_ns) == stamps.arrived_ns([], now_ns)
    assert stamps.from_kernel == 0


def evidence(late_us=(), delays_us=(), gaps_us=(), **more) -> ClientEvidence:
    late, delays = Histogram(), Histogram()
    for us in late_us:
        late.add(us)
    for us in delays_us:
        delays.add(us)
    facts = {"late": late.counts, "read_delays": delays.counts, "kernel_stamps": True, "cpu_shares": [0.1]}
    facts |= {
        "due": 100,
        "sent": 100,
        "held_back": 0,
        "involuntary_switches": 3,
        "without_usage": 0,
        "errors": {"x": 1},
        "behind_s": [0.0] * len(BEHIND_MS),
        "idle_s": 0.0,
        "wall_s": 10.0,
    }
    none = np.zeros(0)
    records = Records(
        observed_s=1.0,
        **dict.fromkeys(("scheduled_s", "sent_s", "first_s", "end_s"), none),
        **{name: none.astype(np.int32) for name in ("tokens_in", "tokens_out", "tokens_asked")},
        status=none.astype(np.uint8),
        gaps_us=np.array(gaps_us, np.int32),
    )
    return evidence_of({**facts, **more}, records)


def test_reads_later_than_half_a_gap_are_merged():
    client = evidence(delays_us=[10] * 95 + [9_000] * 5, gaps_us=[0, 0, 0, 0, 10_000, 10_000])

    assert client.merged_reads == pytest.approx(0.05)
    assert client.read_delay_p99_s == pytest.approx(0.009, rel=0.04)
    assert evidence(delays_us=[9_000]).merged_reads == 0.0


def test_while_tokens_keep_coming_only_the_time_held_up_tells_of_merged_reads():
    client = evidence(delays_us=[10] * 100, gaps_us=[20_000] * 9, behind_s=[0.5, 0.3, 0.1, *[0.0] * 7])

    assert client.behind == {"5": 0.05, "10": 0.03, "20": 0.01, "50": 0.0}
    assert client.merged_reads == pytest.approx(0.03)
    assert evidence(delays_us=[10] * 100, gaps_us=[200_000] * 9, behind_s=[0.5, *[0.0] * 9]).merged_reads == 0.0


def test_evidence_of_several_workers_is_added_up_and_the_busiest_is_kept():
    late, none = Histogram(), Histogram()
    late.add(700)
    facts = {"due": 5, "sent": 5, "held_back": 0, "idle_s": 1.0, "wall_s": 2.0, "involuntary_switches": 1}
    facts |= {
        "without_usage": 0,
        "taken": 5,
        "reason": "budget",
        "behind_s": [0.2] + [0.0] * 9,
        "kernel_stamps": True,
        "read_delays": none.counts,
    }
    one = {**facts, "late": late.counts, "cpu_share": 0.2, "errors": {"x": 1}}
    other = {**facts, "late": none.counts, "cpu_share": 0.6, "errors": {"x": 2, "y": 1}}

    both = summed([one, other])

    assert (both["due"], both["sent"], both["errors"]) == (10, 10, {"x": 3, "y": 1})
    assert both["cpu_shares"] == [0.2, 0.6]
    assert Histogram(both["late"]).total() == 1
    assert both["behind_s"][0] / both["wall_s"] == pytest.approx(0.1)


def test_lateness_is_told_by_quantiles():
    client = evidence(late_us=[20] * 98 + [5_000] * 2)

    assert (client.late_p50_s, client.late_p99_s) == (pytest.approx(2e-5), pytest.approx(5e-3, rel=0.04))


@pytest.mark.parametrize(
    ("due", "sent", "back", "expected"),
    [(100, 100, 0, True), (100, 90, 0, True), (100, 89, 0, False), (9, 1, 0, True), (200, 100, 100, True)],
)
def test_a_load_that_was_not_offered_is_no_evidence(due, sent, back, expected):
    assert expected is offered(evidence(due=due, sent=sent, held_back=back))


def test_tokens_counted_as_events_are_said():
    assert evidence().tokens_from_usage
    assert not evidence(without_usage=1).tokens_from_usage


def test_waits_for_a_place_are_kept_and_records_from_before_there_were_any_are_read():
    held = rows([(0, [], Status.OK), (1, [], Status.OK)], "done") | {"done.held_s": array("d", [0.0, 0.5]).tobytes()}
    collector = Collector()
    collector.add(held)
    records = collector.records(9.0)
    older = {name: column for name, column in records.columns().items() if name != "held_s"}

    assert [0.0, 0.5] == Records.from_columns(records.columns()).held_s.tolist()
    assert [0.0, -0.5] == records.late_s().tolist()  # sent when it was due, says this made-up record
    assert [0.0, 0.0] == Records.from_columns(older).late_s().tolist()
