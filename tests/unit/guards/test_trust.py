"""What docs/trust and SECURITY.md point to exists: tests, settings, entries of the audit log, metrics, files, figures."""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from careedit.record import Record
from careedit.records import EditTrace
from careedit_deployments.config import ServeConfig
from documents import without_blocks

ROOT = Path(__file__).parents[3]
PAGES = [*sorted((ROOT / "docs/trust").glob("*.md")), ROOT / "SECURITY.md"]
DOTTED = re.compile(r"[a-z][a-z_]*(?:\.(?:[a-z][a-z_]*|\*))+")
NO_SETTINGS = ("careedit.", "careedit_deployments.", "package.", "metadata.")
"""Beginnings of dotted names that are fields of an answer, Python names or hosts."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def spans(page: Path) -> list[str]:
    """The inline code of a page, without its code blocks."""
    return re.findall(r"`([^`\n]+)`", without_blocks(text_of(page)))


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


def records_in(annotation: Any) -> Iterator[type[Record]]:
    """The records in an annotation: of a field, an option, or the values of a mapping or tuple."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
    for part in typing.get_args(annotation):
        yield from records_in(part)


def is_field(path: str) -> bool:
    """Whether a dotted path is a field of the configuration, or of a trace; `*` is any name of a mapping."""
    records: set[type[Record]] = {ServeConfig, EditTrace}
    *parents, last = [part for part in path.split(".") if part != "*"]
    for part in parents:
        fields = [record.model_fields[part].annotation for record in records if part in record.model_fields]
        records = {found for annotation in fields for found in records_in(annotation)}
    return any(last in record.model_fields for record in records)


@cache
def sources() -> str:
    return "\n".join(path.read_text("utf-8") for path in (ROOT / "deployments").rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = [span for span in spans(page) if span.startswith("tests/") and ".py" in span]
    missing = []
    for span in named:
        file, _, name = span.partition("::")
        path = ROOT / file
        if not path.is_file() or (name and name not in functions_of(path)):
            missing.append(span)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_is_a_field_of_the_configuration(page: Path) -> None:
    named = {match[1] for span in spans(page) if (match := re.fullmatch(rf"({DOTTED.pattern})(?:: .+)?", span))}
    strange = [
        name
        for name in sorted(named)
        if not name.startswith(NO_SETTINGS)
        and not name.endswith((".py", ".md", ".yaml", ".yml", ".json", ".txt", ".toml"))
        and not is_field(name)
        and f'"{name}"' not in sources()  # an entry of the audit log
    ]
    assert strange == []


def test_a_setting_that_does_not_exist_is_found() -> None:
    assert is_field("state.job_ttl_s")
    assert is_field("arms.*.guard.min_judge_score")
    assert is_field("policy.checks.on_failure")
    assert not is_field("state.job_ttl")
    assert not is_field("arms.guard.no_such_field")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_and_make_target_that_a_page_names_exists(page: Path) -> None:
    metrics = {span for span in spans(page) if re.fullmatch(r"careedit_(?!deployments|eval|tiny)[a-z_]+", span)}
    assert {name for name in metrics if f'"{name.removeprefix("careedit_")}"' not in sources()} == set()
    targets = {span.split()[1] for span in spans(page) if span.startswith("make ")}
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    there |= set(re.findall(r"^([a-z-]+):", (ROOT / "docker/images.mk").read_text("utf-8"), flags=re.MULTILINE))
    assert targets - there == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text_of(page))
    assert [link for link in links if not (page.parent / link).exists()] == []
    files = [
        span for span in spans(page) if re.fullmatch(r"(?:deployments|platform|eval|k8s|docker|docs)/[\w./-]+", span)
    ]
    assert [file for file in files if not (ROOT / file).exists()] == []


def rows(page: Path) -> Iterator[Mapping[str, str]]:
    """The rows of the page's tables, by their column."""
    columns: list[str] = []
    for line in map(str.strip, text_of(page).splitlines()):
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in re.sub(r"<!--.*?-->", "", line)[1:-1].split("|")]
        if not columns:
            columns = [cell.lower().strip() for cell in cells]
        elif not set(line) <= set("| -:"):
            yield dict(zip(columns, cells, strict=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_row_of_a_table_of_measures_names_what_shows_it(page: Path) -> None:
    bare = [row for row in rows(page) if "shown by" in row and not re.search(r"`|\]\(", row["shown by"])]
    assert bare == []


def test_figures_are_those_of_the_page_that_they_come_from() -> None:
    page = ROOT / "docs/trust/ai-act.md"
    measured = [row for row in rows(page) if "measured" in row]
    assert len(measured) > 5
    for row in measured:
        link = re.search(r"\]\(([^)#\s]+)", row["source"])
        assert link is not None, row
        text = " ".join((page.parent / link[1]).read_text("utf-8").split())
        for figure in re.findall(r"\d+(?:\.\d+)?(?: %)?", row["measured"]):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", text), (figure, row["source"])
