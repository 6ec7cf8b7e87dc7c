"""The demo as a new user runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from conftest import Demo


def test_the_demo_writes_a_page_of_judged_edits(demo: Demo) -> None:
    result = json.loads(demo.printed.read_text("utf-8"))
    folder = demo.folder / "demo"
    page = (folder / "index.html").read_text("utf-8")
    assert page.count("<article>") == result["count"] == 13
    assert len(list((folder / "pictures").glob("*.png"))) == 13
    assert sum(row["right"] for row in result["by_kind"].values()) == result["right"]
    assert len(result["by_kind"]) == 12
    for caption in ("before", "after", "truth", "mask", "reference"):
        assert f">{caption}</figure>" in page


def test_the_demo_serves_on_with_its_pages(demo: Demo) -> None:
    url = json.loads(demo.printed.read_text("utf-8"))["url"]
    assert httpx2.get(f"{url}/readyz").status_code == 200
    assert "<html" in httpx2.get(f"{url}/").text
    edits = {arm["arm"]: arm["edits"] for arm in httpx2.get(f"{url}/v1/arms").json()["data"]}
    assert sum(edits.values()) >= 13
