"""From the settings of an arm to its identity (in the driver), and to its editor (in a worker)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from careedit.errors import InputError
from careedit_eval.editors.base import Identity, SampleEditor, Truth
from careedit_eval.editors.http import HttpEditor, service_identity
from careedit_eval.editors.local import UNIFIED, LocalEditor, load_set
from careedit_eval.errors import TrackingError
from careedit_eval.suite import Arm, call_own

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resolved:
    """An arm with everything that its edits depend on, apart from sample and seed."""

    arm: Arm
    """The settings of the arm, with device and set filled in."""
    identity: Mapping[str, Any]
    """The identity as JSON data: equal identities make equal edits."""
    facts: Mapping[str, str]
    """The facts of the arm in a report: set, hash, base."""

    @property
    def name(self) -> str:
        """The name of the arm in tables."""
        return self.arm.name


def resolve_arm(arm: Arm, *, gpus: bool = False, registry: str | None = None) -> Resolved:
    """Find out what the arm is, without loading weights; `gpus` says whether workers have GPUs.

    Raises `ExpertError`, or `InputError` where a service does not answer.
    """
    if arm.kind == "identity":
        return Resolved(arm, {"kind": arm.kind}, {"kind": arm.kind})
    if arm.kind == "truth":  # version 1 resized the target to the source
        return Resolved(arm, {"kind": arm.kind, "version": 2}, {"kind": arm.kind})
    if arm.kind == "custom" and arm.editor is not None:
        identity = {"kind": arm.kind, "editor": arm.editor.model_dump(mode="json"), **arm.size_wish}
        return Resolved(arm, identity, {"kind": arm.kind, "editor": arm.editor.name})
    wishes = arm.model_dump(mode="json", include={"expert", "steps", "top_k", "early_filter"})
    if arm.early_filter is not None:
        wishes["judge"] = arm.judge
        if Path(arm.judge).is_dir():  # a folder keeps its name when its weights change
            from careedit.scoring.vlm import hash_model

            wishes["judge_sha256"] = hash_model(Path(arm.judge))
    if arm.kind == "http":
        service = service_identity(arm)
        wishes = wishes if arm.extensions else {}
        return Resolved(arm, {"kind": "http", **service, **wishes, **arm.size_wish}, {"kind": "http", **service})
    if arm.expert_set.startswith("models:/"):
        arm = arm.model_copy(update={"expert_set": _registered(arm, registry)})
    loaded = load_set(arm.expert_set, arm.expert)
    device = arm.device or ("cuda" if gpus else "cpu")
    dtype = arm.dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    arm = arm.model_copy(update={"device": device, "dtype": dtype, "steps": arm.steps or loaded.spec.defaults.steps})
    wishes |= {"steps": arm.steps, "device": device.partition(":")[0], "dtype": dtype}
    if device == "cpu":
        wishes["threads"] = arm.threads
    facts = {
        "kind": "set",
        "set": loaded.name,
        "version": loaded.version,
        "sha256": loaded.sha256,
        "expert": arm.expert,
    }
    facts |= {"base": loaded.spec.base.sha256 or loaded.spec.base.fingerprint, "location": _address(arm.expert_set)}
    return Resolved(arm, {"kind": "set", "set": loaded.sha256, **wishes, **arm.size_wish}, facts)


def _address(expert_set: str) -> str:
    """The absolute path of a local folder, for readers of the registry in another folder."""
    folder = Path(expert_set)
    return str(folder.resolve()) if folder.is_dir() else expert_set


def _registered(arm: Arm, registry: str | None) -> str:
    from careedit_eval.tracking.registry import set_location

    try:
        return set_location(arm.expert_set, registry)
    except (InputError, TrackingError) as error:
        if arm.otherwise is None:
            raise
        logger.warning("%s is edited by %s instead: %s", arm.name, arm.otherwise, error)
        return arm.otherwise


def make_editor(arm: Arm) -> SampleEditor:
    """The editor of a resolved arm. Heavy imports and weights wait for its first edit."""
    if arm.kind == "identity":
        return Identity()
    if arm.kind == "truth":
        return Truth()
    if arm.kind == "http":
        return HttpEditor(arm)
    if arm.kind == "custom" and arm.editor is not None:
        module, _, function = arm.editor.name.partition(":")
        made: SampleEditor = call_own(module, function, arm.editor.options)
        return made
    return LocalEditor(arm)


__all__ = ["UNIFIED", "Resolved", "make_editor", "resolve_arm"]
