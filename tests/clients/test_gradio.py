"""The Gradio app of the docs, as its page has it, run and used by Gradio's own client."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from documents import blocks
from foreign import ROOT, program, running
from served import Served

pytestmark = pytest.mark.timeout(900)
USE = """
import json, sys
from gradio_client import Client, handle_file
app = Client(sys.argv[1], verbose=False, analytics_enabled=False)
print(app.predict(handle_file("source.png"), "remove the circle", 7, api_name="/edit"))
try:
    app.predict(handle_file("source.png"), "", 7, api_name="/edit")
except Exception as error:
    print(json.dumps(str(error)))
"""


def app_of_the_page() -> str:
    page = (ROOT / "docs/integrations.md").read_text("utf-8")
    (app,) = [text for language, text in blocks(page) if language == "python" and "gradio" in text]
    return app


@pytest.fixture
def app(served: Served, tmp_path: Path) -> Iterator[str]:
    text = app_of_the_page()
    assert "http://127.0.0.1:8000" in text
    (tmp_path / "app.py").write_text(text.replace("http://127.0.0.1:8000", served.url), "utf-8")
    place = {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": "PORT",
        "GRADIO_TEMP_DIR": str(tmp_path / "files"),
    }
    with running([program("gradio", "python"), "app.py"], tmp_path, "/", **place) as url:
        yield url


def test_the_app_has_about_ten_lines() -> None:
    assert len([line for line in app_of_the_page().splitlines() if line]) <= 10


def test_the_app_edits_and_shows_the_servers_sentence(app: str, picture: bytes, tmp_path: Path) -> None:
    (tmp_path / "source.png").write_bytes(picture)
    used = subprocess.run(
        [program("gradio", "python"), "-c", USE, app], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert used.returncode == 0, used.stderr
    path, refused = used.stdout.splitlines()
    with Image.open(path) as edited:
        assert edited.size == (64, 64) and edited.format == "PNG"
    assert "The field 'prompt' is missing; give it." in json.loads(refused)
