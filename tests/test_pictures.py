"""The pictures of the documentation: drawn from little, and each where the page names it."""

import importlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from redline.model import Answer

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "verdicts.md"
SHOWN = re.findall(r"!\[([^\]]*)\]\((images/[^)]*\.svg)\)\n\n\*([^\n]*)\*\n", PAGE.read_text(encoding="utf-8"))
MOST_BYTES = 40_000
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Imports a script of benchmarks/ as it imports its neighbours."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def parsed(svg: str) -> ElementTree.Element:
    """Well-formed, and without a number that no viewer can place."""
    assert not re.search(r"\b(nan|inf)\b", svg.partition("<rect")[2])
    return ElementTree.fromstring(svg)


def answer(capacity: float | None, low: float, high: float, *warnings: str) -> Answer:
    return Answer(
        sla="chat", criteria=(), variable="rate", evidence="edge", capacity=capacity, estimate=(low + high) / 2,
        low=low, high=high, benchmark_s=90.0, warnings=warnings,
    )  # fmt: skip


def test_every_image_of_every_page_exists() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for name in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / name).is_file(), f"{page.name} names {name}"


def test_every_picture_is_on_the_page_small_and_says_what_its_caption_says(load) -> None:
    named = {name for _, name, _ in SHOWN}

    assert {f"images/{name}.svg" for name in load("pictures").PICTURES} == named
    assert {f"images/{path.name}" for path in (PAGE.parent / "images").iterdir()} == named
    for alt, name, caption in SHOWN:
        svg = (PAGE.parent / name).read_text(encoding="utf-8")
        assert alt
        assert parsed(svg).findtext(f"{SVG}desc") == caption
        assert len(svg.encode()) < MOST_BYTES
        assert "prefers-color-scheme:dark" in svg


def test_a_caption_replaces_that_of_its_own_picture_only(load) -> None:
    captioned = load("pictures").captioned
    page = "![a](images/one.svg)\n\n*old one*\n\ntext\n\n![b](images/two.svg)\n\n**\n"

    found = captioned(page, "two", r"new \1")

    assert found == "![a](images/one.svg)\n\n*old one*\n\ntext\n\n![b](images/two.svg)\n\n*new \\1*\n"
    with pytest.raises(ValueError, match=r"images/three\.svg"):
        captioned(page, "three", "new")


def test_what_lies_outside_a_panel_stands_at_its_edge(load) -> None:
    panel = load("drawing").Panel(left=10, right=110, top=0, bottom=50, x=(0, 10), y=(0, 5))

    assert [("60", "25"), ("10", "0"), ("110", "50")] == [panel.at(5, 2.5), panel.at(-3, 9), panel.at(99, -1)]


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [(0, 100, 5, [0, 20, 40, 60, 80, 100]), (29.7, 69.3, 5, [30, 40, 50, 60]), (0, 1, 0, []), (3, 3, 5, [])],
)
def test_ticks_are_round_numbers(load, low: float, high: float, most: int, expected: list[float]) -> None:
    assert expected == pytest.approx(load("drawing").round_ticks(low, high, most))


def test_a_search_is_drawn_with_each_of_its_trials(load) -> None:
    figures, scenes = load("figures"), load("scenes")
    trials = [(1, "scout"), (64, "scout"), (52, "missed"), (58, "early"), (48, "met")]
    told = [scenes.Seen(load=at, standing=kind, middle_s=5.0) for at, kind in trials]
    loads = np.linspace(30, 80, 20)
    beliefs = [scenes.Belief(trials=n, low=45, high=55 - n, loads=loads, density=np.ones(20)) for n in (2, 3, 4, 5)]

    picture = figures.draw_search(told, beliefs, (47.0, 45.0, 49.0), 50.0)

    assert "2 first looks, then 3 trials" in picture.caption
    assert "it does not hold the true capacity, 50.0" in picture.caption
    drawn = parsed(picture.svg).findall(f"{SVG}g")
    assert len(told) == sum(len(group) for group in drawn)


def test_answers_are_counted_against_the_truth(load) -> None:
    figures, scenes = load("figures"), load("scenes")
    drifted = "the server became 4% faster in 46 s of measuring"
    given = [answer(48, 46, 52), answer(54, 51, 58), answer(51, 49, 55, drifted), answer(None, 40, 60)]
    found = [scenes.Search(answer=each, trials=()) for each in given]

    picture = figures.draw_answers({"demo": (found, 50.0)})

    assert "demo: 3 of 4 intervals held the truth" in picture.caption
    assert "2 of 3 answers were above it, 1 by more than 5%; 1 warned" in picture.caption
    parsed(picture.svg)


def test_a_drift_is_held_against_the_capacity_at_both_ends(load) -> None:
    figures, scenes = load("figures"), load("scenes")
    found = [scenes.Search(answer=answer(18, 17, 21), trials=()), scenes.Search(answer=answer(10, 9, 12), trials=())]
    told = [scenes.Seen(load=20, standing="early", middle_s=10), scenes.Seen(load=18, standing="unused", middle_s=50)]

    picture = figures.draw_drift(found, told, [0.0, 100.0], [20.0, 10.0])

    assert "1 intervals held the capacity at their start, 1 the one at their end" in picture.caption
    parsed(picture.svg)


def test_growth_is_counted_early_and_late(load) -> None:
    figures, scenes = load("figures"), load("scenes")
    steady = scenes.Backlog(counts=np.full(121, 20.0), short_z=0.0, long_z=0.0)
    grows = scenes.Backlog(counts=np.arange(121.0), short_z=1.0, long_z=9.0)

    picture = figures.draw_in_flight([[steady] * 3, [steady] * 3, [grows] * 3], [9.7, 10.0, 10.3])

    assert "fired in 0 and 0 after 20 s" in picture.caption
    assert "0 and 3 after 120 s" in picture.caption
    parsed(picture.svg)


def test_the_share_over_and_its_intervals_come_from_real_trials(load) -> None:
    figures, scenes = load("figures"), load("scenes")
    cell = replace(scenes.cell_of("demo", "chat"), sla="p90_ttft_ms<=63")
    trials = [scenes.shares(cell, 50.0, seed) for seed in range(2)]

    picture = figures.draw_dependence(trials, "63 ms")

    assert [scenes.SHORT_COUNT, scenes.LONG_COUNT] == [trials[0].short.n, trials[0].long.n]
    assert trials[0].batches.mean() == pytest.approx(trials[0].long.k / trials[0].long.n)
    assert f"of {scenes.LONG_COUNT // scenes.BATCH} do" in picture.caption
    parsed(picture.svg)


def test_the_first_wave_is_drawn_the_same_each_time(load) -> None:
    pictures = load("pictures")
    with ThreadPoolExecutor(1) as pool:
        once, again = (pictures.PICTURES["first-wave"](pool) for _ in range(2))

    assert once == again
    parsed(once.svg)
