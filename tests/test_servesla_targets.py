import math

import pytest

from redline.model import UsageError
from redline.servesla.targets import EPS, bound_of, targets_of


@pytest.mark.parametrize(
    ("text", "actual", "margin"),
    [
        ("<=500", 400.0, -100.0),
        ("<=500", 500.0, 0.0),
        ("<500", 500.0, EPS),
        ("<500", 400.0, -100.0 + EPS),
        (">=5", 4.0, 1.0),
        (">=5", 5.0, 0.0),
        (">5", 5.0, EPS),
        (">5", 6.0, -1.0 + EPS),
    ],
)
def test_a_margin_is_at_most_zero_where_the_criterion_is_met(text: str, actual: float, margin: float) -> None:
    assert pytest.approx(margin, abs=1e-12) == bound_of("m", text).margin(actual)


def test_a_point_has_the_largest_margin_of_its_averaged_metrics_in_mixed_units() -> None:
    (target,) = targets_of([{"p99_e2el_ms": "<=500", "request_throughput": ">=5"}])
    runs = [{"p99_e2el_ms": 500.0, "request_throughput": 2}, {"p99_e2el_ms": 300.0, "request_throughput": 4}]

    assert 2.0 == target.margin(runs)  # 5 - 3 req/s, against 400 - 500 ms


def test_relative_margins_compare_different_units() -> None:
    (target,) = targets_of([{"p99_e2el_ms": "<=500", "request_throughput": ">=5"}])

    assert 0.4 == target.relative({"p99_e2el_ms": 510.0, "request_throughput": 3.0})
    assert math.isnan(target.relative({"p99_e2el_ms": 510.0}))


def test_an_sla_is_named_with_two_decimals_and_joined_by_a_dash() -> None:
    (target,) = targets_of([{"p99_e2el_ms": "<=400", "p99_ttft_ms": "<=150"}])

    assert "SLA--p99_e2el_ms<=400.00-p99_ttft_ms<=150.00.json" == target.file_name


def test_each_object_is_a_target_of_its_own() -> None:
    targets = targets_of([{"p99_ttft_ms": "<=200"}, {"p99_ttft_ms": " < 100 "}])

    assert ["p99_ttft_ms<=200.00", "p99_ttft_ms<100.00"] == [target.text for target in targets]
    assert [200.0, 100.0] == [target.sla().criteria[0].bound for target in targets]


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        ({"p99_ttft_ms": "<=200"}, TypeError, "must be a list of objects"),
        (["p99_ttft_ms<=200"], TypeError, "item 1 must be an object"),
        ([{}], ValueError, "item 1 holds no criterion"),
        ([{"p99_ttft_ms": "==200"}], ValueError, "<=, >=, <, >"),
        ([{"p99_ttft_ms": 200}], ValueError, "<=, >=, <, >"),
        ([{"p99_ttft_ms": "<=fast"}], ValueError, "has no number after <="),
        ([{"p99_ttft_ms": "<=nan"}], ValueError, "no finite number"),
        ([{"error_rate": "<=0.001"}, {"error_rate": "<=0.002"}], ValueError, "share the file"),
    ],
)
def test_a_bad_sla_file_is_the_same_exception_as_in_vllm(data: object, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as raised:
        targets_of(data)
    assert isinstance(raised.value, UsageError)


def test_what_redlines_search_cannot_promise_is_left_to_the_legacy_search() -> None:
    (target,) = targets_of([{"max_concurrent_requests": "<=20"}])

    assert -4.0 == target.margin([{"max_concurrent_requests": 16}])
    with pytest.raises(ValueError, match="--search legacy"):
        target.sla()


def test_a_metric_that_the_results_lack_is_named_with_those_they_have() -> None:
    (target,) = targets_of([{"p95_ttft_ms": "<=20"}])

    for missing in (
        {},
        {"p95_ttft_ms": None},
        {"p95_ttft_ms": math.nan},
        {"p95_ttft_ms": math.inf},
        {"p95_ttft_ms": True},
    ):
        with pytest.raises(ValueError, match="no number p95_ttft_ms; they have completed, p99_ttft_ms"):
            target.margin([{"p99_ttft_ms": 3.0, "completed": 4, "label": None, **missing}])
