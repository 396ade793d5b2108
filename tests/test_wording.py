from dataclasses import replace

import pytest

from redline import wording
from redline.experiment.workloads import PRESETS
from redline.model import Answer, ClientEvidence, Failed, Invalid, Measured, Outcome, Probe, Stop, ThinkTime, Trial
from redline.sla import parse_sla

SLA = parse_sla("chat: p99_ttft_ms<=200, p90_tpot_ms<=50")
EDGE = Answer(
    server="max_num_seqs=64",
    workload="chat",
    sla="chat",
    criteria=SLA.criteria,
    variable="rate",
    evidence="edge",
    capacity=12.1,
    estimate=12.3,
    low=11.8,
    high=12.8,
    limiting="p99_ttft_ms<=200",
)


def trial(outcome: Outcome) -> Trial:
    probe = Probe(by="rate", load=12.5, kind="main", asked_by="chat")
    return Trial(id="0001", case="k", probe=probe, seed=1, started="2026-11-25T00:00:00Z", outcome=outcome)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (12.1, "12.1"),
        (12.0, "12"),
        (0.25, "0.25"),
        (0.012345, "0.0123"),
        (1234.5, "1,234"),
        (99.96, "100"),
        (100000.0, "100,000"),
        (0.0, "0"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(x: float, text: str) -> None:
    assert text == wording.number(x)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (125, "2 min 5 s"), (120, "2 min"), (4200, "1 h 10 min")]
)
def test_durations_are_what_a_person_would_say(seconds: float, text: str) -> None:
    assert text == wording.duration(seconds)


def test_an_edge_is_a_sentence_to_repeat() -> None:
    text = wording.sentence(EDGE)

    assert "This server carries 12.1 requests/s within p99_ttft_ms<=200, p90_tpot_ms<=50" in text
    assert "11.8 to 12.8 with 90 % confidence" in text
    assert "gives way first is p99_ttft_ms<=200" in text
    assert "error_rate" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evidence": "floor", "capacity": 50.0, "low": 50.0, "high": None}, "at least 50 requests/s"),
        ({"evidence": "none", "capacity": None, "low": 0.0, "high": 0.01}, "not meet"),
        ({"evidence": "undecided", "stop_reason": "max_trials reached"}, "undecided"),
        ({"evidence": "client_limited", "high": None}, "the load generator gave out"),
        (
            {"evidence": "crashed", "capacity": None, "low": None, "high": 20.0},
            "the server died at 20 requests/s",
        ),
        (
            {"evidence": "not_started", "error": "port taken\nsecond line"},
            "never became ready: port taken\nsecond line",
        ),
        (
            {"evidence": "undecided", "stop_reason": "error", "error": "no model offered\nlog\n", "low": None},
            "undecided within p99_ttft_ms<=200, p90_tpot_ms<=50. It held at 12.1 requests/s. "
            "What ended it: no model offered\nlog",
        ),
    ],
)
def test_every_kind_of_evidence_has_its_sentence(changes: dict[str, object], words: str) -> None:
    assert words in wording.sentence(replace(EDGE, **changes))  # type: ignore[arg-type]  # a table of fields


@pytest.mark.parametrize(
    ("outcome", "stats", "standing", "words"),
    [
        (Stop(reason="full", at_s=60), {"p99_ttft_ms": 184.0}, "holds", "holds: p99_ttft_ms 184 ms of 200 ms"),
        (Stop(reason="full", at_s=60), {"p99_ttft_ms": 240.0}, "too much", "too much: p99_ttft_ms 240 ms > 200 ms"),
        (Stop(reason="over", at_s=9), {}, "too much", "too much: the queue grows"),
        (
            Stop(reason="fail", at_s=9, criterion="p99_ttft_ms<=200"),
            {"p99_ttft_ms": 900.0},
            "too much",
            "900 ms > 200 ms",
        ),
        (Stop(reason="fail", at_s=9, criterion="p99_ttft_ms<=200"), {}, "too much", "p99_ttft_ms<=200 is out of reach"),
        (Stop(reason="budget", at_s=9), {}, "open", "too early"),
    ],
)
def test_a_trial_says_what_came_of_it(outcome: Stop, stats: dict[str, float], standing: str, words: str) -> None:
    found, text = wording.outcome_text(trial(Measured(stop=outcome, duration_s=60.0)), SLA, stats)

    assert standing == found
    assert words in text


def test_a_broken_server_is_no_broken_sla() -> None:
    died = wording.outcome_text(trial(Failed(reason="exit code 9\nmore", server_died=True)), SLA, {})
    unusable = wording.outcome_text(trial(Invalid(reason="sent 40 % of what was due", cure="more cores")), SLA, {})

    assert ("lost", "the server died: exit code 9") == died
    assert ("lost", "not usable: sent 40 % of what was due (more cores)") == unusable


def test_the_best_configuration_is_named_only_where_the_intervals_part() -> None:
    more = replace(EDGE, server="max_num_seqs=128", capacity=24.2, low=23.0, high=26.0)
    near = replace(EDGE, server="max_num_seqs=128", capacity=12.4, low=12.0, high=13.0)

    assert "max_num_seqs=128 carries most: 24.2 requests/s, 2 times as much as max_num_seqs=64." == wording.best_text(
        [EDGE, more]
    )
    assert (
        "Too near to call: max_num_seqs=128 (12.4 requests/s) and max_num_seqs=64 (12.1) overlap; "
        "a smaller --precision may separate them."
    ) == wording.best_text([EDGE, near])
    assert wording.best_text([EDGE]) == ""
    assert wording.best_text([EDGE, replace(more, evidence="client_limited")]) == ""
    assert wording.best_text([EDGE, replace(more, sla="batch")]) == ""


def test_every_configuration_that_may_be_the_best_is_named() -> None:
    most = replace(EDGE, server="a", capacity=12.4, low=12.0, high=13.0)
    open_end = replace(EDGE, server="b", evidence="floor", capacity=10.0, low=10.0, high=None)
    far = replace(EDGE, server="c", capacity=5.0, low=4.0, high=6.0)

    assert (
        "Too near to call: a (12.4 requests/s), max_num_seqs=64 (12.1) and b (10) overlap; "
        "a higher --max may separate them."
    ) == wording.best_text([far, open_end, EDGE, most])


def test_what_several_answers_end_with_is_told_once() -> None:
    dead = replace(EDGE, evidence="not_started", capacity=None, error="exited with code 2; last lines of log:\nboom")

    first, second = wording.sentences([dead, replace(dead, sla="batch")])

    assert "max_num_seqs=64, chat, chat never became ready: exited with code 2; last lines of log:\nboom" == first
    assert "max_num_seqs=64, chat, batch never became ready: as above" == second


@pytest.mark.parametrize(
    ("load", "kind", "held", "warned"),
    [(12.1, "main", 30, True), (12.1, "main", 0, False), (12.1, "scout", 30, False), (14.0, "main", 30, False)],
)
def test_an_answer_warns_of_a_cap_that_was_reached_at_the_capacity(
    load: float, kind: str, held: int, warned: bool
) -> None:
    client = ClientEvidence(due=1200, sent=1200, held=held)
    seen = trial(Measured(stop=Stop(reason="full", at_s=9.0), duration_s=9.0, client=client))
    seen = replace(seen, probe=replace(seen.probe, load=load, kind=kind), warnings=("odd",))  # type: ignore[arg-type]

    expected = "max_in_flight was reached at 12.1 requests/s: 30 of 1,200 requests waited in the client"
    assert ((expected,) if warned else ()) + ("odd",) == wording.notes(EDGE, [seen])
    assert ("odd",) == wording.notes(replace(EDGE, capacity=None), [seen])


def test_a_load_of_users_who_think_counts_users() -> None:
    chat = PRESETS["chat"]
    thoughtful = replace(chat, think_time_s=ThinkTime(mean=2.0))

    assert ("requests in flight", "users") == tuple(wording.unit_of(w, "concurrency") for w in (chat, thoughtful))
    assert wording.unit_of(thoughtful, "rate") == "requests/s"
    assert ("12.1 users", "-") == tuple(
        wording.capacity_text(replace(EDGE, unit="users", capacity=capacity)) for capacity in (12.1, None)
    )
    assert "This server carries 12.1 users within" in wording.sentence(replace(EDGE, unit="users"))
