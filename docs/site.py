"""Builds the documentation site: `python docs/site.py [OUT]`, by default into the folder `site`.

The pages are those of `docs/`, and the files of the root that people look for. What the code says of itself is added: the
reference of the Python API (from docstrings), the HTTP API's schema, and the packaged configurations. A broken link, a page
outside the navigation or an unknown name ends the build.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from careedit_deployments.http.app import api_document
from careedit_deployments.http.pages import SWAGGER, SWAGGER_FILES

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = ROOT / "deployments" / "config"
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Files of the root that are pages of the site."""


def stage(folder: Path) -> None:
    """Write everything that the site is made of."""
    pages = folder / "docs"
    shutil.copytree(ROOT / "docs", pages, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copyfile(ROOT / "zensical.toml", folder / "zensical.toml")
    for name, page in ROOT_PAGES.items():
        shutil.copyfile(ROOT / name, pages / page)
    configurations = ["# Example configurations\n"]
    for path in sorted(CONFIGURATIONS.glob("*.yaml")):
        configurations.append(f"## {path.name}\n\n```yaml\n{path.read_text('utf-8')}```\n")
    (pages / "reference" / "configurations.md").write_text("\n".join(configurations), "utf-8")
    (pages / "reference" / "openapi.json").write_text(json.dumps(api_document()), "utf-8")
    swagger = pages / "reference" / "swagger"
    for name in SWAGGER_FILES:
        shutil.copyfile(SWAGGER / name, swagger / name)
    for path in pages.rglob("*.md"):
        path.write_text(
            _site_links(path.read_text("utf-8"), "../" * len(path.relative_to(pages).parents[:-1])), "utf-8"
        )


def _site_links(text: str, up: str) -> str:
    """Links to files of the repository, as links to the pages that show them here."""
    text = re.sub(
        r"\]\((?:\.\./)+deployments/config/([\w-]+)\.yaml\)", rf"]({up}reference/configurations.md#\1yaml)", text
    )
    text = re.sub(r"\]\((?:\.\./)+README\.md(#[\w-]+)?\)", rf"]({up}index.md)", text)
    for name, page in ROOT_PAGES.items():
        text = re.sub(rf"\]\((?:\.\./)+{re.escape(name)}\)", f"]({up}{page})", text)
    return re.sub(r"\]\(docs/", f"]({up}", text)


def unlisted(folder: Path) -> set[str]:
    """Pages that the navigation lacks, and entries of it without a page."""
    listed = set(re.findall(r'"([\w/-]+\.md)"', (folder / "zensical.toml").read_text("utf-8")))
    pages = {path.relative_to(folder / "docs").as_posix() for path in (folder / "docs").rglob("*.md")}
    return listed ^ pages


def build(out: Path) -> int:
    """Build the site into the folder `out`, which is replaced. Returns the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage(folder)
        if different := unlisted(folder):
            sys.exit(f"The navigation of zensical.toml and the pages differ: {', '.join(sorted(different))}.")
        command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
        code = subprocess.run(command, cwd=folder, check=False).returncode
        if code == 0:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(folder / "site", out)
    return code


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1] if len(sys.argv) > 1 else "site")))
