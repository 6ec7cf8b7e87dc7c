"""Editing samples of the tiny world and judging the edits: what the demo and the quality benchmark share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from careedit.editor import Editor, OnStep
from careedit.records import EditResult
from careedit.report.page import EditRow
from careedit_tiny.oracle.verdict import Verdict, judge
from careedit_tiny.world.samples import Sample, request_for


@dataclass(frozen=True, eq=False)
class JudgedEdit:
    """One sample, its edit, and the oracle's verdict on it."""

    sample: Sample
    """The drawn sample with its right result."""
    result: EditResult
    """The edited picture and its trace."""
    verdict: Verdict
    """The oracle's verdict on the edited picture."""


def edit_samples(
    editor: Editor,
    samples: Sequence[Sample],
    *,
    seed: int = 0,
    expert: str | Mapping[str, float] = "auto",
    on_step: OnStep | None = None,
) -> list[JudgedEdit]:
    """Edit every sample, one picture each, and judge it."""
    requests = [request_for(sample, seed=seed, expert=expert) for sample in samples]
    return judged(samples, editor.edit(requests, on_step=on_step))


def judged(samples: Sequence[Sample], results: Sequence[EditResult]) -> list[JudgedEdit]:
    """The oracle's verdict on one edit per sample."""
    return [
        JudgedEdit(sample, result, judge(sample, result.image)) for sample, result in zip(samples, results, strict=True)
    ]


def page_row(edit: JudgedEdit) -> EditRow:
    """The edit as the page shows it: before, what narrowed it, after, truth."""
    sample, decision = edit.sample, edit.result.trace.routing
    pictures = {"before": sample.source_image()}
    for name, picture in (("mask", sample.mask_image()), ("reference", sample.reference_image())):
        if picture is not None:
            pictures[name] = picture
    pictures |= {"after": edit.result.image, "truth": sample.target_image()}
    experts = ", ".join(f"{name} {weight:.2f}" for name, weight in decision.weights.items())
    return EditRow(
        kind=sample.kind,
        instruction=sample.instruction,
        pictures=pictures,
        right=edit.verdict.compliant,
        verdict=_in_words(edit.verdict),
        routing=f"Expert: {experts}. {decision.reason}",
    )


def score(edits: Sequence[JudgedEdit]) -> dict[str, Any]:
    """How many are right, in all and by kind: {"right", "count", "by_kind": {kind: {"right", "count"}}}."""
    by_kind: dict[str, dict[str, int]] = {}
    for edit in edits:
        row = by_kind.setdefault(edit.sample.kind, {"right": 0, "count": 0})
        row["right"] += edit.verdict.compliant
        row["count"] += 1
    return {"right": sum(edit.verdict.compliant for edit in edits), "count": len(edits), "by_kind": by_kind}


def _in_words(verdict: Verdict) -> str:
    if verdict.compliant:
        return "followed, and the rest is as it was"
    if verdict.followed:
        return "followed, but something else changed"
    return "not followed" if verdict.preserved else "not followed, and something else changed"
