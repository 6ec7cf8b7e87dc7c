from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from fake_backend import FakeBackend
from served import Served, serve


@pytest.fixture(scope="session")
def painter() -> FakeBackend:
    return FakeBackend()


@pytest.fixture(scope="session")
def served(painter: FakeBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = {"body_bytes": 200_000, "pixels": 100_000, "images": 4, "steps": 50, "evaluations": 120}
    quality = {"low": {"steps": 2}, "high": {"steps": 8}}
    with serve(tmp_path_factory.mktemp("served"), painter, limits=limits, quality=quality) as server:
        yield server


@pytest.fixture
def client(served: Served, painter: FakeBackend) -> Iterator[httpx2.Client]:
    """A client of a server whose backend is as it was."""
    painter.fails, painter.fails_after, painter.pause, painter.judge = None, 0, 0.0, True
    painter.calls.clear()
    with httpx2.Client(base_url=served.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="session")
def opened():
    """Decodes the picture of an answer or an event."""

    def get(b64_json: str) -> Image.Image:
        picture = Image.open(io.BytesIO(base64.b64decode(b64_json)))
        picture.load()
        return picture

    return get


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Result]:
    """Runs a command on a database of its own."""
    config = tmp_path / "serve.yaml"
    database = f"sqlite+aiosqlite:///{tmp_path}/state.db"
    config.write_text(yaml.safe_dump({"arms": {"tiny": {"expert_set": "tiny"}}, "state": {"database": database}}))
    return lambda group, *args: CliRunner().invoke(group.app, [*args, "--config", str(config)])
