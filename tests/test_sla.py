from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.model import Criterion, UsageError
from redline.records import Records, Status
from redline.sla import allowed_share, judged, met, metric_of, parse_criterion, parse_sla, ratio, sla_of


def requests(*rows, observed_s=100.0, gaps=None):
    """Records from (scheduled, first, end, tokens out, status); None is not there yet."""
    nan = float("nan")
    columns = [[nan if cell is None else cell for cell in column] for column in zip(*rows, strict=True)]
    offsets = np.concatenate(([0], np.cumsum([len(g) for g in gaps]))) if gaps else np.zeros(0)
    return Records(
        observed_s=observed_s,
        scheduled_s=np.array(columns[0], float),
        sent_s=np.array(columns[0], float),
        first_s=np.array(columns[1], float),
        end_s=np.array(columns[2], float),
        tokens_in=np.full(len(rows), 10, np.int32),
        tokens_out=np.array(columns[3], np.int32),
        tokens_asked=np.full(len(rows), 11, np.int32),
        status=np.array(columns[4], np.uint8),
        gaps_us=np.array([g for each in gaps or [] for g in each], np.int32),
        gap_offsets=offsets.astype(np.int64),
    )


@pytest.mark.parametrize(
    ("text", "metric", "op", "bound"),
    [
        ("p99_ttft_ms<=200", "p99_ttft_ms", "<=", 200),
        ("p99.9_ttft_ms <= 1.5s", "p99.9_ttft_ms", "<=", 1500),
        ("median_itl_ms < 500us", "median_itl_ms", "<", 0.5),
        ("mean_e2el_ms<=3e3ms", "mean_e2el_ms", "<=", 3000),
        ("error_rate<=0.1%", "error_rate", "<=", 0.001),
        ("request_throughput>=12.5", "request_throughput", ">=", 12.5),
        (
            "attainment(ttft_ms<=.2s,tpot_ms<50)>=95%",
            "attainment(ttft_ms<=200, tpot_ms<50)",
            ">=",
            0.95,
        ),
    ],
)
def test_a_criterion_is_read_into_its_metrics_unit(text, metric, op, bound):
    assert Criterion(metric=metric, op=op, bound=bound) == parse_criterion(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p99_tft_ms<=200", ["p99_tft_ms", "did you mean p99_ttft_ms?"]),
        ("p95_e2e_ms<=30s", ["did you mean p95_e2el_ms?"]),
        ("p99_ttft<=200ms", ["did you mean p99_ttft_ms?"]),
        ("request_througput>=4", ["did you mean request_throughput?"]),
        ("max_ttft_ms<=300", ["p99.9_ttft_ms", "attainment(ttft_ms<=...)"]),
        ("std_itl_ms<=4", ["p99.9_itl_ms"]),
        ("request_goodput>=4", ["goodput", "attainment("]),
        ("p99_ttft_ms>=200", ["write <="]),
        ("request_throughput<=9", ["write >="]),
        ("p99_ttft_ms<=20%", ["unit %"]),
        ("request_throughput>=9s", ["unit s", "plain number"]),
        ("p99_ttft_ms<=fast", ["cannot read"]),
        ("p99_ttft_ms==5", ["operator"]),
        ("p99_ttft_ms<=0", ["above 0"]),
        ("p99_ttft_ms<=-3", ["above 0"]),
        ("p100_ttft_ms<=3", ["p99.9"]),
        ("error_rate<=0", ["error_rate<=0.1%"]),
        ("error_rate<=5", ["%"]),
        ("attainment(ttft_ms<=3)>=100%", ["between"]),
        ("attainment(itl_ms<=3)>=95%", ["itl_ms<=3"]),
        ("attainment()>=95%", ["at least one bound"]),
        ("p99_ttft_ms", ["cannot read"]),
    ],
)
def test_what_cannot_be_read_is_explained(text, words):
    with pytest.raises(UsageError) as caught:
        parse_criterion(text)

    assert [] == [word for word in words if word not in str(caught.value)]


def test_all_problems_of_an_sla_come_at_once():
    with pytest.raises(UsageError) as caught:
        parse_sla("chat: p99_tft_ms<=200, p90_tpot_ms<=50, max_itl_ms<=3, p90_tpot_ms<=60")

    assert ["'chat'", "p99_tft_ms", "max_itl_ms", "p90_tpot_ms has two bounds"] == [
        word
        for word in ["'chat'", "p99_tft_ms", "max_itl_ms", "p90_tpot_ms has two bounds"]
        if word in str(caught.value)
    ]


def test_an_sla_has_a_name_its_criteria_and_a_default_error_rate():
    sla = parse_sla("chat: p99_ttft_ms<=200, attainment(ttft_ms<=1s, tpot_ms<=50)>=90%")

    assert "chat" == sla.name
    assert ["p99_ttft_ms<=200", "attainment(ttft_ms<=1000, tpot_ms<=50)>=0.9", "error_rate<=0.01"] == [
        criterion.text for criterion in sla.criteria
    ]
    assert [False, False, True] == [criterion.default for criterion in sla.criteria]


def test_an_sla_without_a_name_is_named_by_its_text():
    assert "p99_ttft_ms<=200, p90_tpot_ms<=50" == parse_sla("p99_ttft_ms<=200, p90_tpot_ms<=50").name
    assert "p99_ttft_ms<=200, p90_tpot_ms<=50" == sla_of("", ["p99_ttft_ms<=200", "p90_tpot_ms<=50"]).name


def test_an_error_rate_of_the_users_own_replaces_the_default():
    assert ["p99_ttft_ms<=200", "error_rate<=0.05"] == [
        c.text for c in sla_of("x", ["p99_ttft_ms<=200", "error_rate<=5%"]).criteria
    ]


def test_an_sla_without_criteria_is_an_error():
    with pytest.raises(UsageError, match="no criterion"):
        sla_of("chat", [])


@given(st.floats(0.01, 1e6), st.sampled_from(["p50_ttft_ms<=", "mean_itl_ms<", "request_throughput>="]))
def test_the_text_of_a_criterion_reads_back_as_itself(bound, head):
    criterion = parse_criterion(f"{head}{bound:g}")

    assert criterion == parse_criterion(criterion.text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_words(text):
    with suppress(UsageError):
        assert parse_sla(text).criteria


def test_an_allowed_share_is_what_the_criterion_leaves():
    texts = ["p99_ttft_ms<=1", "median_ttft_ms<=1", "error_rate<=2%", "attainment(ttft_ms<=1)>=.9", "mean_ttft_ms<=1"]

    assert [0.01, 0.5, 0.02, 0.1, None] == [allowed_share(parse_criterion(text)) for text in texts]


def test_a_ratio_is_above_one_on_the_wrong_side_of_either_direction():
    assert 2 == ratio(parse_criterion("p99_ttft_ms<=200"), 400)
    assert 2 == ratio(parse_criterion("request_throughput>=10"), 5)
    assert 2 == pytest.approx(ratio(parse_criterion("attainment(ttft_ms<=1)>=.9"), 0.8))


def test_nan_keeps_no_criterion():
    assert not met(parse_criterion("p99_ttft_ms<=200"), float("nan"))
    assert not met(parse_criterion("request_throughput>=200"), float("nan"))


def test_failed_requests_are_over_and_unfinished_ones_once_their_age_is():
    records = requests(
        (0.0, 0.1, 1.0, 11, Status.OK),
        (0.0, 0.3, 1.0, 11, Status.OK),
        (0.0, 0.1, 1.0, 5, Status.FAILED),
        (99.0, None, None, 0, Status.RUNNING),
        (99.9, None, None, 0, Status.RUNNING),
        (99.0, 99.1, None, 3, Status.RUNNING),
    )
    found = judged(parse_criterion("p99_ttft_ms<=200"), records)

    assert [1, 1, 1, 1, 0, 1] == found.weight.tolist()
    assert [0, 1, 1, 1, 0, 0] == found.over.tolist()


def test_a_running_request_breaks_its_time_per_token_once_no_output_could_mend_it():
    records = requests(
        (0.0, 0.0, 1.0, 11, Status.OK),  # 100 ms per token
        (0.0, 0.0, 0.0, 1, Status.OK),  # a single token has no time per token
        (90.0, 95.0, None, 2, Status.RUNNING),  # 5 s so far over at most 10 more tokens
        (90.0, 99.9, None, 2, Status.RUNNING),
    )
    found = judged(parse_criterion("p90_tpot_ms<=120"), records)

    assert [1, 0, 1, 0] == found.weight.tolist()
    assert [0, 0, 1, 0] == found.over.tolist()


def test_an_attainment_asks_every_bound_of_every_request():
    records = requests(
        (0.0, 0.1, 1.1, 11, Status.OK),
        (0.0, 0.3, 1.1, 11, Status.OK),
        (0.0, 0.1, 5.0, 11, Status.OK),
        (0.0, 0.1, 0.1, 1, Status.OK),
        (99.0, 99.1, None, 3, Status.RUNNING),
    )
    found = judged(parse_criterion("attainment(ttft_ms<=200, tpot_ms<=110)>=.9"), records)

    assert [1, 1, 1, 1, 0] == found.weight.tolist()
    assert [0, 1, 1, 0, 0] == found.over.tolist()


def test_the_unit_of_an_inter_token_latency_is_the_gap():
    records = requests(
        (0.0, 0.1, 1.0, 4, Status.OK),
        (0.0, 0.1, 1.0, 3, Status.OK),
        (0.0, 0.1, 1.0, 1, Status.FAILED),
        gaps=[[10_000, 30_000, 50_000], [10_000, 10_000], []],
    )
    found = judged(parse_criterion("p99_itl_ms<=20"), records)

    assert [3, 2, 3] == found.weight.tolist()  # the failed one owes as many gaps as a good one has
    assert [2, 0, 3] == found.over.tolist()


def test_gaps_that_were_not_kept_say_nothing():
    assert 0 == judged(parse_criterion("p99_itl_ms<=20"), requests((0.0, 0.1, 1.0, 4, Status.OK))).weight.sum()


def test_running_requests_do_not_count_in_the_error_rate():
    records = requests(
        (0.0, 0.1, 1.0, 4, Status.OK), (0.0, None, 1.0, 0, Status.REJECTED), (0.0, None, None, 0, Status.RUNNING)
    )
    found = judged(parse_criterion("error_rate<=1%"), records)

    assert [1, 1, 0] == found.weight.tolist()
    assert [0, 1, 0] == found.over.tolist()


def test_metrics_carry_their_meaning():
    assert ("quantile", "ttft", 0.999) == (lambda m: (m.kind, m.field, m.q))(metric_of("p99.9_ttft_ms"))
    assert ("quantile", "itl", 0.5) == (lambda m: (m.kind, m.field, m.q))(metric_of("median_itl_ms"))
    assert ("throughput", "total") == (lambda m: (m.kind, m.field))(metric_of("total_token_throughput"))
