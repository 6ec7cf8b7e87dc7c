"""What edits the scenes: the base model and the experts of a set, and the unified LoRA on the same base model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from careedit.editor import Editor
from careedit.errors import ExpertError
from careedit.experts import (
    UNIFIED_FOLDER,
    ExpertManifest,
    ExpertSet,
    baseline_set,
    has_baseline,
    load_expert_set,
)
from careedit.records import BASE
from careedit.routing import Router, build_router
from careedit_eval.editors.local import UNIFIED as UNIFIED_ARM
from careedit_eval.stats.routing import INFEASIBLE_BELOW

UNIFIED = "unified"
"""The name of the unified LoRA's row."""
NOT_LEARNED = ("rules", "fixed")
"""The kinds of routers that are not trained."""


@dataclass(frozen=True, eq=False)
class Subject:
    """An expert set to be measured. Experts are merged into the base model, so the edits of one batch share an expert."""

    editor: Editor
    """The editor of the set."""
    unified: Editor | None
    """The same base model with the unified LoRA as its only expert; None if the set has no unified LoRA."""
    steps: int
    """The number of denoising steps of every edit."""
    rules: Router
    """A rules router for the experts of the set, to compare with."""
    missing: Mapping[str, str]
    """Rows that cannot be measured, each with the reason as a sentence."""

    @property
    def experts(self) -> tuple[str, ...]:
        """The names of the routed experts."""
        return self.editor.expert_set.names

    @property
    def learned(self) -> bool:
        """Whether the router of the set was trained."""
        return self.editor.router.name not in NOT_LEARNED

    @property
    def feasible_threshold(self) -> float:
        """Below this, the router of the set takes an instruction for infeasible; `INFEASIBLE_BELOW` if it has no threshold."""
        config = getattr(self.editor.router, "config", None)
        return float(getattr(config, "feasible_threshold", INFEASIBLE_BELOW))

    def competences(self) -> dict[str, str]:
        """The competence of each expert; that of the base model is "base"."""
        return {name: one.competence for name, one in self.editor.expert_set.manifests.items()} | {BASE: BASE}

    def made_with(self, arm: str | Mapping[str, float]) -> dict[str, Any]:
        """What the edits of an arm depend on, apart from scene and noise, for the keys of the cache. Routing is not included."""
        editor = self.editor
        weights: Mapping[str, float] = {arm: 1.0} if isinstance(arm, str) else arm
        manifests: dict[str, ExpertManifest] = dict(editor.expert_set.manifests)
        if self.unified is not None:
            manifests[UNIFIED_ARM] = next(iter(self.unified.expert_set.manifests.values()))
        spec = editor.expert_set.spec
        return {
            "base": spec.base.sha256 or editor.expert_set.sha256,
            "fingerprint": spec.base.fingerprint,
            "panel": spec.panel.model_dump(mode="json"),
            "guidance": spec.defaults.guidance,
            "steps": self.steps,
            "start": spec.defaults.start,
            "noise_scale": spec.defaults.noise_scale,
            "device": editor.engine.base.device.type,
            "dtype": str(editor.engine.base.dtype),
            "weights": {
                name if name == BASE else f"{manifests[name].sha256}:{manifests[name].alpha:g}": round(weight, 6)
                for name, weight in weights.items()
            },
        }


def load_subject(
    expert_set: str = "tiny",
    *,
    unified: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Subject:
    """Load a set, and the unified LoRA in its `UNIFIED_FOLDER` or in the folder `unified`.

    A set without a unified LoRA, or without a learned router, is measured without them. The folder `unified`, if it is
    given, must hold one. Raises `ExpertError`.
    """
    loaded = load_expert_set(expert_set)
    if not loaded.names:
        raise ExpertError(
            f"The expert set {loaded.name!r} has no experts, so there is nothing to route; add some first."
        )
    missing: dict[str, str] = {}
    baseline: ExpertSet | None = None
    try:
        baseline = baseline_set(loaded, unified)
    except ExpertError as error:
        if unified is not None or has_baseline(loaded):
            raise
        missing[UNIFIED] = f"The set has no unified LoRA in {UNIFIED_FOLDER}: {error}"
    editor = Editor(loaded, device=device, dtype=dtype, application="merged")
    other = None
    if baseline is not None:
        _ = baseline.load(baseline.names[0])  # report a broken file before the first edit, not after an hour
        other = Editor(baseline, device=device, dtype=dtype, application="merged")
    if editor.router.name in NOT_LEARNED:
        reason = f"The set's router is {editor.router.name!r}, which was not trained; use a set with a learned router."
        missing |= {"learned_top1": reason, "learned_top2": reason, "router": reason}
    rules = build_router("rules", experts=tuple(loaded.manifests.values()))
    return Subject(editor, other, loaded.spec.defaults.steps if steps is None else steps, rules, missing)
