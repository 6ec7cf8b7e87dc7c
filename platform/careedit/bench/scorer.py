"""`careedit bench scorer`: edits that a judge scores per second, one at a time and 16 at once, in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

from careedit.bench.timing import Comparison, check_counts, compare
from careedit.editing.base_model import use_threads
from careedit.errors import InputError
from careedit.samples import draw_samples
from careedit.scoring import ScoreRequest, VqaScorer
from careedit.scoring.vlm import TransformersAsker

VERSION = 1
"""Version of the document that `bench_scorer` returns."""
SMALL, LARGE = 1, 16
"""Numbers of pairs (source and edit) that are scored at once."""


def pairs_of(count: int, side: int) -> list[ScoreRequest]:
    """`count` example edits, each with its right result as the edited image."""
    return [
        ScoreRequest(
            source=sample.request.image,
            edited=sample.target,
            instruction=sample.request.instruction,
            references=sample.request.references,
        )
        for sample in draw_samples(count, side=side)
    ]


def bench_scorer(
    scorer: VqaScorer,
    *,
    pairs: int = LARGE,
    repeats: int = 5,
    side: int = 64,
    threads: int | None = None,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Score the same pairs one by one and `LARGE` at once, `repeats` times each in turn; returns the speeds.

    Keys: `pairs_per_second` ({"1", "16"}, medians), `speedup` (their ratio, the median over repeats), `spread`,
    `cpu_speedup`, `environment`. `done` is called after every timed run. Raises `InputError` for a judge of another
    backend, or fewer than 1 pair or repeat.
    """
    asker = scorer.asker
    if not isinstance(asker, TransformersAsker):
        raise InputError(
            f"The judge's backend is {asker.backend}, whose speed depends on its endpoint; measure a local model."
        )
    check_counts(pairs=pairs, repeats=repeats)
    requests = pairs_of(pairs, side)

    def score(size: int) -> Callable[[], object]:
        return lambda: [scorer.score(requests[i : i + size]) for i in range(0, pairs, size)]

    before, asker.batch = asker.batch, 3 * LARGE  # three questions about a pair: a batch of pairs is one forward pass
    try:
        with use_threads(threads):
            result = compare(
                f"{SMALL} pair at a time",
                score(SMALL),
                f"{LARGE} pairs at once",
                score(LARGE),
                repeats=repeats,
                device=asker.network.device,
                done=done,
            )
            used = torch.get_num_threads()
    finally:
        asker.batch = before
    return _document(scorer, asker, result, pairs, repeats, side, used)


def _document(
    scorer: VqaScorer, asker: TransformersAsker, result: Comparison, pairs: int, repeats: int, side: int, threads: int
) -> dict[str, Any]:
    laps = {SMALL: result.laps, LARGE: result.over_laps}
    return {
        "version": VERSION,
        "pairs_per_second": {str(size): pairs / seconds for size, seconds in zip(laps, result.seconds, strict=True)},
        "speedup": result.ratio,
        "spread": result.spread._asdict(),
        "cpu_speedup": result.cpu_ratio,
        "seconds": {str(size): [lap.seconds for lap in taken] for size, taken in laps.items()},
        "environment": {
            **scorer.identity.model_dump(),
            "pairs": pairs,
            "repeats": repeats,
            "side": side,
            "parameters": sum(p.numel() for p in asker.network.parameters()),
            "threads": threads,
            "device": asker.network.device.type,
            "dtype": str(asker.network.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
