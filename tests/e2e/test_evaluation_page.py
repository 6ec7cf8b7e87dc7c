"""The report of an evaluation, opened as a file in a real browser, with nothing but the file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.suite import Gate
from scripted_eval import arm, finished, suite

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that won some, lost some and failed once; the run's own folder is gone."""
    folder = tmp_path_factory.mktemp("run")
    wanted = suite(
        arm("a", by=50, spread=9), arm("b", by=48, spread=20, fail="s004"), n=24, rows=("identity", "truth"),
        seeds=(1, 2), compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.001}),
    )  # fmt: skip
    run = finished(wanted, folder)
    analysis = analyse(run)
    write_analysis(run, analysis)
    alone = tmp_path_factory.mktemp("mailed") / "report.html"
    return write_report(run, analysis).replace(alone)


@pytest.fixture
def page(report: Path) -> Iterator:
    """It, opened from disk; whatever it wants from elsewhere and every error in its console fails the test."""
    from playwright.sync_api import sync_playwright

    flaws: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.on("console", lambda line: flaws.append(line.text) if line.type == "error" else None)
        opened.on("pageerror", lambda error: flaws.append(str(error)))
        opened.on(
            "request",
            lambda asked: None if asked.url.startswith((report.as_uri(), "data:")) else flaws.append(asked.url),
        )
        opened.goto(report.as_uri())
        yield opened
        browser.close()
    assert flaws == []


def shown(page) -> list[str]:
    """Kinds of the samples that can be seen."""
    return page.eval_on_selector_all(
        "article", "all => all.filter(one => one.offsetParent).map(one => one.dataset.kind)"
    )


def test_it_opens_from_disk_with_verdict_tables_and_every_picture(page) -> None:
    assert page.locator("#verdict").inner_text().startswith("WORSE: b must not replace a")
    assert page.get_by_role("cell", name="identity (no edit)").first.is_visible()
    widths = page.eval_on_selector_all("article img", "all => all.map(one => one.naturalWidth)")
    assert len(widths) > 20 and set(widths) == {8}
    errors = page.locator("#errors ~ table").first.inner_text()
    assert "the painter has no paint" in errors
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "the page itself never scrolls sideways"
    )


def test_samples_are_filtered_by_kind(page) -> None:
    every = shown(page)
    assert set(every) == {"Add", "Remove"} and len(every) > 10
    choice = page.locator("[data-filter]")
    choice.select_option("Add")
    assert shown(page) == [kind for kind in every if kind == "Add"]
    choice.select_option("")
    assert shown(page) == every


def test_a_sample_has_a_link_of_its_own(page, report: Path) -> None:
    sample = page.locator("article").nth(3)
    name = sample.get_attribute("id")
    sample.get_by_role("link").click()
    assert page.url == f"{report.as_uri()}#{name}"
    marked = page.evaluate("document.querySelector(':target').id")
    assert marked == name and sample.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


def test_what_is_folded_away_opens_and_plots_are_drawn(page) -> None:
    assert page.locator("svg circle:visible").count() >= 1
    folded = page.locator("details", has_text="By kind").first
    assert not folded.get_by_role("cell").first.is_visible()
    folded.locator("summary").click()
    assert folded.get_by_role("cell").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground_by_day_and_by_night(page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    light, dark = sorted((brightness(ink), brightness(paper)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 7, "WCAG 2.2, AAA"
    assert (brightness(paper) > 0.5) == (scheme == "light")


def brightness(colour: str) -> float:
    """Relative luminance of "rgb(1, 2, 3)"."""
    parts = [int(part) / 255 for part in json.loads(f"[{colour[colour.index('(') + 1 : -1]}]")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
