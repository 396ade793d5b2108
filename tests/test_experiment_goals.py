"""What is said of the search, and of a list of loads instead, in a file and on the command line."""

from pathlib import Path

import pytest

from redline.codec import load_experiment
from redline.experiment.build import find_experiment
from redline.experiment.file import experiment_to_toml
from redline.model import UsageError

SLA = ("p99_ttft_ms<=200",)
FILE = """[server]
url = "http://h"
[workload.chat]
preset = "chat"
[sla]
chat = ["p99_ttft_ms<=200"]
[search]
"""


def loaded(folder: Path, search: str, **options: object):
    (folder / "e.toml").write_text(FILE + search)
    return load_experiment(folder / "e.toml", options).goal


def test_a_list_that_is_to_be_found_is_written_and_read_back(tmp_path: Path) -> None:
    asked = find_experiment("http://h", SLA, {"loads": "auto", "max": 50.0, "by": "rate"})

    (tmp_path / "e.toml").write_text(experiment_to_toml(asked))
    read = load_experiment(tmp_path / "e.toml")

    assert (True, (), 50.0) == (asked.goal.curve, asked.goal.loads, asked.goal.max_load)
    assert asked.goal == read.goal
    assert asked.goal.lists


@pytest.mark.parametrize("key", ["precision", "sustain", "max_trials"])
def test_what_only_a_search_has_does_nothing_beside_it(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} does nothing beside loads"):
        find_experiment("http://h", SLA, {"loads": "auto", key: {"precision": 0.1, "sustain": 9, "max_trials": 3}[key]})


def test_limits_of_a_file_stay_with_a_list_that_is_found_and_go_with_one_that_is_given(tmp_path: Path) -> None:
    limits = "min = 2.0\nmax = 9.0\nprecision = 0.1\n"

    found = loaded(tmp_path, limits, loads="auto")
    given = loaded(tmp_path, limits, loads="1,20")

    assert (True, 2.0, 9.0) == (found.curve, found.min_load, found.max_load)
    assert (False, (1.0, 20.0)) == (given.curve, given.loads)


def test_options_of_a_search_replace_a_list_of_the_file_but_for_the_limits_of_one_that_is_found(tmp_path: Path) -> None:
    assert loaded(tmp_path, 'loads = "auto"\n', max=9.0).curve
    assert not loaded(tmp_path, 'loads = "auto"\n', precision=0.1).lists
    assert not loaded(tmp_path, "loads = [1, 2]\n", max=9.0).lists
