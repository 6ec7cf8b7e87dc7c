"""The page of edits: complete, self-contained, and safe with any instruction."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from careedit.report import EditRow, Figure, write_edit_page
from careedit.stats import Interval


def row(kind: str, instruction: str, *, right: bool) -> EditRow:
    pictures = {"before": Image.new("RGB", (8, 8), "red"), "after": Image.new("RGB", (8, 8), "blue")}
    return EditRow(kind, instruction, pictures, right, "followed" if right else "not followed", "Expert: erase 1.00.")


def page(tmp_path: Path, *rows: EditRow) -> str:
    path = tmp_path / "new folder" / "index.html"
    write_edit_page(path, "A title", ["An introduction."], rows)
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    return path.read_text("utf-8")


def test_the_page_shows_every_edit_with_its_pictures_inside(tmp_path):
    text = page(tmp_path, row("remove", "remove the cat", right=True), row("add", "add a dog", right=False))
    assert text.count("<article>") == 2
    assert text.count("data:image/png;base64,") == 4
    assert 'src="http' not in text
    assert "An introduction." in text


def test_an_instruction_cannot_inject_markup(tmp_path):
    text = page(tmp_path, row("add", '<script>alert("x")</script> & more', right=True))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_the_summary_counts_by_kind_and_in_all(tmp_path):
    rows = [row("remove", "a", right=True), row("remove", "b", right=False), row("add", "c", right=True)]
    text = page(tmp_path, *rows)
    assert "<td>remove</td><td>1</td><td>2</td>" in text
    assert "<td>all</td><td>2</td><td>3</td>" in text


def test_figures_have_their_interval_or_say_that_there_are_too_few_images(tmp_path):
    figures = [
        Figure("Right", 0.5, Interval(0.25, 0.75), 12, "More is better.", share=True),
        Figure("Drift", 0.01234, None, 1, "Less is better."),
    ]
    path = tmp_path / "index.html"
    write_edit_page(path, "A title", [], [row("add", "a", right=True)], figures)
    text = path.read_text("utf-8")
    assert '<td class="number">50 %</td><td class="number">25 % to 75 %</td><td class="number">12</td>' in text
    assert '<td class="number">0.0123</td><td class="number">too few images</td><td class="number">1</td>' in text
