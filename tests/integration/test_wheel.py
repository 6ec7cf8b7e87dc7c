"""The wheel holds the three packages, what marks them as typed, and the licence; and nothing else."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"careedit": "platform", "careedit_deployments": "deployments", "careedit_eval": "eval"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})
    (wheel,) = folder.glob("careedit-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_the_three_packages_and_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


@pytest.mark.parametrize(("package", "root"), PACKAGES.items())
def test_the_wheel_holds_every_module_and_the_type_marker(names: set[str], package: str, root: str) -> None:
    modules = {str(path.relative_to(ROOT / root)) for path in (ROOT / root / package).rglob("*.py")}
    assert modules | {f"{package}/py.typed"} <= names


def test_the_wheel_holds_the_licence(names: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_is_small_enough_to_carry_about(names: set[str]) -> None:
    assert not [name for name in names if name.endswith((".pyc", ".pt", ".bin", ".pkl"))]
