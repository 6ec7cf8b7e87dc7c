"""What the tests of `careedit train expert` share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw


@pytest.fixture
def one_thread():
    """The sums of two processes are equal to the last bit only on as many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def framed(tmp_path, draw_picture):
    """`framed(6, masks=2)`: a folder of rows that put a frame on a picture, the first ones with a mask."""

    def make(count: int, *, masks: int = 0, instruction: str = "add the red circle") -> Path:
        folder = tmp_path / "rows"
        folder.mkdir()
        with (folder / "metadata.jsonl").open("w") as lines:
            for number in range(count):
                row = {"source": draw_picture(seed=number)}
                row["target"] = row["source"].copy()
                ImageDraw.Draw(row["target"]).rectangle((0, 0, 63, 63), outline="red", width=5)
                if number < masks:
                    row["mask"] = Image.new("L", (64, 64), 255)
                    row["mask"].paste(0, (8, 8, 56, 56))
                names = {kind: f"{number}-{kind}.png" for kind in row}
                for kind, picture in row.items():
                    picture.save(folder / names[kind])
                lines.write(json.dumps(names | {"instruction": instruction.format("x " * number)}) + "\n")
        return folder

    return make
