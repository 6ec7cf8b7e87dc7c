"""An editor's own results and half-denoised previews as examples for the judge: what it will be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from careedit.editing import EditJob
from careedit.editor import MAX_BATCH, Editor
from careedit.images import composite, grow, refine_mask
from careedit_tiny.models.judge import SIDE
from careedit_tiny.oracle.verdict import judge
from careedit_tiny.recipes.judge.data import SHARD, JudgePool, Shown, pool_of, sharded
from careedit_tiny.world.operations import KINDS
from careedit_tiny.world.samples import Sample, Split, draw_sample, request_for

FIRST = 31_000_000
"""Index of the first training sample that is edited."""
LOOKS = (0.25, 0.5)
"""When previews are taken, as shares of the steps."""
TAKES = 2
"""Edits of each sample, of different noise: telling those apart is the early filter's work."""
OTHER_EXPERT = 0.3
"""Share of edits done by an expert drawn at random: wrong in the ways that editors are wrong."""
CLOSE = 0.03
"""Root mean square distance from its own outcome, of a full scale of 1, up to which a preview counts as clean."""


def edited_pool(
    folder: Path, editor: Editor, split: Split, samples: int, *, first: int = 0, steps: int | None = None
) -> JudgePool:
    """`samples` samples of a split, the kinds in turn, each edited `TAKES` times and shown at `LOOKS` and at the end.

    A preview's labels for followed and preserved are the oracle's on its *outcome*: a judge of previews must tell where
    an edit is going, and none of the previews of a quarter of the steps is right as it stands. Whether a finished edit is
    clean is known only where the oracle accepts it. Kept in `folder`, shard by shard.
    """

    def make(start: int) -> JudgePool:
        count = min(SHARD, samples - start)
        drawn = [
            draw_sample(KINDS[i % len(KINDS)], first + i // len(KINDS), split) for i in range(start, start + count)
        ]
        size = MAX_BATCH // TAKES
        chunks = [drawn[i : i + size] for i in range(0, count, size)]
        return pool_of([shown for chunk in chunks for shown in edited_views(editor, chunk, steps=steps)])

    key = f"2 {editor.expert_set.sha256} {split} {first} {steps}"
    return sharded(folder, f"judge-edits-{split}", samples, key, make, workers=0)


def edited_views(
    editor: Editor, samples: Sequence[Sample], *, steps: int | None = None
) -> list[tuple[Sample, tuple[Shown, ...]]]:
    """Edit the samples as one batch; per sample and take its previews at `LOOKS`, and its finished edit."""
    engine = editor.engine
    takes = [(i, _job(editor, sample, take, steps)) for i, sample in enumerate(samples) for take in range(TAKES)]
    states = [engine.prepare(job) for _, job in takes]
    total = takes[0][1].steps
    looks = {max(1, round(share * total)) for share in LOOKS} - {total}
    seen: list[tuple[int, list[Image.Image]]] = []
    for step in range(1, total + 1):
        engine.step(states)
        if step in looks:
            seen.append((step, engine.preview_many(states)))
    views: list[list[Shown]] = [[] for _ in samples]
    for (i, job), panel, *panels in zip(
        takes, engine.finish_many(states), *(previews for _, previews in seen), strict=True
    ):
        final = _outside_kept(job, panel)
        verdict = judge(samples[i], final)
        for (step, _), other in zip(seen, panels, strict=True):
            preview = _outside_kept(job, other)
            views[i].append(Shown(f"preview {step}", preview, verdict, _distance(preview, final) <= CLOSE, final))
        views[i].append(Shown("finished", final, verdict, True if verdict.compliant else None))
    return [(sample, tuple(shown)) for sample, shown in zip(samples, views, strict=True)]


def _job(editor: Editor, sample: Sample, take: int, steps: int | None) -> EditJob:
    """What `Editor.edit` would give its engine for this sample, now and then with another expert."""
    rng = Random(f"judge:{sample.id}:{take}")
    other = rng.random() < OTHER_EXPERT
    expert = rng.choice(editor.expert_set.names) if other else "auto"
    request = request_for(sample, seed=rng.getrandbits(31), expert=expert, size=SIDE)
    mask = request.mask
    if mask is not None and request.refine_mask:
        mask = grow(refine_mask(request.image, mask), 1)
    return EditJob(
        source=request.image,
        instruction=request.instruction,
        seed=request.seed or 0,
        steps=steps or editor.expert_set.spec.defaults.steps,
        mask=mask,
        references=request.references,
        start=editor.expert_set.spec.defaults.start,
        noise_scale=editor.expert_set.spec.defaults.noise_scale,
        weights=editor.route(request).weights,
    )


def _outside_kept(job: EditJob, panel: Image.Image) -> Image.Image:
    return panel if job.mask is None else composite(job.source, panel, job.mask)


def _distance(one: Image.Image, other: Image.Image) -> float:
    gap = (np.asarray(one, np.float32) - np.asarray(other, np.float32)) / 255
    return float(np.sqrt(np.square(gap).mean()))
