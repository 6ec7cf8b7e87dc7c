"""The report of an evaluation, opened as a file in a real browser, with nothing but the file; and the viewer of its run."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.runs import Run
from careedit_eval.suite import Gate
from careedit_eval.viewer import Library, ViewedRun, make_server
from scripted_eval import arm, finished, suite, with_traces

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed")


HOSTILE = '"><img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script> make it'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that won some, lost some and failed once; its instructions are markup."""
    folder = tmp_path_factory.mktemp("run")
    wanted = suite(
        arm("a", by=50, spread=9), arm("b", by=48, spread=20, fail="s004"), n=24, rows=("identity", "truth"),
        seeds=(1, 2), compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.001}),
        bench={"words": HOSTILE, "masked": True},
    )  # fmt: skip
    made = with_traces(finished(wanted, folder))
    write_analysis(made, analyse(made))
    return made


@pytest.fixture(scope="module")
def report(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page, in another folder."""
    analysis = analyse(run)
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
    """Kinds of the losses and wins that can be seen."""
    return page.eval_on_selector_all(
        "body > .grid article", "all => all.filter(one => one.offsetParent).map(one => one.dataset.kind)"
    )


def test_it_opens_from_disk_with_verdict_tables_and_every_picture(page) -> None:
    assert page.locator("#verdict").inner_text().startswith("WORSE: b must not replace a")
    assert page.get_by_role("columnheader", name="identity (no edit)").first.is_visible()
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


@pytest.mark.parametrize("size", [(1280, 800), (1440, 900)])
def test_the_first_screen_has_sentence_plots_with_margins_and_twelve_samples(page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    seen = ["#verdict", ".advice", ".forest svg .margin >> nth=0", *(f".shot >> nth={place}" for place in range(12))]
    for place in (page.locator(one).bounding_box() for one in seen):
        assert place["y"] >= 0 and place["y"] + place["height"] <= size[1] and place["x"] + place["width"] <= size[0]
    assert page.locator(".shot img").first.bounding_box()["height"] > 60
    assert page.evaluate("window.hacked") is None
    page.locator(".shot").first.click()
    assert page.evaluate("document.querySelector(':target').matches('article')"), "a sample leads to its card"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground_by_day_and_by_night(page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    light, dark = sorted((brightness(ink), brightness(paper)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 7, "WCAG 2.2, AAA"
    assert (brightness(paper) > 0.5) == (scheme == "light")


@pytest.fixture
def viewer(run: Run) -> Iterator[str]:
    server = make_server(Library([ViewedRun(str(run.folder))]), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_viewer_filters_shows_and_links_every_sample(viewer: str) -> None:
    from playwright.sync_api import sync_playwright

    flaws: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("console", lambda line: flaws.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: flaws.append(str(error)))
        page.goto(viewer)
        count, title = page.locator("#count"), page.locator("#sample h2")
        title.wait_for()
        assert count.inner_text() == "48 of 48 samples" and title.inner_text() == f"{HOSTILE} 0"
        assert 0 < page.locator(".item").count() < 30, "only what is in sight exists"
        page.locator("#list").evaluate("one => one.scrollTop = one.scrollHeight")
        page.locator(".item", has_text="s023").first.wait_for()

        page.select_option("#error", "any")
        page.locator("#count", has_text="2 of 48").wait_for()
        page.locator("#sample .bad", has_text="the painter has no paint").first.wait_for()
        page.click("#clear")
        page.select_option("#kind", "Add")
        page.select_option("#expert", "≠")
        page.locator("#count", has_text="8 of 48").wait_for()
        page.select_option("#side", "d")
        page.fill("#high", "0")
        page.select_option("#order", "loss")
        page.wait_for_function("document.querySelectorAll('.item').length < 8")
        page.locator(".item").first.click()
        page.locator(".route", has_text="It asks for style.").wait_for()
        assert page.locator("meter").count() == 4

        for mode, style in (("slider", "clipPath"), ("difference", "mixBlendMode"), ("mask", "opacity")):
            page.click(f"[data-mode={mode}]")
            over = page.locator(".stack .over")
            page.wait_for_function("[...document.querySelectorAll('.stack img')].every(one => one.naturalWidth === 8)")
            assert over.evaluate(f"one => getComputedStyle(one).{style}") not in ("none", "normal", "1")
        link, words = page.url, title.inner_text()

        again = browser.new_page(viewport={"width": 1440, "height": 900})
        again.goto(link)
        again.locator("#sample h2", has_text=words).wait_for()
        assert again.locator("button[data-mode=mask]").get_attribute("aria-pressed") == "true"
        assert again.input_value("#kind") == "Add" and again.locator("#count").inner_text() == count.inner_text()
        again.fill("#high", "")
        again.locator("#count", has_text="8 of 48").wait_for()
        again.locator("#sample h2").click()
        again.keyboard.press("ArrowDown")
        again.wait_for_function("word => document.querySelector('#sample h2').textContent !== word", arg=words)
        again.go_back()
        again.locator("#sample h2", has_text=words).wait_for()
        again.click("[data-tab=history]")
        again.locator("#history circle").first.wait_for()
        assert [tab.evaluate("window.hacked") for tab in (page, again)] == [None, None]
        browser.close()
    assert flaws == []


def brightness(colour: str) -> float:
    """Relative luminance of "rgb(1, 2, 3)"."""
    parts = [int(part) / 255 for part in json.loads(f"[{colour[colour.index('(') + 1 : -1]}]")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
