"""A set that edits in this process: `careedit.editor.Editor`, one edit at a time on a fixed number of threads."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from careedit.records import EditRequest
from careedit_eval.editors.base import Edited, EditWork
from careedit_eval.suite import Arm

if TYPE_CHECKING:
    from careedit.editor import Editor
    from careedit.experts import ExpertSet

UNIFIED = ":unified"
"""The expert name that means a set's unified LoRA; no expert can have this name."""


class LocalEditor:
    """Loads its set at the first edit. torch and diffusers are not imported before."""

    concurrency = 1

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def edit(self, work: EditWork) -> Edited:
        """Make one edit without anything cached from other edits. Raises `CareEditError`."""
        import torch

        arm = self._arm
        judge = arm.judge if arm.early_filter is not None and arm.early_filter.strategy != "none" else None
        unified = arm.expert == UNIFIED
        torch.set_num_threads(arm.threads)  # of the process, where another set may have set its own
        editor = _open(arm.expert_set, unified, arm.device, arm.dtype, judge)
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


_OPEN: OrderedDict[tuple[str, bool, str | None, str | None, str | None], Editor] = OrderedDict()
_room = 1


def keep_open(count: int) -> None:
    """Set the number of editors that this process keeps, by default 1: two bases may not fit, but timing needs two."""
    global _room
    _room = count
    while len(_OPEN) > _room:
        _OPEN.popitem(last=False)


def _open(expert_set: str, unified: bool, device: str | None, dtype: str | None, judge: str | None) -> Editor:
    """An open editor. The experts of one set share it; a new set replaces the one that was not used for the longest time."""
    key = (expert_set, unified, device, dtype, judge)
    if key in _OPEN:
        _OPEN.move_to_end(key)
        return _OPEN[key]
    while len(_OPEN) >= _room:  # before the next one is loaded
        _OPEN.popitem(last=False)
    _OPEN[key] = _load(*key)
    return _OPEN[key]


def _load(expert_set: str, unified: bool, device: str | None, dtype: str | None, judge: str | None) -> Editor:
    import diffusers.utils.logging
    import torch
    import transformers.utils.logging

    from careedit.editor import Editor
    from careedit.scoring.vlm import load_judge

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
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
