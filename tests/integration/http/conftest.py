from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from PIL import Image

from careedit.files import png_bytes
from careedit.scoring import VqaScorer
from careedit_deployments.config import ServeConfig
from scripted import Scripted
from served import Served, serve

SETTINGS = {
    "arms": {"tiny": {"expert_set": "tiny"}},
    "scorer": {"backend": "transformers", "model": "scripted"},
    "quality": {"low": {"steps": 2}},
    "expert": {"max_ongoing_requests": 4, "max_queued_requests": 2},
}


@pytest.fixture(scope="session")
def backend():
    """The shipped tiny set in this process, with a judge that likes bright pictures."""
    from local_backend import LocalBackend  # here: it imports torch

    def brightness(question) -> float:
        return question.images[-1].convert("L").resize((1, 1)).getpixel((0, 0)) / 255

    backend = LocalBackend.load(ServeConfig(**SETTINGS), scorer=VqaScorer(Scripted(brightness)))
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def served(backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("served"), backend, **SETTINGS) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, pointed here."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="sk-none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def scene(draw_picture) -> bytes:
    """The file of a drawn picture."""
    return png_bytes(draw_picture((64, 64), 3))


@pytest.fixture(scope="session")
def left_mask() -> bytes:
    """A mask that frees the left half."""
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    return png_bytes(mask)
