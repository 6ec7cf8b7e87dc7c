"""The expert tutorial is run, block by block, in a folder of its own: everything as it stands there, but small."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from documents import NOT_RUN, blocks, run_block

PAGE = (Path(__file__).parents[2] / "docs/tutorial-expert.md").read_text(encoding="utf-8")
SMALLER = {
    "range(300)": "range(6)",
    "range(1000, 1020)": "range(1000, 1002)",
    "--steps 300": "--steps 2",
    "--seed 1": "--seed 1 --steps 2",
    "seed=1\n": "seed=1, steps=1\n",
}


def small_blocks() -> list[tuple[str, str]]:
    """Language and text of each block that is run, made small."""
    kept = [(language, text) for language, text in blocks(PAGE) if not NOT_RUN.match(text)]
    for large, small in SMALLER.items():
        assert any(large in text for _, text in kept), f"the tutorial no longer says {large!r}"
        kept = [(language, text.replace(large, small)) for language, text in kept]
    return kept


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the whole page, after every block has run."""
    folder = tmp_path_factory.mktemp("tutorial")
    for language, text in small_blocks():
        run_block(language, text, folder)
    return folder


@pytest.mark.timeout(1800)
def test_the_tutorial_ends_with_an_expert_in_a_set_that_edits(folder: Path) -> None:
    manifest = yaml.safe_load((folder / "my-set/experts/frame/expert.yaml").read_text(encoding="utf-8"))
    assert (manifest["name"], manifest["rank"], manifest["handles"]) == ("frame", 16, ["frame"])
    examples = (folder / "rows/examples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["expert"] for line in examples] == ["frame"] * 6
    for name in ("framed.png", "routed.png"):
        with Image.open(folder / name) as picture:
            assert picture.size == (64, 64)


def test_every_block_of_the_tutorial_says_its_language() -> None:
    assert PAGE.count("```") == 2 * len(blocks(PAGE))
