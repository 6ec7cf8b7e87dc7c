"""The files of the pages: their colours have enough contrast, their modules parse, and the server serves only them."""

import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import httpx2
import pytest

from careedit_deployments.http import pages
from fake_backend import FakeBackend
from served import serve

FOLDER = Path(pages.__file__).with_name("studio")
MODULES = sorted(FOLDER.glob("*.js"))


def schemes() -> dict[str, dict[str, str]]:
    """The colours of the light and of the dark scheme, by name."""
    light, dark = re.findall(r":root \{(.*?)\}", (FOLDER / "page.css").read_text("utf-8"), re.DOTALL)
    return {
        name: dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text)) for name, text in (("light", light), ("dark", dark))
    }


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_of_two_colours_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the well-known grey that just fails


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_edges_of_controls_have_the_contrast_of_wcag_aa(scheme: str) -> None:
    colours = schemes()[scheme]
    texts = [*product(("ink", "soft", "good", "bad", "accent"), ("paper", "card")), ("on", "accent")]
    edges = [*product(("edge", "accent"), ("paper", "card"))]
    weak = [pair for pair in texts if contrast(*(colours[name] for name in pair)) < 4.5]
    weak += [pair for pair in edges if contrast(*(colours[name] for name in pair)) < 3]
    assert weak == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_imports_only_what_others_export_and_uses_each_import(module: Path) -> None:
    text = module.read_text("utf-8")
    imports = re.findall(r'^import (?:\{ (.*?) \} from )?"\./(\S+)";$', text, re.MULTILINE)
    assert len(imports) == text.count("\nimport ") + text.startswith("import "), "an import is not of this folder"
    body = re.sub(r"^import .*$", "", text, flags=re.MULTILINE)
    for names, source in imports:
        exported = re.findall(
            r"^export (?:async )?(?:function\*?|const|class) (\S+?)\b",
            (FOLDER / source).read_text("utf-8"),
            re.MULTILINE,
        )
        for name in names.split(", ") if names else []:
            assert name in exported or name == "$"
            assert re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", body), f"{name} is not used"
    assert len(text.splitlines()) <= 250


@pytest.mark.skipif(shutil.which("node") is None, reason="Debian's nodejs is not installed")
def test_every_module_parses() -> None:
    for module in MODULES:
        checked = subprocess.run(
            ["node", "--input-type=module", "--check"],
            input=module.read_text("utf-8"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, f"{module.name}: {checked.stderr}"


def test_the_files_are_served_without_a_key_and_asked_for_again_each_time(tmp_path: Path) -> None:
    with (
        serve(tmp_path, FakeBackend(), auth={"required": True}) as served,
        httpx2.Client(base_url=served.url) as client,
    ):
        first = client.get("/studio/main.js")
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
        assert first.headers["content-type"].startswith("text/javascript")
        again = client.get("/studio/main.js", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get("/studio/pages.py").status_code in (401, 404)
        assert client.get("/studio/..%2fpages.py").status_code in (401, 404)
