"""How far a judge agrees with the oracle, and the tiny judge's model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from careedit.editor import Editor
from careedit.errors import InputError
from careedit.finetune.card import Card, write_card
from careedit.finetune.curve import save_report
from careedit.finetune.loop import TrainConfig, TrainReport
from careedit.finetune.precision import training_device
from careedit.routing.transformer import calibration_error
from careedit.scoring import Score, ScoreRequest, VqaScorer
from careedit.scoring.pairwise import Pair, compare, order_consistency
from careedit.scoring.vlm import TransformersAsker, load_judge
from careedit.stats import area_under_roc
from careedit_tiny.models.judge import SIDE, save_judge
from careedit_tiny.recipes.judge.data import UNKNOWN, JudgePool, drawn_pool
from careedit_tiny.recipes.judge.edits import FIRST as FIRST_EDITED
from careedit_tiny.recipes.judge.edits import edited_pool
from careedit_tiny.recipes.judge.train import DEFAULT, EDITS, SAMPLES, train_judge
from careedit_tiny.world.operations import KINDS

ASPECTS = ("followed", "preserved", "clean")
CHUNK = 32
"""Number of edits scored at once."""


@dataclass(frozen=True)
class JudgeQuality:
    """Agreement with the oracle; shares and areas under the curve, 0 to 1."""

    count: int
    """Number of edits with a score."""
    accuracy: Mapping[str, float]
    """Per aspect, at P = 0.5; "overall" for followed and preserved together."""
    auc: float | None
    """Of the overall score, against right (followed and preserved); None where all are alike."""
    auc_by_kind: Mapping[str, float]
    """The same by kind of edit, where there are both right and wrong ones."""
    auc_by_sort: Mapping[str, float]
    """The same by sort of picture ("preview 3", "finished"), for an editor's own."""
    ece: float
    """Expected calibration error of P(followed) and P(preserved)."""
    order_consistency: float | None
    """Share of comparisons whose two orders name the same winner; None where none were made."""
    errors: int
    """Number of edits without a score."""


def measure(
    scorer: VqaScorer, pool: JudgePool, *, pairs: int = 0, done: Callable[[int], object] = lambda _: None
) -> JudgeQuality:
    """Score every edit of the pool and compare with its labels; and compare `pairs` pairs of edits in both orders.

    `done` is called with the number of edits just scored.
    """
    scores: list[Score] = []
    for first in range(0, len(pool), CHUNK):
        requests = [_request(pool, i) for i in range(first, min(first + CHUNK, len(pool)))]
        scores += scorer.score(requests)
        done(len(requests))
    kept = [i for i, score in enumerate(scores) if score.error is None]
    if not kept:
        raise InputError(f"The judge gave no score ({scores[0].error if scores else 'no edits'}); measure another.")
    labels = pool.labels[kept].numpy()
    stated = np.array([[getattr(scores[i], aspect) for aspect in ASPECTS] for i in kept])
    overall = np.array([scores[i].overall for i in kept])
    right = (labels[:, 0] == 1) & (labels[:, 1] == 1)
    accuracy = {
        aspect: float(((stated[known, a] > 0.5) == (labels[known, a] == 1)).mean())
        for a, aspect in enumerate(ASPECTS)
        if (known := labels[:, a] != UNKNOWN).any()
    }
    accuracy["overall"] = float((((stated[:, 0] > 0.5) & (stated[:, 1] > 0.5)) == right).mean())
    kinds, sorts = (np.array(words)[kept] for words in (pool.kinds, pool.sorts))
    own = [sort for sort in dict.fromkeys(pool.sorts) if sort == "finished" or sort.startswith("preview")]
    confidence = torch.from_numpy(stated[:, :2].reshape(-1))
    return JudgeQuality(
        count=len(kept),
        accuracy=accuracy,
        auc=_auc(overall, right),
        auc_by_kind={k: a for k in KINDS if (a := _auc(overall[kinds == k], right[kinds == k])) is not None},
        auc_by_sort={s: a for s in own if (a := _auc(overall[sorts == s], right[sorts == s])) is not None},
        ece=calibration_error(confidence, torch.from_numpy(labels[:, :2].reshape(-1) == 1)),
        order_consistency=_consistency(scorer, pool, pairs) if pairs else None,
        errors=len(scores) - len(kept),
    )


def _auc(scores: np.ndarray, right: np.ndarray) -> float | None:
    return area_under_roc(scores[~right], scores[right]) if right.any() and not right.all() else None


def _consistency(scorer: VqaScorer, pool: JudgePool, pairs: int) -> float | None:
    """Over pairs of edits of one source of which one is right and the other is not."""
    by_source: dict[int, tuple[list[int], list[int]]] = {}
    for i, (source, labels) in enumerate(zip(pool.rows[:, 0].tolist(), pool.labels.tolist(), strict=True)):
        by_source.setdefault(source, ([], []))[int(labels[0] == labels[1] == 1)].append(i)
    rng = Random("pairs")
    asked: list[Pair] = []
    for wrong, right in by_source.values():
        if wrong and right and len(asked) < pairs:
            two = [rng.choice(wrong), rng.choice(right)]
            rng.shuffle(two)
            one, other = (_request(pool, i) for i in two)
            asked.append(
                Pair(
                    source=one.source,
                    first=one.edited,
                    second=other.edited,
                    instruction=one.instruction,
                    references=one.references,
                )
            )
    return order_consistency(compare(scorer.asker, asked)) if asked else None


def _request(pool: JudgePool, index: int) -> ScoreRequest:
    source, edited, reference = pool.rows[index].tolist()
    return ScoreRequest(
        source=pool.image(source),
        edited=pool.image(edited),
        instruction=pool.instructions[index],
        references=() if reference < 0 else (pool.image(reference),),
    )


def make_judge(
    folder: Path,
    config: TrainConfig = DEFAULT,
    *,
    samples: int = SAMPLES,
    editor: Editor | None = None,
    edits: int = EDITS,
    count: int = 240,
    licence: str = "Apache-2.0",
) -> tuple[TrainReport, dict[str, JudgeQuality]]:
    """Train, write `folder/judge` with its card, and measure it, as it is loaded from there, on `count` test samples.

    With an editor, `edits` training samples are edited for it to learn from, and `count` test samples to measure it on.
    Returns the quality on "drawn" and, with an editor, on its "edits".
    """
    pools = folder / "judge-pool"
    learned = None if editor is None else edited_pool(pools, editor, "train", edits, first=FIRST_EDITED)
    asker, report = train_judge(folder, config, samples=samples, edited=learned)
    save_judge(asker.network, asker.processor, folder / "judge")
    save_report(report, folder / "judge.json")
    scorer = load_judge(folder / "judge", device=training_device(), dtype=torch.float32)
    tests = {"drawn": drawn_pool(pools, "test", count)}
    if editor is not None:
        tests["edits"] = edited_pool(pools, editor, "test", count)
    figures = {name: measure(scorer, pool, pairs=count) for name, pool in tests.items()}
    write_card(
        folder / "judge", card_of(figures, samples, edits if editor is not None else 0, asker), report, licence=licence
    )
    return report, figures


def card_of(figures: Mapping[str, JudgeQuality], samples: int, edits: int, asker: TransformersAsker) -> Card:
    """The judge's card, with separate figures for drawn edits and an editor's own."""
    named = {"drawn": "drawn edits", "edits": "the editor's own edits and previews"}
    quality: dict[str, str] = {}
    for name, figure in figures.items():
        what = f"{named[name]}, {figure.count} of the test split"
        quality[f"Accuracy against the oracle ({what})"] = ", ".join(f"{k} {v:.1%}" for k, v in figure.accuracy.items())
        quality[f"AUC of the overall score ({what})"] = _said(figure.auc)
        quality[f"AUC by kind ({what})"] = _listed(figure.auc_by_kind)
        if figure.auc_by_sort:
            quality[f"AUC by number of steps ({what})"] = _listed(figure.auc_by_sort)
        quality[f"Expected calibration error ({what})"] = f"{figure.ece:.3f}"
        quality[f"Comparisons whose two orders agree ({what})"] = _said(figure.order_consistency)
    own = f", and an editor's own results and previews of {edits:,} samples" if edits else ""
    return Card(
        title="careedit tiny judge",
        summary="A Qwen2.5-VL with a small configuration that answers yes or no about drawn edits of "
        f"{SIDE} x {SIDE} pixels: whether "
        "the instruction was followed, the rest preserved, the picture clean, and which of two edits is better.",
        recipe="careedit train judge" + (" --expert-set tiny" if edits else ""),
        data=f"Right, wrong, over-edited, unedited and spoilt pictures of {samples:,} samples of the tiny world's training "
        f"split{own}, labelled by the oracle.",
        quality=quality,
        limits=(
            "Knows drawn scenes of the tiny world, not photographs.",
            "Knows the questions of careedit.scoring only; any other text is answered at random.",
            f"Reads {asker.context} tokens: two to four pictures and an instruction of up to about 80 words.",
        ),
    )


def _said(value: float | None) -> Any:
    return "not measured" if value is None else f"{value:.3f}"


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items()) or "not measured"
