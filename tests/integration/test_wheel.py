"""The wheel holds all of the three packages (data files and type markers too), the licence, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "careedit": "platform",
    "careedit_tiny": "platform",
    "careedit_deployments": "deployments",
    "careedit_eval": "eval",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("careedit-*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_the_packages_and_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


@pytest.mark.parametrize(("package", "root"), PACKAGES.items())
def test_the_wheel_holds_every_file_of_a_package(names: set[str], package: str, root: str) -> None:
    files = {path for path in (ROOT / root / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert ROOT / root / package / "py.typed" in files
    assert {path.relative_to(ROOT / root).as_posix() for path in files} - names == set()


def test_the_wheel_holds_the_licence(names: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_is_small_and_holds_nothing_that_unpickles(wheel: Path, names: set[str]) -> None:
    assert wheel.stat().st_size < 60e6
    assert [name for name in names if name.endswith((".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".pyc"))] == []
