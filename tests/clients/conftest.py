"""A server of the tiny set in this process, for foreign programs in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from careedit.files import png_bytes
from careedit_deployments.config import ServeConfig
from served import Served, serve

SETTINGS = {"arms": {"tiny": {"expert_set": "tiny"}}, "limits": {"requests_per_minute": 12}}


@pytest.fixture(scope="session")
def picture(draw_picture) -> bytes:
    """The file of a drawn picture."""
    return png_bytes(draw_picture((64, 64), 3))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """careedit itself; it takes twelve requests a minute."""
    from local_backend import LocalBackend  # here: it imports torch

    backend = LocalBackend.load(ServeConfig(**SETTINGS))
    with serve(tmp_path_factory.mktemp("served"), backend, **SETTINGS) as server:
        yield server
    backend.close()
