"""Trials and answers as JSON."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.codec import (
    answers_document,
    read_trial,
    trial_from_json,
    trial_to_json,
)
from redline.model import (
    Answer,
    ClientEvidence,
    Criterion,
    Failed,
    Invalid,
    Measured,
    Probe,
    RedlineError,
    Stop,
    Trial,
)
from redline.records import Records

# ---- trials ----------------------------------------------------------------------------------------------------------

FLOATS = st.floats(allow_nan=False)
WORDS = st.text(max_size=20)
FACTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OUTCOMES = st.one_of(
    st.builds(
        Measured,
        stop=st.builds(
            Stop,
            reason=st.sampled_from(["full", "fail", "over", "scouted", "budget", "ended"]),
            at_s=FLOATS,
            window_start_s=FLOATS,
            criterion=st.one_of(st.none(), PLAIN),
            detail=PLAIN,
        ),
        duration_s=FLOATS,
        records=st.none(),
        aggregates=st.lists(st.dictionaries(PLAIN, FLOATS, max_size=3), max_size=2).map(tuple),
        client=st.builds(
            ClientEvidence, due=st.integers(0, 10**9), late_p99_s=FLOATS, errors=st.dictionaries(PLAIN, st.integers(0))
        ),
    ),
    st.builds(Failed, reason=PLAIN, duration_s=FLOATS, log_tail=PLAIN, server_died=st.booleans()),
    st.builds(Invalid, reason=PLAIN, cure=PLAIN, duration_s=FLOATS),
)
TRIALS = st.builds(
    Trial,
    id=PLAIN,
    case=PLAIN,
    probe=st.builds(
        Probe,
        by=st.sampled_from(["rate", "concurrency"]),
        load=FLOATS,
        kind=st.sampled_from(["scout", "main", "confirm", "hold", "list"]),
        need=st.dictionaries(PLAIN, st.integers(0, 10**9), max_size=2),
        max_s=FLOATS,
        max_requests=st.one_of(st.none(), st.integers(0, 10**9)),
        asked_by=PLAIN,
    ),
    seed=st.integers(-(2**63), 2**63 - 1),
    started=PLAIN,
    outcome=OUTCOMES,
    server_start=PLAIN,
    facts=st.dictionaries(st.text("abc_", max_size=5), FACTS, max_size=3),
    warnings=st.lists(PLAIN, max_size=2).map(tuple),
)


@given(TRIALS)
def test_a_trial_reads_back_from_its_line_as_it_was(trial):
    line = trial_to_json(trial)

    assert trial == trial_from_json(line) == trial_from_json(line.encode())
    assert "\n" not in line
    assert line.isascii()


def test_a_line_says_how_many_requests_the_trial_has_but_not_which():
    records = Records(
        observed_s=1.0,
        scheduled_s=np.array([0.125]),
        sent_s=np.array([0.125]),
        first_s=np.array([math.nan]),
        end_s=np.array([math.nan]),
        tokens_in=np.array([1], np.int32),
        tokens_out=np.array([0], np.int32),
        tokens_asked=np.array([1], np.int32),
        status=np.array([1], np.uint8),
    )
    trial = trial_of(Measured(stop=Stop(reason="full", at_s=math.nan), duration_s=math.inf, records=records))

    line = trial_to_json(trial)
    stored = read_trial(line)

    assert 1 == stored.requests
    assert stored.trial.outcome.records is None
    assert math.isnan(stored.trial.outcome.stop.at_s)
    assert math.inf == stored.trial.outcome.duration_s
    assert "0.125" not in line
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_text_that_is_no_unicode_does_not_stop_a_trial_from_being_kept():
    trial = trial_of(Failed(reason="said \udcff\ud800"))

    assert "said ??" == trial_from_json(trial_to_json(trial)).outcome.reason


def test_secrets_do_not_get_into_a_line():
    client = ClientEvidence(errors={"401: wrong key sk-secret": 3})
    trial = replace(
        trial_of(Measured(stop=Stop(reason="full", at_s=1.0), duration_s=1.0, client=client)),
        warnings=("sent Authorization: Bearer abcdef",),
        facts={"api_key": "abc"},
    )

    line = trial_to_json(trial, ["sk-secret"])

    assert not any(secret in line for secret in ("sk-secret", "abcdef", '"abc"'))
    assert {"401: wrong key ***": 3} == trial_from_json(line).outcome.client.errors


def test_fields_of_a_later_version_are_passed_over():
    line = json.loads(trial_to_json(trial_of(Failed(reason="x"))))
    line["new"] = 1
    line["outcome"]["failed"]["newer"] = 2
    line["probe"]["newest"] = 3

    assert "x" == trial_from_json(json.dumps(line)).outcome.reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "redline.trial/2"}, "redline.trial/2.*use the version that wrote it"),
        ({"probe": 5}, "probe"),
        ({"outcome": {}}, "neither measured nor failed nor invalid"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_a_line_that_is_no_trial_says_what_is_wrong(change, says):
    line = {**json.loads(trial_to_json(trial_of(Failed(reason="x")))), **change}

    with pytest.raises(RedlineError, match=says):
        trial_from_json(json.dumps(line))


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '"x"', "\x00\x00"])
def test_what_is_no_line_is_an_error_of_ours(line):
    with pytest.raises(RedlineError):
        trial_from_json(line)


def trial_of(outcome):
    probe = Probe(by="rate", load=1.0, kind="main")
    return Trial(id="0001", case="c", probe=probe, seed=1, started="2026-01-01T00:00:00+00:00", outcome=outcome)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_written_as_the_schema_says():
    answer = Answer(
        server="max_num_seqs=64",
        workload="chat",
        sla="chat",
        criteria=(
            Criterion(metric="p99_ttft_ms", op="<=", bound=200.0),
            Criterion(metric="error_rate", op="<=", bound=0.01, default=True),
        ),
        variable="rate",
        evidence="edge",
        capacity=12.1,
        estimate=12.3,
        low=11.8,
        high=math.inf,
        limiting="p99_ttft_ms<=200",
        headroom={"error_rate<=0.01": math.inf},
        at_capacity={"p99_ttft_ms": 191.0, "mean_itl_ms": math.nan},
        trials=7,
        requests=9_120,
        benchmark_s=143.2,
        stop_reason="precision reached",
        warnings=("w",),
    )

    document = answers_document("redline-results/x", [answer], [{"true_capacity": 12.0}])

    assert {
        "schema": "redline.answer/1",
        "experiment": "redline-results/x",
        "answers": [
            {
                "server": "max_num_seqs=64",
                "workload": "chat",
                "sla": "chat",
                "criteria": ["p99_ttft_ms<=200", "error_rate<=0.01"],
                "variable": "rate",
                "unit": "requests/s",
                "capacity": 12.1,
                "estimate": 12.3,
                "low": 11.8,
                "high": None,
                "confidence": 0.9,
                "evidence": "edge",
                "quality": "records",
                "limiting": "p99_ttft_ms<=200",
                "headroom": {"error_rate<=0.01": None},
                "verdict_at_capacity": "undecided",
                "at_capacity": {"p99_ttft_ms": 191.0, "mean_itl_ms": None},
                "trials": 7,
                "requests": 9_120,
                "benchmark_s": 143.2,
                "stop_reason": "precision reached",
                "warnings": ["w"],
                "error": None,
                "true_capacity": 12.0,
            }
        ],
    } == document
    assert document == json.loads(json.dumps(document, allow_nan=False))


def test_the_lower_end_of_a_range_is_there_where_there_is_one():
    answer = Answer(sla="s", criteria=(), variable="rate", evidence="none")

    (without,) = answers_document("d", [answer])["answers"]
    (with_it,) = answers_document("d", [replace(answer, feasible_from=2.0)])["answers"]

    assert "feasible_from" not in without
    assert 2.0 == with_it["feasible_from"]
