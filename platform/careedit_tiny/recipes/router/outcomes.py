"""Measured outcomes: which expert's edit the oracle prefers, kept as JSON lines that a rerun goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from careedit.editor import Editor
from careedit.encoders import OpenClipEncoder
from careedit.errors import CareEditError
from careedit.finetune.router.fit import OUTCOME_GROUP
from careedit.finetune.router.pool import RouterPool
from careedit.progress import counted
from careedit.tabular import lines_of
from careedit_tiny.oracle.verdict import Verdict
from careedit_tiny.recipes.router.pool import pool_of
from careedit_tiny.report.showcase import edit_samples
from careedit_tiny.world.operations import EXPERT_OF, KINDS
from careedit_tiny.world.samples import Sample, draw_sample

FIRST = 20_000_000
"""Index of the first training sample that outcomes are measured on."""
SEED = 11
"""Seed of the edits' noise."""
TEMPERATURE, PRIOR = 0.25, 0.25
"""Softness of the targets, and by how much the expert of the kind is preferred among equals."""
_CHUNK = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """How well every expert edited one training sample."""

    kind: str
    """Kind of the sample's edit."""
    index: int
    """Index of the sample in the train split."""
    scores: Mapping[str, float]
    """Per expert: 1 = compliant, 0.3 = followed but something else changed, 0 = not followed."""


def score(verdict: Verdict) -> float:
    """The score of an edit for the router: 1 if compliant, 0.3 if only followed, else 0."""
    return 1.0 if verdict.compliant else 0.3 if verdict.followed else 0.0


def measure_outcomes(editor: Editor, count: int, path: Path, *, steps: int | None = None) -> list[Outcome]:
    """`count` training samples, the kinds in turn, each edited by every expert of the set and judged.

    Each sample's line is appended to `path` as soon as it is known. Lines of another expert set or
    noise stay in the file and are not used. Raises `CareEditError` for a line that cannot be read, except an incomplete last one.
    """
    identity = {"version": 1, "set": editor.expert_set.sha256, "seed": SEED}
    known = {(line["kind"], line["index"]): line for line in _lines(path) if line.items() >= identity.items()}
    wanted = [(KINDS[i % len(KINDS)], FIRST + i // len(KINDS)) for i in range(count)]
    missing = [key for key in wanted if key not in known]
    chunks = [missing[i : i + _CHUNK] for i in range(0, len(missing), _CHUNK)]
    path.parent.mkdir(parents=True, exist_ok=True)
    for chunk in counted(chunks, "outcomes"):
        samples = [draw_sample(kind, index) for kind, index in chunk]
        scores: list[dict[str, float]] = [{} for _ in samples]
        for name in editor.expert_set.names:
            edits = edit_samples(editor, samples, seed=SEED, expert=name)
            for i, edit in enumerate(edits):
                scores[i][name] = score(edit.verdict)
        with path.open("a", encoding="utf-8") as stream:
            for (kind, index), row in zip(chunk, scores, strict=True):
                known[kind, index] = {**identity, "kind": kind, "index": index, "scores": row}
                stream.write(json.dumps(known[kind, index]) + "\n")
    return [Outcome(key[0], key[1], known[key]["scores"]) for key in wanted]


def soft_target(outcome: Outcome, label: str, experts: Sequence[str]) -> list[float]:
    """How probable each expert should be, given what they made of the sample, whose kind is for expert `label`.

    Where no expert did better than the kind's own, all of it stays there; else exp(score / `TEMPERATURE`), with `PRIOR`
    added to the kind's own, since one edit with one noise says little.
    """
    scores = [outcome.scores.get(name, 0.0) for name in experts]
    own = list(experts).index(label)
    if scores[own] >= max(scores):
        return [float(i == own) for i in range(len(experts))]
    raised = torch.tensor([value + PRIOR * (i == own) for i, value in enumerate(scores)])
    return [float(p) for p in (raised / TEMPERATURE).softmax(dim=0)]


def outcome_pool(outcomes: Sequence[Outcome], encoder: OpenClipEncoder, experts: Sequence[str]) -> RouterPool:
    """The measured samples as a pool of the group `OUTCOME_GROUP`, with soft targets."""
    samples: list[Sample] = [draw_sample(outcome.kind, outcome.index) for outcome in outcomes]
    kept = [(o, s) for o, s in zip(outcomes, samples, strict=True) if EXPERT_OF[s.operation] in experts]
    pool = pool_of([sample for _, sample in kept], encoder, experts)
    targets = torch.tensor([soft_target(o, EXPERT_OF[s.operation], experts) for o, s in kept])
    return replace(pool, targets=targets, groups=(OUTCOME_GROUP,) * len(pool))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    text = path.read_text("utf-8")
    if text and not text.endswith("\n"):  # a run was killed while it wrote: remove the incomplete line
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, "utf-8")
    rows = []
    for number, line in enumerate(lines_of(text), start=1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise CareEditError(f"Line {number} of {path} is not an outcome; delete that line or the file.") from error
    return rows
