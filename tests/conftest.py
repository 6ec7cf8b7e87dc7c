"""What every test shares: its layer's marker, and no network."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import: a test that would download fails at once instead of waiting

LAYERS = ("unit", "integration", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the layer whose folder it is in."""
    root = Path(__file__).parent
    for item in items:
        for layer in LAYERS:
            if item.path.is_relative_to(root / layer):
                item.add_marker(layer)


@pytest.fixture(scope="session")
def tiny_pipeline():
    """The tiny architecture as a `FluxFillPipeline`, untrained; shared, so leave its weights as they are."""
    from careedit.tiny.family import build_pipeline  # here, so that tests without a model import no torch

    pipe = build_pipeline(["remove the red circle", "add a small blue star", "make it look like a pencil sketch"])
    pipe.set_progress_bar_config(disable=True)
    return pipe
