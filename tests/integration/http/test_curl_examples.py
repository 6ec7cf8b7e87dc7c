"""Every example of the pages that calls `curl` is run, against a server on a port of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from documents import blocks, run_block
from served import Served

ROOT = Path(__file__).parents[3]
SERVED = "http://127.0.0.1:8000"
STRICT = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
"""An answer of 400 or more is then an exit code, and the block ends."""
EXAMPLES = [
    (page.relative_to(ROOT), text)
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for language, text in blocks(page.read_text("utf-8"))
    if language == "bash" and "curl " in text and "not run by the tests" not in text
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scene: bytes, left_mask: bytes) -> Path:
    """What the examples send."""
    made = tmp_path_factory.mktemp("curl")
    (made / "scene.png").write_bytes(scene)
    (made / "mask.png").write_bytes(left_mask)
    return made


@pytest.mark.parametrize(("page", "text"), EXAMPLES, ids=lambda value: str(value).partition("\n")[0])
def test_an_example_is_answered(page: Path, text: str, folder: Path, served: Served) -> None:
    assert SERVED in text, "an example calls the server where the pages say that it is"
    run_block("bash", STRICT + text.replace(SERVED, served.url), folder)


def test_the_examples_got_what_the_page_says(folder: Path, served: Served) -> None:
    """Runs after them, with the same folder."""
    answer, job, turn = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("answer", "job", "turn"))
    assert len(answer["data"]) == len(turn["data"]) == 1
    assert (job["status"], len(job["result"]["data"])) == ("completed", 1)
    assert json.loads((folder / "session.json").read_text("utf-8"))["head"] is None
    assert (folder / "stream.txt").read_text("utf-8").count("event: image_edit.partial_image") == 2
    assert (folder / "events.txt").read_text("utf-8").rstrip().count("event: job.completed") == 1
