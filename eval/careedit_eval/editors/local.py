"""A set that edits in this process: `careedit.editor.Editor`, one edit at a time on a fixed number of threads."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from careedit.records import EditRequest
from careedit_eval.editors.base import Edited, EditWork
from careedit_eval.suite import Arm

if TYPE_CHECKING:
    from careedit.editor import Editor
    from careedit.experts import ExpertSet

UNIFIED = ":unified"
"""The expert name that stands for a set's unified LoRA; no expert can be called so."""


class LocalEditor:
    """Loads its set at the first edit; torch and diffusers are not imported before."""

    concurrency = 1

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def edit(self, work: EditWork) -> Edited:
        """Edit alone, with nothing remembered of other edits. Raises `CareEditError`."""
        arm = self._arm
        judge = arm.judge if arm.early_filter is not None and arm.early_filter.strategy != "none" else None
        unified = arm.expert == UNIFIED
        editor = _open(arm.expert_set, unified, arm.device, arm.dtype, arm.threads, judge)
        request = EditRequest(
            image=work.source,
            instruction=work.instruction,
            mask=work.mask,
            references=work.references,
            seed=work.seed,
            steps=arm.steps,
            expert=editor.expert_set.names[0] if unified else arm.expert,
            top_k=arm.top_k,
            early_filter=arm.early_filter,
        )
        editor.engine.cache.clear()  # seconds are those of a first edit, and memory stays flat
        started = time.perf_counter()
        result = editor.edit(request)
        seconds = time.perf_counter() - started
        trace = result.trace
        looked = 0 if trace.filter is None else sum(len(look.alive) for look in trace.filter.looks)
        return Edited(result.image, seconds, trace.nfe, looked, trace.model_dump_json())


@lru_cache(maxsize=1)
def _open(
    expert_set: str, unified: bool, device: str | None, dtype: str | None, threads: int, judge: str | None
) -> Editor:
    """An editor; the experts of one set share it, and another set takes its place: two bases may not fit."""
    import diffusers.utils.logging
    import torch
    import transformers.utils.logging

    from careedit.editor import Editor
    from careedit.scoring.vlm import load_judge

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
    torch.set_num_threads(threads)
    loaded = load_set(expert_set, UNIFIED if unified else "auto")
    return Editor(
        loaded,
        device=device,
        dtype=None if dtype is None else getattr(torch, dtype),
        scorer=None if judge is None else load_judge(judge, device=device),
    )


def load_set(name: str, expert: str) -> ExpertSet:
    """An expert set, read and checked; for `:unified` the same base with that LoRA alone. Raises `ExpertError`."""
    from careedit.experts import baseline_set, load_expert_set

    loaded = load_expert_set(name)
    if expert != UNIFIED:
        if expert not in ("auto", "base"):
            loaded.manifest(expert)
        return loaded
    return baseline_set(loaded)
