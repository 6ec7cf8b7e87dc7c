"""Warming up compiled blocks: every graph that an edit of a set can need is made before the first edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from careedit.editing.engine import Engine
from careedit.editing.job import EditJob

INSTRUCTIONS = ("leave everything as it is", "leave everything exactly as it is, in every detail of the picture")
"""Two instructions of unlike lengths: families that do not pad texts mask them in a batch, which is another graph."""


def warm_up(
    engine: Engine,
    job: EditJob,
    panels: Sequence[tuple[int, int]],
    *,
    batch: int,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Step edits like `job` on panels of every size (width, height), with 1, 2 and `batch` rows.

    `done` is called after each size with the numbers of finished sizes and of all. Edits of other experts, steps, masks,
    references or numbers of rows need no other graph. Raises `ExpertError` if the blocks cannot be compiled.
    """
    guidance = (
        1.0 if engine.base.guidance == "branches" else job.guidance
    )  # one row per edit; a branch is a row like others
    steps = 2 if engine.base.first_step_apart else 1
    for number, size in enumerate(panels):
        source = Image.new("RGB", size, (128, 128, 128))
        plain = replace(job, source=source, mask=None, references=(), guidance=guidance, steps=2)
        plain = replace(plain, step_cache=None, text_tokens=None)
        short, long = (engine.prepare(replace(plain, instruction=text)) for text in INSTRUCTIONS)
        unlike = short.encoded.text_tokens != long.encoded.text_tokens
        for rows in sorted({1, min(2, batch), batch}):
            for other in (short, long) if unlike and rows > 1 else (short,):
                states = [replace(short) for _ in range(rows - 1)] + [replace(other)]
                for _ in range(steps):
                    engine.step(states)
        done(number + 1, len(panels))
