"""The language of docs, docstrings, help and errors: the terms of the glossary, and none of the private words of before."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("platform", "deployments", "eval")
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
# The notebook keeps its entries as they were written.
PAGES.remove(ROOT / "docs/notebook.md")

# What each word is replaced by is in the second column; docs/glossary.md has the nouns.
BANNED = {
    r"told|tells of|is told": "given, reported, shown, says",
    r"in hand": "in flight",
    r"anew": "again, new",
    r"dealt": "assigned",
    r"beside": "next to, with, in addition to",
    r"somebody|nobody|whoever": "a user, no user, the caller",
    r"is no [a-z]+\b(?<!is no longer)(?<!is no more)": "is not a ...",
    r"there is none|there are none": "does not exist, no ... exists",
    r"which there (?:is|are) not": "which does not exist",
    r"cut out": "disabled, removed",
    r"stands? for": "represents, means",
    r"laid|lays": "put, placed",
    r"upon": "on",
    r"therein|thereof|thereby|herein|hereby": "in it, of it",
    r"to the letter": "exactly",
    r"whereabouts": "path, place",
    r"of old|of late|at last": "old, recently, finally",
    r"in vain": "without effect",
    r"out of turn": "early",
    r"one another's": "each other's",
    r"bears?|borne": "has, carries",
    r"forthwith|henceforth|hitherto": "now, from now on, until now",
    r"ought": "should",
    r"whatsoever|wheresoever": "any",
    r"lest": "so that ... not",
    r"it is they who|it is he who": "they",
}
PATTERN = re.compile("|".join(rf"(?:\b(?:{words})\b)" for words in BANNED), re.IGNORECASE)


def texts_of(path: Path) -> list[tuple[int, str]]:
    """Every string and comment of a module that is prose, and its names, with their line."""
    source = path.read_text(encoding="utf-8")
    found = [(number, line.split("#", 1)[1]) for number, line in enumerate(source.splitlines(), 1) if "# " in line]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            found.append((node.lineno, node.value))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append((node.lineno, node.name.replace("_", " ")))
        elif isinstance(node, ast.arg):
            found.append((node.lineno, node.arg.replace("_", " ")))
    return found


def hits_of(path: Path) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    return [f"{name}:{line}: {match.group()}" for line, text in texts_of(path) if (match := PATTERN.search(text))]


def test_modules_use_plain_words() -> None:
    modules = [path for root in PACKAGES for path in sorted((ROOT / root).rglob("*.py"))]
    assert [hit for path in modules for hit in hits_of(path)] == []


def test_pages_use_plain_words() -> None:
    hits = [
        f"{page.name}:{number}: {match.group()}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if (match := PATTERN.search(line))
    ]
    assert hits == []


def test_the_glossary_has_at_most_sixty_terms() -> None:
    rows = re.findall(
        r"^\| (?!term\b)([a-z][^|]+?) \|", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert 30 <= len(rows) <= 60
    assert len(set(rows)) == len(rows)
