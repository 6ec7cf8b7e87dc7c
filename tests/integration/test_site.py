"""The documentation site is built, and every link in it leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import careedit
from careedit_deployments.config import ServeConfig

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """The addresses and the ids of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.words = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.ids |= {given["id"]} if "id" in given else set()
        for name in ("href", "src"):
            if name in given:
                (self.links if tag == "a" else self.loaded).append(given[name])

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    site = tmp_path_factory.mktemp("docs") / "site"
    built = subprocess.run(
        [sys.executable, "docs/site.py", str(site)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    # A server gives the page of an unknown address at any depth, so its links begin at the root.
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_address_in_the_site_leads_to_a_file_and_a_heading_of_it(pages: dict[Path, Page]) -> None:
    wrong = []
    for path, page in pages.items():
        for address in (*page.links, *page.loaded):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            heading = not parts.fragment or target not in pages or parts.fragment in pages[target].ids
            if not (target.is_file() and (heading or parts.fragment.startswith("__"))):
                wrong.append(f"{path.parent.name}: {address}")
    assert wrong == []


def test_the_site_loads_nothing_from_other_servers(pages: dict[Path, Page]) -> None:
    assert {address for page in pages.values() for address in page.loaded if urlsplit(address).netloc} == set()


def test_the_reference_has_every_public_name_and_every_setting(pages: dict[Path, Page]) -> None:
    ids = {name for page in pages.values() for name in page.ids}
    missing = [name for name in careedit.__all__ if not any(one.endswith(f".{name}") for one in ids)]
    missing += [
        name for name in ServeConfig.model_fields if f"careedit_deployments.config.ServeConfig.{name}" not in ids
    ]
    assert missing == []
