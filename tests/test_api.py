import itertools
from dataclasses import replace
from pathlib import Path

import pytest

import redline
from driving import SimServer
from redline.api import Place, Result, owner_warning, plan, prepare_find, prepare_run
from redline.events import Event, TrialEnded
from redline.model import Answer, EvidenceClass, RedlineError, UsageError
from redline.sla import parse_sla

SLA = parse_sla("chat: p99_ttft_ms<=200")
CODES: dict[EvidenceClass, int] = {
    "edge": 0,
    "floor": 0,
    "none": 3,
    "undecided": 4,
    "client_limited": 5,
    "crashed": 1,
    "not_started": 1,
}
FILE = """
[server]
command = "false no-such-engine --port {port}"
[workload.small]
random = { in = 16, out = 8 }
[sla]
quick = ["p90_ttft_ms<=500"]
"""


VARY = 'vary = { engine = ["no-such-engine", "false"] }'


def answer(evidence: EvidenceClass, error: str | None = None) -> Answer:
    return Answer(sla="chat", criteria=SLA.criteria, variable="rate", evidence=evidence, error=error)


def result(*answers: Answer, listed: bool = False) -> Result:
    return Result(directory=Path("x"), answers=answers, listed=listed)


@pytest.mark.parametrize(("evidence", "code"), CODES.items())
def test_each_kind_of_evidence_has_its_exit_code(evidence: EvidenceClass, code: int) -> None:
    assert code == result(answer(evidence)).exit_code


def test_the_worst_of_several_answers_decides_the_exit_code() -> None:
    order = [1, 5, 4, 3, 0]
    for one, other in itertools.combinations(CODES, 2):
        worst = min(CODES[one], CODES[other], key=order.index)
        assert worst == result(answer(one), answer(other)).exit_code
        assert worst == result(answer(other), answer(one)).exit_code


def test_an_error_ends_with_1_whatever_else_is_known() -> None:
    assert 1 == result(answer("undecided", error="the command broke twice")).exit_code


def test_a_measured_list_of_loads_is_no_failure_whatever_it_shows() -> None:
    assert 0 == result(answer("undecided"), listed=True).exit_code
    assert 5 == result(answer("client_limited"), listed=True).exit_code


@pytest.mark.parametrize(
    ("url", "elsewhere"),
    [
        ("http://localhost:8000", False),
        ("http://127.0.0.1:8000/v1", False),
        ("127.0.0.2:80", False),
        ("http://[::1]:8000", False),
        ("http://10.1.2.3:8000", True),
        ("https://llm.example.com", True),
        ("llm.example.com:8000", True),
    ],
)
def test_only_loopback_is_this_machine(url: str, elsewhere: bool) -> None:
    assert elsewhere is (prepare_find(url, ["p99_ttft_ms<=200"], Place()).elsewhere is not None)


def test_the_owner_of_a_server_hears_of_the_load_and_the_requests() -> None:
    prepared = prepare_find("http://10.1.2.3", ["p99_ttft_ms<=200"], Place(), max=50, max_requests=5000)

    text = owner_warning(prepared)

    assert "http://10.1.2.3" in text
    assert "beyond its limit" in text
    assert "up to 50 requests/s (--max)" in text
    assert "up to 5,000 requests (--max-requests)" in text


def test_one_question_has_one_directory_and_another_question_another() -> None:
    def directory(url: str = "http://localhost:8000", **options: str) -> Path:
        return prepare_find(url, ["p99_ttft_ms<=200"], Place(), **options).directory  # type: ignore[arg-type]  # a table

    same = {directory(), directory("http://localhost:8000/v1/"), directory("localhost:8000"), directory(precision="9%")}
    others = [directory(by="concurrency"), directory(model="m"), directory(workload="rag"), directory("localhost:9000")]

    assert 1 == len(same)
    assert 5 == len({*same, *others})
    assert directory().parts[0] == "redline-results"
    assert directory().name.startswith("localhost-")


def test_again_takes_the_next_free_directory(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept-2").mkdir()

    prepared = prepare_find("localhost", ["p99_ttft_ms<=200"], Place(out=tmp_path / "kept", again=True))

    assert tmp_path / "kept-3" == prepared.directory


def test_a_workload_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("random = { in = 7, out = 9 }\n")

    (workload,) = prepare_find("localhost", ["p99_ttft_ms<=200"], Place(), workload=str(file)).experiment.workloads

    assert ("mine", 7, 9) == (workload.name, workload.prompt.mean, workload.output.mean)  # type: ignore[union-attr]


def test_options_of_a_call_take_the_place_of_the_file_and_are_kept_with_it(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(FILE + '[search]\nby = "rate"\nmax_trials = 9\n')

    prepared = prepare_run(tmp_path / "two.toml", Place(out=tmp_path / "kept"), by="concurrency", max=64)
    redline.run(tmp_path / "two.toml", place=Place(out=tmp_path / "kept"), by="concurrency", max=64)
    opened = redline.open_experiment(tmp_path / "kept")

    assert ("concurrency", 64, 9) == (
        prepared.experiment.goal.by,
        prepared.experiment.goal.max_load,
        prepared.experiment.goal.max_trials,
    )
    assert prepared.experiment.goal == opened.experiment.goal
    assert "kept" == opened.experiment.name


def test_a_configuration_that_does_not_start_is_a_result_not_an_exception(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(FILE)

    result = redline.run(tmp_path / "two.toml", place=Place(out=tmp_path / "kept"))

    (answer,) = result.answers
    assert ("not_started", 1, 0) == (answer.evidence, result.exit_code, result.measured)
    assert "exited with code 1" in (answer.error or "")


def test_only_where_every_program_is_missing_nothing_is_tried(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(FILE.replace("false", "no-such-engine"))
    (tmp_path / "two.toml").write_text(FILE.replace("false", "{engine}", 1).replace('}"', '}"\n' + VARY, 1))

    with pytest.raises(RedlineError, match="cannot start 'no-such-engine'"):
        redline.run(tmp_path / "one.toml", place=Place(out=tmp_path / "one"))
    result = redline.run(tmp_path / "two.toml", place=Place(out=tmp_path / "two"))

    assert not (tmp_path / "one").exists()
    assert ["not_started", "not_started"] == [answer.evidence for answer in result.answers]


def test_an_unusable_question_is_a_usage_error_with_everything_in_it() -> None:
    with pytest.raises(UsageError, match=r"no share(.|\n)*did you mean p99_ttft_ms"):
        redline.find("localhost", ["p99_tfft_ms<=200"], precision="much")


def test_a_server_that_does_not_answer_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RedlineError, match="does not answer"):
        redline.find("http://127.0.0.1:1", ["p99_ttft_ms<=200"], place=Place(out=tmp_path / "kept"))

    assert [] == list(tmp_path.iterdir())


def test_find_measures_and_open_experiment_answers_again_from_disk(tmp_path: Path) -> None:
    seen: list[Event] = []
    with SimServer() as server:
        result = redline.find(
            server.url,
            ["mean_ttft_ms<=60s"],
            workload="random:in=16,out=8",
            place=Place(out=tmp_path / "kept"),
            emit=seen.append,
            min=50,
            max=100,
            max_time=2,
        )
        stored = [event.trial for event in seen if isinstance(event, TrialEnded)]

    opened = redline.open_experiment(result.directory)

    assert result.measured == len(stored) > 0
    assert [trial.id for trial in stored] == [trial.id for trials in opened.trials.values() for trial in trials]
    assert result.answers == tuple(
        replace(answer, stop_reason=found.stop_reason)
        for answer, found in zip(opened.answers(), result.answers, strict=True)
    )
    assert opened.slas() == (parse_sla("mean_ttft_ms<=60s"),)


def test_a_plan_sees_that_an_sla_was_added_since(tmp_path: Path) -> None:
    file, place = tmp_path / "plan.toml", Place(out=tmp_path / "kept")
    settings = "[search]\nmin = 50\nmax = 100\nmax_time = 60\n"
    with SimServer() as server:
        file.write_text(
            FILE.replace('command = "false no-such-engine --port {port}"', f'url = "{server.url}"') + settings
        )
        redline.run(file, place=place)
    before = plan(prepare_run(file, place))

    file.write_text(file.read_text().replace("[search]", 'hard = ["p99_tpot_ms<=0.01"]\n[search]'))
    after = plan(prepare_run(file, place))

    assert (0, True) == (before.cases[0].trials, after.cases[0].trials > 0)


def test_a_reader_that_cannot_be_imported_is_found_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('command = "true {rate} {result}"\nreader = "nope:fn"\n')

    with pytest.raises(UsageError, match=r"line 2: .*cannot be imported"):
        prepare_find("localhost", ["p99_ttft_ms<=200"], Place(), workload=str(file))


def test_when_the_server_is_gone_what_is_stored_still_answers(tmp_path: Path) -> None:
    question = {"workload": "random:in=16,out=8", "min": 50, "max": 100, "max_time": 2}
    place = Place(out=tmp_path / "kept")
    with SimServer() as server:
        first = redline.find(server.url, ["mean_ttft_ms<=60s"], place=place, **question)  # type: ignore[arg-type]
    seen: list[Event] = []

    again = redline.find(server.url, ["mean_ttft_ms<=60s"], place=place, emit=seen.append, **question)  # type: ignore[arg-type]

    assert 0 == again.measured
    assert first.answers == again.answers
    assert any("does not answer now" in getattr(event, "text", "") for event in seen)
