"""The editor of a command: loaded without the log lines of libraries, run with a progress bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging

from careedit.cli.output import progress
from careedit.editing.base_model import COMPILED
from careedit.editor import Editor, load_editor
from careedit.errors import InputError
from careedit.experts import ExpertSet, load_expert_set
from careedit.images import decode_image, decode_mask
from careedit.records import BASE, EditRequest, EditResult, EditTrace
from careedit.scoring import Scorer
from careedit.selection.plan import make_plan


def run_edit(request: EditRequest, expert_set: str, options: Mapping[str, Any], *, judge: str = "tiny") -> EditResult:
    """Runs one request with the set `expert_set`; `options` go to `Editor`, `judge` to `load_scorer`."""
    quieten()
    with progress("Loading"):
        loaded = load_expert_set(expert_set)
        check_experts(loaded, request.expert)  # before gigabytes of base are read
        scorer = None
        if request.early_filter is not None:
            plan = make_plan(request.early_filter, request.steps or loaded.spec.defaults.steps)
            scorer = load_scorer(judge, device=options.get("device")) if plan.checkpoints else None
        editor = Editor(loaded, **options, scorer=scorer)
    with progress("Editing", 1) as bar:
        shown = 0.0

        def on_step(done: int, total: int) -> None:
            nonlocal shown
            bar.advance(done / total - shown)
            shown = done / total

        return editor.edit(request, on_step=on_step)


def check_experts(expert_set: ExpertSet, expert: str | Mapping[str, float]) -> None:
    """Raises `UnknownExpertError` if the set does not have an expert that a request names."""
    for name in [expert] if isinstance(expert, str) else expert:
        if name not in ("auto", BASE):
            expert_set.manifest(name)


def run_replays(traces: Sequence[EditTrace], pictures: Mapping[str, Any], expert_set: str) -> EditResult:
    """Replays several traces of one source; `pictures` are paths: image, mask, references."""
    image = decode_image(pictures["image"])
    mask = None if pictures["mask"] is None else decode_mask(pictures["mask"])
    references = [decode_image(path) for path in pictures["references"]]
    quieten()
    made: list[EditResult] = []
    editors: dict[tuple[str | bool | None, ...], Editor] = {}
    with progress("Replaying", len(traces)) as bar:
        for trace in traces:
            compiled = trace.runtime.endswith(COMPILED)
            kind = (trace.device, trace.dtype, trace.application, trace.quantisation, compiled)
            if kind not in editors:
                dtype = getattr(torch, trace.dtype, None)
                if not isinstance(dtype, torch.dtype):
                    raise InputError(f"The trace names the number format {trace.dtype!r}, which torch does not have.")
                editors[kind] = load_editor(
                    expert_set,
                    device=trace.device,
                    dtype=dtype,
                    application=trace.application,
                    quantisation=trace.quantisation,
                    compiled=compiled,
                )
            made.append(editors[kind].replay(trace, image=image, mask=mask, references=references))
            bar.advance()
    return EditResult(images=tuple(one.image for one in made), traces=tuple(one.trace for one in made))


def load_scorer(name: str, *, device: str | None = None) -> Scorer:
    """The judge called `name`: "tiny", a folder, or a hub id."""
    from careedit.scoring.vlm import load_judge

    return load_judge(name, device=device)


def quieten() -> None:
    """Turn off the libraries' log lines, because an error on stderr must be one sentence."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
