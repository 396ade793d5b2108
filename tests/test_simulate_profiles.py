"""Profiles: by name, from a file, with changes; and every mistake is named."""

import pytest

from redline.model import UsageError
from redline.simulate.profiles import PROFILES, Faults, load_profile


def test_a_profile_by_name_takes_changes_as_text_or_as_numbers():
    profile = load_profile("demo", {"max-num-seqs": "8", "step_ms": 12, "faults.reject-every": "3"})

    assert (8, 12.0, Faults(reject_every=3)) == (profile.max_num_seqs, profile.step_ms, profile.faults)
    assert load_profile("demo") == PROFILES["demo"]


def test_a_file_changes_a_base(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "8b-chat"\nmax_num_seqs = 64\nrun_noise = 0.03\n[faults]\nnever_ready = true\n')
    profile = load_profile(str(file), {"seed": "7"})

    assert ("mine", 64, 0.03, 7) == (profile.name, profile.max_num_seqs, profile.run_noise, profile.seed)
    assert profile.faults.never_ready
    assert profile.kv_tokens == PROFILES["8b-chat"].kv_tokens


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_num_sqs": 8}, ["max_num_sqs", "did you mean max_num_seqs?"]),
        ({"nope": 3}, ["nope: no such field; there are", "max_num_seqs", "step_ms", "faults.reject_every"]),
        ({"max_num_seqs": "many"}, ["max_num_seqs", "whole number"]),
        ({"max_num_seqs": "8.5", "step_ms": "fast"}, ["max_num_seqs", "step_ms", "a number"]),
        ({"max_num_seqs": 0}, ["max_num_seqs must be at least 1"]),
        ({"step_ms": 0}, ["step_ms must be above 0"]),
        ({"stall_s": -1}, ["stall_s must be a number of at least 0"]),
        ({"step_ms": "nan"}, ["step_ms"]),
        ({"kv_ns": "inf"}, ["kv_ns must be a number"]),
        ({"max_num_batched_tokens": 32}, ["max_num_batched_tokens must be above max_num_seqs"]),
        ({"faults.never_ready": "perhaps"}, ["true or false"]),
        ({"faults": "x"}, ["faults"]),
        ({"faults.reject_every": -2}, ["faults.reject_every must be a number of at least 0"]),
    ],
)
def test_a_change_that_cannot_be_is_refused_in_words(changes, words):
    with pytest.raises(UsageError) as error:
        load_profile("demo", changes)

    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_num_seqs = ", ["mine.toml"]),
        ('base = "demoo"', ["base", "demo"]),
        ("max_num_sqs = 3\nstep = 2", ["max_num_sqs", "step"]),
        ("faults = 3", ["faults"]),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_path(tmp_path, text, words):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        load_profile(str(file))

    assert all(word in str(error.value) for word in words), error.value
    assert "mine" in str(error.value)


def test_a_name_that_is_none_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean 8b-chat"):
        load_profile("8bchat")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_each_profile_can_be_loaded_by_its_name_and_says_what_it_is(profile):
    assert load_profile(profile.name) is profile or load_profile(profile.name) == profile
    assert profile.about
