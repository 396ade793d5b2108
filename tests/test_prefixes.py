"""What prompts have in common: as much as asked, in as many groups, and nothing from one trial to the next."""

import json
from collections import Counter
from dataclasses import replace
from itertools import takewhile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.api import Place, prepare_find
from redline.codec import load_experiment
from redline.experiment.workloads import parse_workload
from redline.loadgen.payload import Payloads, Shape, target_of
from redline.model import Endpoint, Lengths, Prefix, Probe, Stop, UsageError, Workload
from redline.prefixes import group_of, shared
from redline.simulate.cache import BLOCK, PrefixCache, blocks_of
from redline.simulate.profiles import PROFILES
from redline.simulate.session import VirtualSession

TARGET = target_of(Endpoint(url="http://host:8000", model="m"))
WORDS = Shape(tokens_per_word=1.0)


def workload(prefix, **more) -> Workload:
    return Workload(name="w", prompt=Lengths(mean=200), output=Lengths(mean=9), prefix=prefix, **more)


def texts(its: Workload, count: int, seed: int = 3, shape: Shape = WORDS) -> list[str]:
    payloads = Payloads(TARGET, "m", its, shape, seed)
    bodies = [json.loads(payloads.next().payload.partition(b"\r\n\r\n")[2]) for _ in range(count)]
    return [body["messages"][0]["content"] for body in bodies]


def in_common(these: list[str]) -> int:
    """Words."""
    return begin_alike([text.split() for text in these])


def begin_alike(these: list[list]) -> int:
    """Pieces at the start that all of these have."""
    return sum(1 for _ in takewhile(lambda pieces: len(set(pieces)) == 1, zip(*these, strict=True)))


@pytest.mark.parametrize(
    ("prefix", "common"),
    [(Prefix(share=0.6), 120), (Prefix(tokens=50), 50), (Prefix(tokens=500), 199), (Prefix(share=0.999), 199)],
)
def test_prompts_begin_alike_for_as_long_as_asked_and_stay_as_long_as_they_were(prefix, common):
    sent = texts(workload(prefix), 20)

    assert common == in_common(sent)
    assert {200} == {len(text.split()) for text in sent}


def test_tokens_in_common_are_counted_as_the_server_counts():
    assert 25 == in_common(texts(workload(Prefix(tokens=50)), 20, shape=Shape(tokens_per_word=2.0)))


def test_each_group_has_a_beginning_of_its_own():
    sent = texts(workload(Prefix(share=0.5, groups=4)), 200)

    groups = Counter(" ".join(text.split()[:100]) for text in sent)
    assert 4 == len(groups)
    assert min(groups.values()) > 25
    assert 200 == len({" ".join(text.split()[100:108]) for text in sent})
    assert 4 == len({text.split()[0] + text.split()[1] for text in groups})


def test_trials_have_nothing_in_common_unless_asked():
    its = workload(Prefix(share=0.6))

    assert 0 == in_common([texts(its, 1, seed)[0] for seed in (3, 4)])
    assert 120 == in_common([texts(replace(its, repeat=True), 1, seed)[0] for seed in (3, 4)])


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(1, 1_000))
def test_every_request_has_one_of_the_groups(seed, i, groups):
    assert 0 <= group_of(Prefix(share=0.5, groups=groups), seed, i) < groups


@given(st.floats(0.001, 0.999), st.integers(1, 10_000))
def test_no_prompt_is_all_in_common(share, length):
    assert 0 <= shared(Prefix(share=share), length) < length


def test_token_ids_have_a_beginning_in_common_too():
    its = workload(Prefix(share=0.5), api="completions", prompt_kind="tokens")
    payloads = Payloads(TARGET, "m", its, Shape(tokens_per_word=1.0, ids=(100, 200)), 3)
    ids = [json.loads(payloads.next().payload.partition(b"\r\n\r\n")[2])["prompt"] for _ in range(5)]

    assert (100, {200}) == (begin_alike(ids), {len(each) for each in ids})


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("chat:prefix.share=60%,prefix.groups=8", Prefix(share=0.6, groups=8)),
        ("chat:prefix.tokens=1000,repeat=true", Prefix(tokens=1000)),
    ],
)
def test_a_prefix_is_read_from_a_short_text(text, prefix):
    assert prefix == parse_workload(text).prefix


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chat:prefix.groups=8", "needs one of share and tokens"),
        ("chat:prefix.share=0.5,prefix.tokens=8", "needs one of share and tokens"),
        ("chat:prefix.share=1", "must lie between 0% and 100%"),
        ("chat:prefix.shared=0.5", "did you mean share?"),
        ("chat:prefix.share=0.5,prefix.share=0.6", "prefix.share is given twice"),
    ],
)
def test_what_is_no_prefix_is_refused(text, says):
    with pytest.raises(UsageError) as error:
        parse_workload(text)

    assert says in str(error.value)


def test_find_writes_down_a_prefix_that_reads_as_the_same(tmp_path):
    text = "chat:prefix.share=0.6,prefix.groups=8,repeat=true"
    prepared = prepare_find("http://127.0.0.1:9", ["p99_ttft_ms<=200"], Place(), workload=text)
    (tmp_path / "experiment.toml").write_text(prepared.text)

    assert prepared.experiment.workloads == load_experiment(tmp_path / "experiment.toml").workloads


# ---- on a simulated server -------------------------------------------------------------------------------------------


def test_a_cache_finds_whole_blocks_up_to_the_first_that_it_does_not_hold():
    cache, words = PrefixCache(1_000), [str(n) for n in range(100)]
    cache.keep(blocks_of(words))

    assert 2 * BLOCK == cache.look_up(blocks_of([*words[:40], "other", *words[41:]]), 100)
    assert 0 == cache.look_up(blocks_of(["other", *words[1:]]), 100)
    assert 95 == cache.look_up(blocks_of(words[:96]), 96)  # one token is computed at least
    assert (296, 2 * BLOCK + 95) == (cache.asked, cache.found)


def test_a_full_cache_forgets_what_was_not_used_longest():
    cache = PrefixCache(2 * BLOCK)
    cache.keep([1, 2])
    cache.look_up([1], 20)
    cache.keep([3])

    assert [BLOCK, 0, BLOCK] == [cache.look_up([block], 20) for block in (1, 2, 3)]
    cache.reset()
    assert 0 == cache.look_up([1], 20)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_server_with_a_cache_computes_the_rest_of_each_prompt_only(share):
    profile = replace(PROFILES["demo"], run_noise=0.0, prefix_cache_tokens=100_000)
    probe = Probe(by="rate", load=2, kind="main", max_s=60)
    its = replace(workload(Prefix(share=share, groups=2)), prompt=Lengths(mean=640), arrivals="constant")

    def ttft_ms(server):
        outcome = VirtualSession(server, its).measure(probe, _to_the_end, seed=1)
        return float(np.median(outcome.records.ttft_ms()[outcome.records.ok]))

    saved_ms = ttft_ms(replace(profile, prefix_cache_tokens=0)) - ttft_ms(profile)
    assert share * 640 * profile.prefill_us / 1e3 == pytest.approx(saved_ms, rel=0.01)


def _to_the_end(records) -> Stop | None:
    return Stop(reason="full", at_s=records.observed_s) if records.observed_s >= 30 else None
