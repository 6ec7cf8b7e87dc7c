"""The commands of pages that need no server are run, in order, in a folder for each page, as a reader would type them.

The README, the tutorial, the release page and the examples with curl have tests of their own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from careedit_tiny.world.samples import draw_sample
from documents import NOT_RUN, Step, blocks, run_block, steps

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("batches.md", "early-filter.md", "provenance.md", "tiny-world.md")
ELSEWHERE = ("tutorial-expert.md", "release.md", "examples/index.md")
"""Pages whose commands other tests run: tests/cluster, tests/integration/serving and tests/e2e/test_examples.py."""
WRITTEN = {
    "batches.md": ("winter/a.png", "winter/b.png", "edited/row-1.png"),
    "early-filter.md": ("photo-edited.png", "seen"),
    "provenance.md": ("credentials/authority.pem", "edited.png"),
    "tiny-world.md": ("scenes/samples.jsonl",),
}
"""What each page's commands leave in its folder."""


def commands(page: str) -> list[Step]:
    return [step for step in steps((DOCS / page).read_text("utf-8")) if step.language == "bash"]


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return request.param


def test_what_a_page_says_works(page: str, tmp_path: Path) -> None:
    # A watermark needs 384 pixels.
    draw_sample("remove.thing", 3, "test").source_image(512).save(tmp_path / "photo.png")
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        draw_sample("remove.thing", ord(name[0]), "test").source_image().save(tmp_path / "photos" / name)
    (tmp_path / "rows.csv").write_text("source,instruction\nphotos/a.png,remove the red circle\n", "utf-8")
    for step in commands(page):
        run_block(step.language, step.text, tmp_path)
    assert [name for name in WRITTEN[page] if not (tmp_path / name).exists()] == []


def test_every_block_of_commands_is_run_or_says_why_it_is_not() -> None:
    left = {
        name: text
        for page in sorted(DOCS.rglob("*.md"))
        for name in [page.relative_to(DOCS).as_posix()]
        for language, text in blocks(page.read_text("utf-8"))
        if language == "bash" and name not in (*PAGES, *ELSEWHERE) and "curl " not in text and not NOT_RUN.match(text)
    }
    assert left == {}
