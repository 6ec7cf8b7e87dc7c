"""The source roots stay plain folders: a package called `platform` would replace the standard library's."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import careedit
from careedit_deployments.config import ServeConfig

ROOT = Path(__file__).parents[3]
PACKAGES = ("platform/careedit", "platform/careedit_tiny", "deployments/careedit_deployments", "eval/careedit_eval")
MAX_LINES = 400


@pytest.mark.parametrize("root", ["platform", "deployments", "eval", "k8s"])
def test_a_root_is_no_package(root: str) -> None:
    assert not (ROOT / root / "__init__.py").exists()


def test_no_folder_under_tests_is_a_package_or_named_platform() -> None:
    folders = [path for path in (ROOT / "tests").rglob("*") if path.is_dir()]
    assert folders
    assert [path for path in (ROOT / "tests").rglob("__init__.py")] == []
    assert [folder for folder in folders if folder.name == "platform"] == []


def test_the_standard_librarys_platform_imports_from_the_repository_root() -> None:
    script = "import platform; print(platform.system())"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == sys.platform.capitalize()


def test_the_linter_reports_a_stray_package_in_the_root() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "platform/__init__.py", "-"]
    answer = subprocess.run(command, cwd=ROOT, input='"""X."""\n', capture_output=True, text=True, check=False)
    assert "A005" in answer.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()
    assert (ROOT / package / "py.typed").is_file()


def test_importing_careedit_is_light() -> None:
    heavy = ["ray", "mlflow", "fastapi", "torch", "transformers", "diffusers"]
    script = f"import careedit, json, sys; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == []


def test_every_public_name_exists() -> None:
    names = careedit.__all__
    assert names and len(set(names)) == len(names), "a name is in __all__ more than once"
    listed = dir(careedit)
    assert [name for name in names if getattr(careedit, name, None) is None or name not in listed] == []


def test_no_file_is_longer_than_the_limit() -> None:
    files = [path for root in (*PACKAGES, "tests") for path in (ROOT / root).rglob("*.py")]
    assert files
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_what_a_server_writes_by_default_is_ignored() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    state = ServeConfig.from_yaml(ROOT / "deployments/config/tiny.yaml").state
    for place in (state.blobs, state.database.removeprefix("sqlite+aiosqlite:///"), "demo/"):
        assert {f"{place.partition('/')[0]}/", f"/{place.partition('/')[0]}/"} & set(ignored), place


def test_no_file_name_occurs_more_than_five_times() -> None:
    names = Counter(
        path.name for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"
    )
    assert {name: count for name, count in names.items() if count > 5} == {}
