"""The lines that scripts look for in the output of vLLM's sweep."""

from dataclasses import replace

import pytest

from made import total, trial
from redline.events import Answered, TrialEnded, TrialStarted
from redline.model import Answer, Case, CommandWorkload, Failed, Invalid, Measured, Outcome, Probe, ServerConfig, Stop
from redline.servesla.parameters import Pair
from redline.servesla.targets import targets_of
from redline.servesla.transcript import Transcript

(TARGET,) = targets_of([{"p99_e2el_ms": "<=400", "request_throughput": ">=5"}])
SLA = replace(TARGET.sla(), name="sla")
WORKLOAD = CommandWorkload(name="bench", command=("bench", "{result}"), reader="vllm")
CASE = Case(key="case", server=ServerConfig(name="server"), workload=WORKLOAD)
ANSWER = Answer(sla="sla", criteria=SLA.criteria, variable="rate", evidence="edge", stop_reason="it was found")


class Said:
    """What a transcript says of one search."""

    def __init__(self, variable: str = "request_rate") -> None:
        self.lines: list[str] = []
        self.transcript = Transcript(
            say=self.lines.append,
            variable=variable,
            slas={"sla": (SLA, TARGET)},
            pairs={"case": Pair(serve={"max_num_seqs": 4})},
            answer_of=lambda case, sla: ANSWER,
        )

    def tried(self, load: float, outcome: Outcome) -> list[str]:
        """The lines on one trial; the block is opened with the first."""
        before = len(self.lines)
        probe = Probe(by="rate", load=load, kind="main", asked_by="sla", need={c.text: 1 for c in SLA.criteria})
        self.transcript.on_event(TrialStarted(case=CASE, probe=probe, number=1))
        self.transcript.on_event(TrialEnded(case=CASE, trial=trial(outcome, probe)))
        return self.lines[before:]


def totals(e2el_ms: float, throughput: float, failed: float = 0.0) -> Outcome:
    run = {"p99_e2el_ms": e2el_ms, "request_throughput": throughput, "completed": 1000.0, "failed": failed}
    return total(12.0, SLA, [{**run, "error_rate": failed / (1000 + failed)}]).outcome


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (totals(300.0, 6.0), "SLA criteria are met. (margin=-0.20)"),  # of 25 % and 20 % of the bounds
        (totals(300.0, 4.0), "SLA criteria are not met. (margin=0.20)"),
        (totals(500.0, 4.0), "SLA criteria are not met. (margin=0.25)"),
        (totals(300.0, 6.0, 250.0), "SLA criteria are not met. (margin=-0.20; 20% of the requests failed)"),
        (
            Measured(stop=Stop(reason="over", at_s=9.0), duration_s=9.0, records=None),
            "SLA criteria are not met. (margin=inf)",
        ),
        (Failed(reason="the benchmark exited with code 1"), "No result: the benchmark exited with code 1"),
        (Invalid(reason="it was late", cure="hurry"), "Not used: it was late; hurry"),
    ],
)
def test_what_was_found_at_a_load_is_one_line(outcome: Outcome, line: str) -> None:
    assert ["Testing request_rate: 12 req/s", line] == Said().tried(12.0, outcome)[-2:]


@pytest.mark.parametrize("variable", ["request_rate", "max_concurrency"])
def test_a_search_is_a_block(variable: str) -> None:
    said = Said(variable)
    said.tried(0.75, totals(300.0, 6.0))
    said.transcript.on_event(Answered(case=CASE, answer=replace(ANSWER, capacity=12.5, low=12.0, high=13.0)))

    assert [
        "[SLA START]",
        "SERVE--max_num_seqs=4",
        "SLA criteria: p99_e2el_ms<=400.00, request_throughput>=5.00",
        f"Testing {variable}: 0.75 req/s",
        "SLA criteria are met. (margin=-0.20)",
        f"Maximum {variable} for SLA: 12.5 req/s.",
        "Evidence: edge, 90% interval 12 to 13 (it was found)",
        "[SLA END]",
    ] == said.lines


def test_what_broke_is_told_with_the_end_of_its_log() -> None:
    said = Said()
    broken = replace(ANSWER, evidence="not_started", error="server exited with code 2; last lines:\nout of memory")
    said.transcript.on_event(Answered(case=CASE, answer=broken))

    assert ["Error: server exited with code 2; last lines:\nout of memory", "[SLA END]"] == said.lines[-2:]


def test_no_load_is_no_number() -> None:
    said = Said()
    said.transcript.on_event(Answered(case=CASE, answer=replace(ANSWER, evidence="none", stop_reason="all failed")))

    assert "No request_rate for SLA: none." in said.lines
    assert not any(line.startswith("Maximum") for line in said.lines)
