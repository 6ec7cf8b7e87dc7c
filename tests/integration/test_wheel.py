"""What is published: the sdist is the repository; the wheel has all of the packages, the licence, and nothing else."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import careedit

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "careedit": "platform",
    "careedit_tiny": "platform",
    "careedit_deployments": "deployments",
    "careedit_eval": "eval",
}


def build(target: str, source: Path, folder: Path) -> Path:
    """Build the sdist or the wheel of `source` into `folder`, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("careedit-*")
    return built


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"careedit-{careedit.__version__}"


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as an image builds it: from the files that the Dockerfile copies. They come from the sdist."""
    folder = tmp_path_factory.mktemp("copied")
    stage = (unpacked / "docker/Dockerfile").read_text("utf-8").split(" AS build\n")[1].split("\nFROM ")[0]
    for line in re.findall(r"^COPY (.+)$", stage, flags=re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            place = folder / target / ("" if (unpacked / source).is_dir() else source)
            copy = shutil.copytree if (unpacked / source).is_dir() else shutil.copyfile
            copy(unpacked / source, place)
    return build("wheel", folder, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_sdist_is_the_repository(unpacked: Path) -> None:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert files - {"PKG-INFO"} == {name for name in listed if name and (ROOT / name).is_file()}


def test_the_wheel_holds_the_packages_and_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert tops == {*PACKAGES, f"careedit-{careedit.__version__}.dist-info"}


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


def test_the_wheel_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    place, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    pip = ("-m", "pip", "install", "--no-index", "--no-deps", "--no-compile", "--target", str(place), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(place)}

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=True).stdout

    run(sys.executable, *pip)
    assert run(sys.executable, "-c", "import careedit; print(careedit.__file__)").startswith(str(place))
    program = str(place / "bin" / "careedit")
    assert {"edit", "serve", "eval", "train", "doctor"} <= set(run(program, "--help").split())
    assert "is sound" in run(program, "experts", "verify")
