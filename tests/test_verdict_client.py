"""Was the client good enough: judged against what the SLA allows, not against a fixed number of milliseconds."""

from dataclasses import replace

import numpy as np
import pytest

from redline.model import ClientEvidence, Failed, Invalid, Measured, Probe, ProbeKind, Stop, Trial
from redline.records import Records
from redline.sla import parse_sla
from redline.verdict import usable

P90 = parse_sla("p90_ttft_ms<=200, p90_tpot_ms<=50")
P99 = parse_sla("p99_ttft_ms<=200")
TPOT = parse_sla("p90_tpot_ms<=20")
ITL = parse_sla("p99_itl_ms<=100")


def requests(n: int, late: int = 0, late_s: float = 0.03, tokens: int = 21) -> Records:
    """n requests, the first `late` of them sent late."""
    due = np.arange(n) * 0.05
    sent = due + np.where(np.arange(n) < late, late_s, 0.0001)
    return Records(
        observed_s=n * 0.05 + 1,
        scheduled_s=due,
        sent_s=sent,
        first_s=sent + 0.05,
        end_s=sent + 0.3,
        tokens_in=np.full(n, 10, np.int32),
        tokens_out=np.full(n, tokens, np.int32),
        tokens_asked=np.full(n, tokens, np.int32),
        status=np.zeros(n, np.uint8),
    )


def trial(records: Records | None, kind: ProbeKind = "main", **evidence: float | bool) -> Trial:
    client = ClientEvidence(**{"due": 1000, "sent": 1000, "kernel_stamps": True} | evidence)  # type: ignore[arg-type]
    outcome = Measured(stop=Stop(reason="full", at_s=10), duration_s=10, records=records, client=client)
    return Trial(id="1", case="c", probe=Probe(by="rate", load=1, kind=kind), seed=0, started="", outcome=outcome)


def test_a_prompt_client_is_good_enough() -> None:
    assert usable(trial(requests(1000)), P99) == (True, "")


@pytest.mark.parametrize(("late", "good"), [(1, True), (30, True), (60, False)])
def test_late_sends_are_held_against_the_share_that_the_sla_allows(late: int, good: bool) -> None:
    assert usable(trial(requests(1000, late), late_p99_s=0.03), P90)[0] is good


def test_a_stricter_percentile_forgives_fewer_late_sends() -> None:
    measured = trial(requests(1000, 15), late_p99_s=0.03)

    assert usable(measured, P90)[0]
    good, why = usable(measured, P99)
    assert not good
    assert "1.5% of the requests more than 20 ms late" in why


def test_a_hopeless_trial_is_not_saved_by_a_few_late_sends() -> None:
    hopeless = parse_sla("p90_ttft_ms<=50.05")  # the server takes 50 ms, and 30 ms more for most

    slow = requests(1000, 30, late_s=0.02)
    slow.first_s[100:] += 0.03

    assert usable(trial(slow, late_p99_s=0.0), hopeless)[0]


def test_late_sends_that_are_short_against_the_bounds_change_nothing() -> None:
    assert usable(trial(requests(1000, 300, late_s=0.01), late_p99_s=0.01), P99)[0]


def test_requests_that_only_the_client_made_late_spoil_a_trial_at_the_limit() -> None:
    tight = parse_sla("p90_ttft_ms<=55")  # the server takes 50 ms

    assert usable(trial(requests(1000, 9, late_s=0.01), late_p99_s=0.0), tight)[0]
    good, why = usable(trial(requests(1000, 11, late_s=0.01), late_p99_s=0.01), tight)
    assert not good
    assert "11 of 1000 requests were over a bound only since the client sent them late" in why


def test_one_late_send_in_a_short_look_is_forgiven() -> None:
    assert usable(trial(requests(20, 1), late_p99_s=0.03), P99)[0]


def test_a_wait_for_a_place_is_no_late_send() -> None:
    held = requests(1000, 600, late_s=0.3)
    object.__setattr__(held, "held_s", held.sent_s - held.scheduled_s)

    assert usable(trial(held, late_p99_s=0.0), P90)[0]
    assert not usable(trial(requests(1000, 600, late_s=0.3), late_p99_s=0.0), P90)[0]


def test_lateness_does_not_matter_to_times_between_tokens() -> None:
    assert usable(trial(requests(1000, 500), late_p99_s=0.5), TPOT)[0]


def test_without_records_the_stored_percentile_decides() -> None:
    assert not usable(trial(None, late_p99_s=0.03), P90)[0]


@pytest.mark.parametrize(("due", "sent", "good"), [(42, 40, True), (1000, 996, True), (1000, 990, False)])
def test_requests_that_were_due_must_have_been_sent(due: int, sent: int, good: bool) -> None:
    assert usable(trial(requests(100), due=due, sent=sent), P90)[0] is good


def test_a_wait_that_the_user_asked_for_is_no_fault_of_the_client() -> None:
    waited = requests(1000, 300, late_s=0.5)
    told = replace(waited, held_s=waited.sent_s - waited.scheduled_s)

    assert not usable(trial(waited, late_p99_s=0.5), P90)[0]
    assert usable(trial(told, late_p99_s=0.5), P90) == (True, "")
    assert usable(trial(told, due=1000, sent=700, held_back=300), P90)[0]
    assert not usable(trial(told, due=1000, sent=690, held_back=300), P90)[0]


def test_merged_reads_spoil_times_between_single_tokens() -> None:
    good, why = usable(trial(requests(100), merged_reads=0.04, read_delay_p99_s=0.003), ITL)

    assert not good
    assert "too late to tell tokens apart" in why


def test_merged_reads_that_are_short_against_the_bounds_do_not_matter_to_them() -> None:
    assert usable(trial(requests(100), merged_reads=0.04, read_delay_p99_s=0.003), P90)[0]
    assert not usable(trial(requests(100), merged_reads=0.04, read_delay_p99_s=0.030), P90)[0]


def test_a_first_look_forgives_delays_that_do_not_change_its_range() -> None:
    assert usable(trial(requests(100), "scout", merged_reads=0.04, read_delay_p99_s=0.030), P90)[0]
    assert not usable(trial(requests(100), "scout", merged_reads=0.04, read_delay_p99_s=0.2), P90)[0]


def test_an_error_of_one_read_is_spread_over_the_tokens_of_a_request() -> None:
    assert usable(trial(requests(100, tokens=101), merged_reads=0.04, read_delay_p99_s=0.03), TPOT)[0]
    assert not usable(trial(requests(100, tokens=5), merged_reads=0.04, read_delay_p99_s=0.03), TPOT)[0]


def test_late_reads_count_where_the_kernel_does_not_stamp() -> None:
    assert usable(trial(requests(100), kernel_stamps=True, read_delay_p99_s=0.03), P90)[0]
    assert not usable(trial(requests(100), kernel_stamps=False, read_delay_p99_s=0.03), P90)[0]


@pytest.mark.parametrize(
    ("words", "cure"), [("too many open files", "ulimit -n"), ("cannot assign requested address", "port_range")]
)
def test_what_could_not_be_sent_is_no_failure_of_the_server(words: str, cure: str) -> None:
    good, why = usable(trial(requests(1000), errors={"HTTP 500: x": 3, f"not sent: {words}": 1}), P90)

    assert not good
    assert words in why
    assert cure in why
    assert usable(trial(requests(1000), errors={"HTTP 500: x": 3}), P90)[0]


def test_a_mean_that_late_sends_moved_is_no_mean_of_the_server() -> None:
    mean = parse_sla("mean_ttft_ms<=200")

    assert usable(trial(requests(1000, 200, late_s=0.04), late_p99_s=0.0), mean)[0]
    good, why = usable(trial(requests(1000, 500, late_s=0.04), late_p99_s=0.0), mean)
    assert not good
    assert "20.1 ms late on average" in why


@pytest.mark.parametrize(("share", "good"), [(0.02, True), (0.04, False)])
def test_a_client_that_kept_users_waiting_offered_another_load(share: float, good: bool) -> None:
    assert usable(trial(requests(100), idle_share=share), TPOT)[0] is good
    assert usable(trial(requests(100), "scout", idle_share=share), TPOT)[0]


BEHIND = {"5": 0.2, "10": 0.1, "20": 0.03, "50": 0.0}


def test_being_held_up_counts_where_it_lasts_longer_than_the_gaps_between_tokens() -> None:
    slow, quick = requests(100), requests(100)
    for found, gap_us in ((slow, 60_000), (quick, 9_000)):
        object.__setattr__(found, "gaps_us", np.full(500, gap_us, np.int32))

    assert usable(trial(slow, behind=BEHIND), P99)[0]
    good, why = usable(trial(quick, behind=BEHIND), P99)
    assert not good
    assert "held up by more than 20 ms for 3.0% of the time (at most 1.0%)" in why
    assert usable(trial(quick, behind=BEHIND), P90)[0]
    assert usable(trial(quick, behind=BEHIND), parse_sla("p99_e2el_ms<=400"))[0]


def test_without_stamps_of_the_kernel_being_held_up_counts_for_all_latencies() -> None:
    assert not usable(trial(requests(100), behind=BEHIND, kernel_stamps=False), parse_sla("p99_e2el_ms<=200"))[0]
    assert usable(trial(requests(100), behind={"5": 0.2, "10": 0.0}, kernel_stamps=False), P99)[0]


def test_a_client_that_was_always_busy_cannot_judge_anyone() -> None:
    assert not usable(trial(requests(100), cpu_share=0.9), TPOT)[0]


@pytest.mark.parametrize("outcome", [Failed(reason="it broke"), Invalid(reason="it broke")])
def test_what_was_not_measured_is_of_no_use(outcome: Failed | Invalid) -> None:
    broken = Trial(id="1", case="c", probe=Probe(by="rate", load=1, kind="main"), seed=0, started="", outcome=outcome)

    assert usable(broken, P90) == (False, "it broke")
