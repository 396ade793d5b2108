import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.model import (
    Answer,
    Case,
    ClientEvidence,
    CommandWorkload,
    Failed,
    Invalid,
    Lengths,
    Measured,
    Outcome,
    Probe,
    RedlineError,
    ServerConfig,
    Stop,
    Trial,
    Workload,
)
from redline.records import Records, Status
from redline.report import ReportCase, ReportData, render, write_report
from redline.report.points import point, quantile_bounds
from redline.search import seen
from redline.sla import sla_of
from redline.stats import share_bounds
from redline.verdict import judge

HOSTILE = "<script>alert('x')</script>\"&"
SLA = sla_of("chat", ["p90_ttft_ms<=200", "p90_tpot_ms<=50"])
TTFT = SLA.criteria[0]
SERVER = ServerConfig(name="max_num_seqs=8", command=("vllm", "serve", "model", "--api-key", "sk-very-secret"))
WORKLOAD = Workload(name="chat", prompt=Lengths(mean=512), output=Lengths(mean=128, cv=0.5))
ANSWER = Answer(
    server="max_num_seqs=8",
    workload="chat",
    sla="chat",
    criteria=SLA.criteria,
    variable="rate",
    evidence="edge",
    capacity=10.0,
    estimate=10.4,
    low=9.5,
    high=11.0,
    limiting="p90_ttft_ms<=200",
    headroom={"p90_tpot_ms<=50": 1.4},
    at_capacity={"p90_ttft_ms": 150.0, "request_throughput": 9.9},
    trials=5,
    requests=5000,
    benchmark_s=500.0,
    stop_reason="precision reached",
)


def records(slow: float, *, n: int = 1000, failed: int = 0, slow_ms: float = 400.0) -> Records:
    """n requests over 100 s: a share `slow` takes slow_ms to the first token, the others 50 ms."""
    due = np.linspace(0.0, 100.0, n)
    late = (np.arange(n) * 0.618034) % 1 < slow
    first = due + np.where(late, slow_ms, 50.0) / 1e3
    status = np.full(n, Status.OK, np.uint8)
    status[:failed] = Status.FAILED
    ints = np.full(n, 11, np.int32)
    return Records(
        observed_s=102.0,
        scheduled_s=due,
        sent_s=due,
        first_s=first,
        end_s=first + 0.2,
        tokens_in=ints,
        tokens_out=ints,
        tokens_asked=ints,
        status=status,
    )


def measured(slow: float, reason: str = "full", **changes: object) -> Measured:
    stop = Stop(reason=reason, at_s=102.0, window_start_s=2.0, criterion=TTFT.text if reason == "fail" else None)  # type: ignore[arg-type]  # tests pass literals
    outcome = Measured(stop=stop, duration_s=102.0, records=records(slow))
    return replace(outcome, **changes)  # type: ignore[arg-type]  # fields of Measured


def trial(load: float, outcome: Outcome, kind: str = "main", name: str = "") -> Trial:
    probe = Probe(by="rate", load=load, kind=kind, asked_by="chat")  # type: ignore[arg-type]  # tests pass literals
    return Trial(
        id=name or f"t{load:g}",
        case="k",
        probe=probe,
        seed=1,
        started="2026-11-25T10:00:00+00:00",
        outcome=outcome,
    )


TRIALS = (
    trial(8.0, measured(0.0), name="passes"),
    trial(10.0, measured(0.09), name="open"),
    trial(12.0, measured(0.5), name="fails"),
    trial(13.0, measured(0.9, "fail"), name="early"),
    trial(14.0, measured(0.9, "over"), name="over"),
    trial(9.0, measured(0.0, client=ClientEvidence(due=100, sent=95)), name="slowclient"),
    trial(9.5, Failed(reason="server exited", log_tail=f"last words {HOSTILE}", server_died=True), name="dead"),
    trial(9.7, Invalid(reason="sent/due under 90%", cure="more CPU"), name="invalid"),
    trial(11.0, measured(0.3, "scouted"), "scout", name="scout"),
)


def data(**changes: object) -> ReportData:
    case = ReportCase(
        case=Case(key="k", server=SERVER, workload=WORKLOAD), slas=(SLA,), trials=TRIALS, answers=(ANSWER,)
    )
    whole = ReportData(title="chat on one GPU", directory="redline-results/chat", cases=(case,))
    return replace(whole, **changes)  # type: ignore[arg-type]  # fields of ReportData


def with_case(**changes: object) -> ReportData:
    whole = data()
    return replace(whole, cases=(replace(whole.cases[0], **changes),))  # type: ignore[arg-type]  # fields of ReportCase


def charts(page: str) -> list[ET.Element]:
    return [ET.fromstring(text) for text in re.findall(r'<svg class="chart".*?</svg>', page, re.DOTALL)]


class Balanced(HTMLParser):
    """Fails where a tag is not closed, or not the one that is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert tag == self.open.pop()

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


def test_the_page_needs_nothing_but_itself() -> None:
    page = render(data())

    assert not {"script", "link", "img", "iframe", "object"} & set(parsed(page).seen)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page


def test_the_top_of_the_page_answers_the_question() -> None:
    page = render(data())
    top = page[: page.index("<section")]

    assert "How many requests per second does this server carry" in top
    assert "This server carries 10 requests/s" in top
    for cell in ("9.5 to 11", "edge", "p90_ttft_ms&lt;=200", "p90_tpot_ms 1.4×", "5,000", "8 min 20 s"):
        assert cell in top


def test_every_trial_is_a_row_of_the_table() -> None:
    page = render(data())
    rows = re.findall(r'<tr[^>]*><th scope="row">(\w+)</th>', page[page.index('class="trials"') :])

    assert [each.id for each in TRIALS] == rows


def test_every_trial_is_a_mark_on_every_chart_that_has_its_place() -> None:
    ttft, tpot = charts(render(data()))

    for chart in (ttft, tpot):
        titles = [title.text or "" for title in chart.findall("./g/title")]
        assert {each.id for each in TRIALS} == {re.split(r"[ :,]", text)[1] for text in titles}


@pytest.mark.parametrize(
    ("name", "standing", "keeps"),
    [
        ("passes", "pass", True),
        ("open", "undecided", True),
        ("fails", "fail", False),
        ("early", "early", False),
        ("over", "early", False),
        ("slowclient", "unusable", True),
        ("dead", "broken", False),
        ("invalid", "broken", False),
        ("scout", "undecided", False),
    ],
)
def test_a_mark_shows_what_the_trial_proves(name: str, standing: str, keeps: bool) -> None:
    one = next(each for each in TRIALS if each.id == name)

    found = point(one, SLA, TTFT, 0.9)

    assert (standing, keeps) == (found.standing, found.met)
    assert (name == "scout") is found.small


def test_a_growing_queue_says_nothing_against_times_per_token() -> None:
    over = next(each for each in TRIALS if each.id == "over")

    assert "early" != point(over, SLA, SLA.criteria[1], 0.9).standing


def test_the_bounds_of_a_mark_clear_the_line_exactly_when_it_is_decided() -> None:
    for share in (0.0, 0.02, 0.05, 0.08, 0.1, 0.12, 0.16, 0.3, 0.6):
        one = trial(10.0, measured(share))
        found = point(one, SLA, TTFT, 0.9)
        verdict = judge(one, sla_of("", [TTFT.text]), 0.9).criteria[0].verdict

        passes, fails = found.high <= TTFT.bound, found.low > TTFT.bound
        assert not (passes and fails)
        assert (verdict == "pass") is passes
        if verdict == "fail":
            assert fails


def test_too_few_requests_have_no_upper_bound() -> None:
    few = trial(10.0, measured(0.0, records=records(0.0, n=60)))

    assert math.isinf(point(few, SLA, TTFT, 0.9).high)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=200),
    st.sampled_from([0.05, 0.1, 0.5]),
    st.floats(1.0, 3.0),
)
def test_quantile_bounds_are_where_the_exact_verdict_turns(values: list[int], allowed: float, phi: float) -> None:
    low, high = quantile_bounds(np.array(values, float), allowed, phi, 0.9)

    assert low <= high
    for bound in np.arange(0.5, 42, 0.5):
        k = sum(value > bound for value in values)
        share_low, share_high = share_bounds(k / phi, len(values) / phi, 0.9)
        assert (share_high <= allowed) is bool(bound >= high)
        assert (share_low > allowed) is bool(bound < low)


def test_the_capacity_its_interval_and_the_bound_are_drawn() -> None:
    for chart in charts(render(data())):
        kinds = [element.get("class") for element in chart.iter()]
        texts = [element.text for element in chart.iter("text")]

        assert 1 == kinds.count("interval") == kinds.count("capacity") == kinds.count("bound")
        assert "capacity 10" in texts


def test_marks_stand_left_to_right_in_the_order_of_their_loads() -> None:
    chart = charts(render(data()))[0]
    places = {}
    for group in chart.findall("./g"):
        words = re.split(r"[ :,]", group.findtext("title") or "")
        places[words[1]] = float((group.get("transform") or "").split("(")[1].split()[0])

    by_load = sorted(TRIALS, key=lambda each: each.probe.load)
    assert [each.id for each in by_load] == sorted(places, key=places.__getitem__)


def test_everything_drawn_stays_inside_the_figure() -> None:
    far = (*TRIALS, trial(10.2, measured(1.0, records=records(1.0, slow_ms=90_000.0)), name="far"))
    for chart in charts(render(with_case(trials=far))):
        for group in chart.findall("./g"):
            x, y = map(float, (group.get("transform") or "")[10:-1].split())
            assert 0 < x < 460
            assert 0 < y < 300


def test_loads_far_from_the_answer_are_counted_and_not_drawn() -> None:
    far = (*TRIALS, trial(5000.0, measured(0.9, "fail"), name="far"))
    chart = charts(render(with_case(trials=far)))[0]

    assert "1 trial outside, see the table" in [element.text for element in chart.iter("text")]


def test_ticks_of_concurrency_are_whole_numbers() -> None:
    trials = tuple(
        replace(one, probe=replace(one.probe, by="concurrency", load=load))
        for one, load in zip(TRIALS, (3.0, 4.0, 5.0), strict=False)
    )
    answer = replace(ANSWER, variable="concurrency", capacity=4.0, low=3.0, high=4.0)
    page = render(with_case(trials=trials, answers=(answer,)))

    assert "How many requests in flight does this server carry" in page
    for chart in charts(page):
        below = [t for t in chart.iter("text") if t.get("class") == "tick" and t.get("text-anchor") == "middle"]
        assert ["3", "4", "5"] == [each.text for each in below]


def test_charts_have_a_title_and_a_description_of_their_own() -> None:
    page = render(data())
    ids = re.findall(r'\bid="([^"]+)"', page)

    assert len(ids) == len(set(ids))
    for chart in charts(page):
        title, description = (chart.get("aria-labelledby") or "").split()
        assert {title, description} <= set(ids)
        assert "against load" in (chart.findtext("title") or "")
        assert "trials from 8 requests/s to 14 requests/s" in (chart.findtext("desc") or "")


def test_the_legend_has_the_marks_that_occur() -> None:
    whole = render(data())
    only_passing = render(with_case(trials=TRIALS[:1]))

    assert "ended early" in whole
    assert "not usable: the client" in whole
    assert "ended early" not in only_passing
    assert "broke: no value" not in only_passing


def test_no_chart_is_wasted_on_errors_that_never_happened() -> None:
    failing = measured(0.0, records=records(0.0, failed=300))

    assert 2 == len(charts(render(data())))
    assert "No request failed in any trial" in render(data())
    assert 3 == len(charts(render(with_case(trials=(*TRIALS, trial(10.5, failing, name="errors"))))))


def test_texts_of_others_cannot_become_markup() -> None:
    server = replace(SERVER, name=HOSTILE, command=(HOSTILE,))
    workload = replace(WORKLOAD, name=HOSTILE)
    sla = replace(SLA, name=HOSTILE)
    answer = replace(
        ANSWER,
        server=HOSTILE,
        workload=HOSTILE,
        sla=HOSTILE,
        warnings=(HOSTILE,),
        error=HOSTILE,
        stop_reason=HOSTILE,
        limiting=HOSTILE,
        headroom={HOSTILE: 1.0},
    )
    broke = trial(9.6, Failed(reason=HOSTILE, log_tail=HOSTILE), name=HOSTILE)
    case = ReportCase(
        case=Case(key="k", server=server, workload=workload), slas=(sla,), trials=(*TRIALS, broke), answers=(answer,)
    )
    hostile = data(
        title=HOSTILE, directory=HOSTILE, notes=(HOSTILE,), environment={HOSTILE: HOSTILE}, cases=(case, case)
    )

    page = render(hostile)

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "script" not in parsed(page).seen
    assert 4 == len(charts(page))


def test_secrets_in_commands_are_hidden() -> None:
    page = render(data())

    assert "--api-key" in page
    assert "sk-very-secret" not in page


def test_what_broke_shows_the_end_of_its_log() -> None:
    page = render(data())

    assert "Trial dead at 9.5 requests/s: the server died" in page
    assert "last words" in page


def test_an_answer_without_numbers_is_still_a_page() -> None:
    unanswered = replace(
        ANSWER,
        evidence="not_started",
        capacity=None,
        estimate=None,
        low=None,
        high=None,
        limiting=None,
        headroom={},
        at_capacity={},
        trials=0,
        requests=0,
        benchmark_s=0.0,
        error="exited with code 1; last lines of x.log:\nno such model",
    )

    page = render(with_case(trials=(), answers=(unanswered,)))

    parsed(page)
    assert "never became ready: exited with code 1" in page
    assert 1 == page.count("no such model")
    assert "No trials yet" in page


def test_an_experiment_without_answers_is_still_a_page() -> None:
    page = render(with_case(answers=()))

    parsed(page)
    assert "Nothing was answered yet" in page
    assert 2 == len(charts(page))


def test_an_empty_experiment_is_still_a_page() -> None:
    parsed(render(data(cases=())))


def test_infinite_values_are_drawn_at_the_edge_and_written_as_infinite() -> None:
    broken = trial(10.5, measured(0.0, records=records(0.0, failed=400)), name="errors")
    page = render(with_case(trials=(broken,)))

    assert "∞" in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower()
    assert 3 == len(charts(page))


def test_totals_of_a_command_are_marks_without_bounds() -> None:
    stop = Stop(reason="ended", at_s=60.0)
    totals = {"p90_ttft_ms": 120.0, "p90_tpot_ms": 20.0, "error_rate": 0.0, "completed": 600.0, "failed": 0.0}
    outcome = Measured(stop=stop, duration_s=60.0, aggregates=(totals,), client=ClientEvidence(due=600, sent=600))
    workload = CommandWorkload(name="external", command=("vllm", "bench", "{url}"), reader="vllm")
    whole = with_case(
        trials=(trial(10.0, outcome),),
        answers=(replace(ANSWER, quality="aggregates"),),
        case=Case(key="k", server=SERVER, workload=workload),
    )

    page = render(whole)
    found = point(trial(10.0, outcome), SLA, TTFT, 0.9)

    assert ("undecided", pytest.approx(120.0)) == (found.standing, found.value)
    assert math.isnan(found.low)
    assert "Measured by vllm bench {url}" in page
    assert "aggregates" in page
    assert "120 ms" in page


def test_a_trial_has_the_value_that_the_search_sees() -> None:
    runs = tuple({"p90_ttft_ms": ttft, "p90_tpot_ms": 20.0, "completed": 600.0} for ttft in (100.0, 310.0))
    twice = trial(10.0, Measured(stop=Stop(reason="ended", at_s=60.0), duration_s=60.0, aggregates=runs))
    page = render(with_case(trials=(twice,)))
    table = page[page.index('class="trials"') :]

    assert "p90_ttft_ms" in seen(twice, SLA)
    assert seen(twice, SLA)["p90_ttft_ms"] == point(twice, SLA, TTFT, 0.9).value
    assert '<td class="n">176 ms</td>' in table
    assert "holds: p90_ttft_ms 176 ms of 200 ms" in table


def test_a_trial_that_unfinished_requests_ended_shows_no_value_within_the_bound() -> None:
    one = trial(13.0, measured(0.0, "fail"), name="early")
    page = render(with_case(trials=(one,)))
    row = page[page.index('<th scope="row">early') :].partition("</tr>")[0]

    assert "p90_ttft_ms&lt;=200 is out of reach" in row
    assert "50 ms" not in row
    assert math.isnan(point(one, SLA, TTFT, 0.9).value)


def test_a_quick_look_has_no_exact_verdict() -> None:
    bad = trial(11.0, measured(0.9, "scouted"), "scout", name="scout")
    page = render(with_case(trials=(bad,)))
    row = page[page.index('<th scope="row">scout') :].partition("</tr>")[0]

    assert "<td>–</td>" in row
    assert "<td>fail</td>" not in row
    assert "fail" not in point(bad, SLA, TTFT, 0.9).words


def test_several_configurations_are_compared_on_one_scale() -> None:
    one = data().cases[0]
    faster = replace(ANSWER, server="max_num_seqs=64", capacity=30.0, low=28.0, high=33.0)
    other = replace(one, answers=(faster,), case=replace(one.case, server=replace(SERVER, name="max_num_seqs=64")))

    page = render(data(cases=(one, other)))

    assert "max_num_seqs=64 carries most: 30 requests/s, 3 times as much as max_num_seqs=8" in page
    assert 2 == page.count('<svg class="span"')
    assert "does each configuration carry" in page


def test_the_same_data_give_the_same_page() -> None:
    assert render(data()) == render(data())


def test_the_page_is_written_whole_over_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    write_report(data(), path)

    assert render(data()) == path.read_text(encoding="utf-8")
    assert [path] == list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "report.html"

    with pytest.raises(RedlineError, match=r"cannot write .*report\.html"):
        write_report(data(), path)
