"""The worked examples run as their page says, with --quick, and their pages show what was measured."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browsing import picture_of
from careedit.report import Figure
from careedit.stats import Interval
from documents import blocks

FOLDER = Path(__file__).parents[2] / "docs/examples"
PAGE = (FOLDER / "index.md").read_text("utf-8").replace("\\\n", " ")
COMMANDS = [
    (text.startswith("# not run"), shlex.split(line)[1:])
    for language, text in blocks(PAGE)
    if language == "bash"
    for line in text.splitlines()
    if line.startswith("python ")
]
"""Whether each command of the page is left out here, and its words after "python"."""
NAMES = ("seasonal_look", "twin_part", "style_folder")


class Page(HTMLParser):
    """The cards and the rows of tables of a page of edits."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.cards: list[dict[str, Image.Image]] = []
        self.rows: list[list[str]] = []
        self.loaded: list[str] = []
        self.words = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "article":
            self.cards.append({})
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "img":
            self.cards[-1][given["alt"].partition(":")[0]] = picture_of(given["src"])
        self.loaded += [value for name, value in given.items() if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.rows and self.rows[-1] and self.lasttag in ("td", "th"):
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


def script(name: str) -> ModuleType:
    """The module of an example."""
    return importlib.import_module(name)


def run(name: str, out: Path) -> tuple[dict[str, Any], Page]:
    """Run the page's command of an example, smaller and into `out`; its figures and its page."""
    (words,) = [words for left_out, words in COMMANDS if not left_out and words[0] == f"docs/examples/{name}.py"]
    arguments = ["--quick", *words[1:]]
    arguments[arguments.index("--out") + 1] = str(out)
    assert script("shared").run_example(script(name).example, arguments) == 0
    document = json.loads((out / "figures.json").read_text("utf-8"))
    page = Page(out / "index.html")
    assert all(place.startswith("data:image/png") for place in page.loaded)
    assert len(page.cards) == len(document["edits"]) > 2
    check_figures(document, page)
    return document, page


def check_figures(document: dict[str, Any], page: Page) -> None:
    """Each figure of the page is that of the JSON, as the page writes numbers."""
    shown = {row[0]: row[1:4] for row in page.rows if len(row) == 5 and row[0] != "figure"}
    assert list(shown) == [one["name"] for one in document["figures"]]
    for one in document["figures"]:
        ends = None if one["low"] is None else Interval(one["low"], one["high"])
        figure = Figure(one["name"], one["value"], ends, one["count"], "", share="%" in shown[one["name"]][0])
        interval = "too few images" if ends is None else f"{figure.text(ends.low)} to {figure.text(ends.high)}"
        assert shown[one["name"]] == [figure.text(one["value"]), interval, str(one["count"])]
        assert ends is None or ends.low <= one["value"] <= ends.high


def value(document: dict[str, Any], name: str) -> float:
    """The value of the figure with this name."""
    (found,) = [one["value"] for one in document["figures"] if one["name"] == name]
    return float(found)


@pytest.mark.timeout(900)
def test_the_seasonal_look_goes_to_the_brand_expert_and_the_drift_is_that_of_the_pictures(tmp_path: Path) -> None:
    document, page = run("seasonal_look", tmp_path / "out")
    edits = document["edits"]
    assert document["training"]["expert_loss"] < document["training"]["base_loss"]
    assert all(edit["brand"]["routing"][0]["weights"] == {"winter": 1.0} for edit in edits)
    assert all(edit["base"]["routing"][0]["weights"] == {"base": 1.0} for edit in edits)
    others = re.findall(r"“(.+?)” goes to: (\w+)", page.words)
    assert len(others) == 3 and "winter" not in dict(others).values()

    pictures = {id_of(card["before"], tmp_path / "out/pictures/edit"): card for card in page.cards}
    for edit in edits:
        card = pictures[edit["id"]]
        before, after = (np.asarray(card[name], float) / 255 for name in ("before", "brand expert"))
        logo = np.asarray(Image.open(tmp_path / "out/pictures/edit" / f"{edit['id']}-mask.png")) == 0
        assert 0 < logo.mean() < 0.5
        assert edit["brand"]["numbers"]["drift"] == pytest.approx(np.abs(after - before)[logo].mean())
    drifts = [edit["brand"]["numbers"]["drift"] for edit in edits]
    assert value(document, "Drift of the logo, brand expert") == pytest.approx(np.mean(drifts))


def id_of(picture: Image.Image, folder: Path) -> str:
    """The row of a drawn table whose source is this picture."""
    (found,) = [
        path
        for path in folder.glob("*-source.png")
        if np.array_equal(np.asarray(Image.open(path).convert("RGB")), np.asarray(picture))
    ]
    return found.name.removesuffix("-source.png")


@pytest.mark.timeout(900)
def test_a_part_is_replaced_in_two_turns_each_with_its_expert(tmp_path: Path) -> None:
    document, page = run("twin_part", tmp_path / "out")
    edits = document["edits"]
    assert all(len(edit["routing"]) == 2 and all(turn["reason"] for turn in edit["routing"]) for edit in edits)
    assert all("reference" in edit["routing"][1]["weights"] for edit in edits)
    assert value(document, "Right") == pytest.approx(np.mean([edit["right"] for edit in edits]))
    new, old = (value(document, f"Likeness to the wanted result, {part} part") for part in ("new", "old"))
    assert value(document, "Likeness to the wanted result, new minus old") == pytest.approx(new - old)
    assert {"before", "mask", "reference", "after", "wanted"} == set(page.cards[0])


@pytest.mark.timeout(900)
def test_a_failed_edit_of_a_folder_is_retried_and_both_attempts_are_kept(tmp_path: Path, monkeypatch) -> None:
    out, failing = tmp_path / "out", "picture-0"
    judge, seen = script("shared").Check.__call__, []

    def stricter(self: Any, sample: Any, image: Image.Image) -> tuple[bool, str]:
        """The first attempt at one picture is not right, whatever the weights make of it."""
        seen.append(sample.id)
        right, words = judge(self, sample, image)
        return right and not (sample.id == failing and seen.count(failing) == 1), words

    monkeypatch.setattr(script("shared").Check, "__call__", stricter)
    document, page = run("style_folder", out)
    edits = {edit["id"]: edit for edit in document["edits"]}
    retried = {name for name, edit in edits.items() if "retry" in edit}
    assert failing in retried
    assert retried == {name for name, edit in edits.items() if not edit["first"]["right"]}
    assert {path.stem for path in (out / "first").glob("*.png")} == set(edits)
    assert {path.stem for path in (out / "retry").glob("*.png")} == retried
    assert {path.stem for path in (out / "right").iterdir()} == {name for name, edit in edits.items() if edit["right"]}
    assert sum("retry" in card and "first attempt" in card for card in page.cards) == len(retried)
    assert value(document, "Right at the first attempt") == pytest.approx(1 - len(retried) / len(edits))
    assert value(document, "Right in the end") == pytest.approx(np.mean([edit["right"] for edit in edits.values()]))


def test_the_options_of_every_command_of_the_page_exist() -> None:
    assert {Path(words[0]).stem for _, words in COMMANDS} == set(NAMES)
    for _, words in COMMANDS:
        assert (FOLDER.parents[1] / words[0]).is_file()
        script(Path(words[0]).stem).options().parse_args(words[1:])


def test_own_pictures_need_a_judge_and_an_existing_result_is_not_replaced(tmp_path: Path, capsys) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    own = ["--pictures", str(tmp_path), "--style", str(tmp_path / "photo.png"), "--out"]
    run_example, example = script("shared").run_example, script("style_folder").example
    assert run_example(example, [*own, str(tmp_path / "out")]) == 2
    assert "name a vision model with --judge" in capsys.readouterr().err
    assert run_example(example, [*own, str(tmp_path)]) == 2
    assert "give a new folder with --out" in capsys.readouterr().err
