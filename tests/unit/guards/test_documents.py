"""The documents say what is there: the architecture's list is the tree, the changelog's top is the version."""

import re
import tomllib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

import careedit
from careedit.files import read_yaml

ROOT = Path(__file__).parents[3]
PACKAGES = ("platform/careedit", "platform/careedit_tiny", "deployments/careedit_deployments", "eval/careedit_eval")


def tree() -> set[str]:
    """The three packages, and in each its sub-packages ("name/") and its modules ("name.py")."""
    found = {f"{package}/" for package in PACKAGES}
    for package in PACKAGES:
        for path in (ROOT / package).iterdir():
            if path.is_dir() and any(path.glob("*.py")):
                found.add(f"{package}/{path.name}/")
            elif path.suffix == ".py" and path.name != "__init__.py":
                found.add(f"{package}/{path.name}")
    return found


def test_the_architecture_page_lists_exactly_the_packages_and_modules_there_are() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.split("<!-- tree: begin -->")[1].split("<!-- tree: end -->")[0]
    listed = re.findall(r"^\s*- `([^`]+)`", section, flags=re.MULTILINE)
    assert len(set(listed)) == len(listed), "a path is listed twice"
    assert set(listed) == tree()


def test_the_architecture_page_is_one_page() -> None:
    words = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split()
    assert len(words) < 1200


def test_the_newest_version_of_the_changelog_is_the_packages_and_the_citations() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(\d+\.\d+\.\d+(?:rc\d+)?)\]", changelog, flags=re.MULTILINE)[0]
    cited = read_yaml(ROOT / "CITATION.cff", "citation")["version"]
    assert newest == careedit.__version__ == cited


def test_every_image_of_the_manifests_has_this_version() -> None:
    manifests = [path.read_text(encoding="utf-8") for path in (ROOT / "k8s").rglob("*.yaml")]
    tags = {tag for text in manifests for tag in re.findall(r"careedit:(\S+)-cuda|newTag: (\S+)-cuda", text)}
    assert {one or other for one, other in tags} == {careedit.__version__}
    chart = (ROOT / "k8s/helm/careedit/Chart.yaml").read_text(encoding="utf-8")
    assert f"\nappVersion: {careedit.__version__}\n" in chart


@pytest.mark.parametrize(
    "name", ["ab", "bench", "demo", "edit", "eval", "experts", "k8s", "keys", "plan", "scenes", "serve", "train"]
)
def test_every_promised_sub_command_has_its_module(name: str) -> None:
    (entry,) = entry_points(group="careedit.commands", name=name)
    assert find_spec(entry.module) is not None


def test_every_constraint_is_an_exact_pin() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.+]+", pin)] == []
    assert pins == sorted(pins)
    assert {"torch==2.14.1", "torchvision==0.29.1", "ray==2.60.0", "mlflow==3.17.2"} <= set(pins)


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    names = {re.split(r"[\[<>=!~]", line)[0].strip().lower().replace("_", "-") for line in wanted} - {"careedit"}
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    assert names - pins == set()


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.findall(r"^make .*$", script, flags=re.MULTILINE) == ["make check", "make test"]
    assert "entry: make check" in (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
