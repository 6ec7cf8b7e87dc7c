"""From the body of an edit to the order that `Edits` takes: limits first, then pixels."""

from __future__ import annotations

import time

from anyio.to_thread import run_sync
from starlette.requests import Request

from careedit.records import EditRequest
from careedit_deployments.config import Limits
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.edit_service import check_cost, settings
from careedit_deployments.http.decoding import PictureFile
from careedit_deployments.http.form import EditInput
from careedit_deployments.http.pictures import check_together, decode_pictures, hold_memory, look_at
from careedit_deployments.http.services import Services, caller_of, request_id_of, services_of, trace_headers_of


def check_before_decoding(services: Services, found: EditInput) -> None:
    """Refuse what asks for too much, as far as that shows without pixels and routing. Raises `TooExpensiveError`."""
    fields = found.fields
    steps, early_filter = settings(services.config, fields.level, fields.steps, fields.early_filter)
    previews = 0 if early_filter is None else early_filter.preview_steps or 1
    defaults = [arm.steps for arm in services.backend.arms.values()]
    # An arm whose default is too short for the filter is refused once the arm is known.
    fewest = min((count for count in defaults if count > previews), default=min(defaults, default=1))
    check_cost(
        services.config.limits,
        n=fields.n,
        steps=steps or fewest,
        early_filter=early_filter,
        rows=1 if isinstance(fields.expert, str) else len(fields.expert),
    )


async def order_of(request: Request, found: EditInput, *, kept_source: bool = False) -> EditOrder:
    """The order, its pictures decoded; the deadline runs from here. Raises `FieldError` and other `InputError`s.

    `kept_source`: the first picture is one that this server kept.
    """
    started = time.monotonic()
    services, caller, fields = services_of(request), caller_of(request), found.fields
    steps, early_filter = settings(services.config, fields.level, fields.steps, fields.early_filter)
    limits = services.config.limits
    files = await run_sync(_look, found, limits, kept_source)
    check_together(files, limits)
    await hold_memory(request, files)
    pictures = await decode_pictures(request, files)
    mask = None if found.mask is None else pictures.pop()
    asked = EditRequest(
        image=pictures[0],
        instruction=fields.prompt,
        mask=mask,
        references=tuple(pictures[1:]),
        seed=fields.seed,
        steps=steps,
        guidance=fields.guidance,
        n=fields.n,
        expert=fields.expert,
        top_k=fields.top_k,
        refine_mask=fields.refine_mask,
        early_filter=early_filter,
    )
    return EditOrder(
        request=asked,
        model=fields.model,
        user=fields.safety_identifier or fields.user,
        partials=fields.partial_images,
        progress=fields.stream,
        deadline_s=max(0.0, limits.deadline_s - (time.monotonic() - started)),
        request_id=request_id_of(request),
        owner=caller.id,
        trace_headers=trace_headers_of(request),
    )


def _look(found: EditInput, limits: Limits, kept_source: bool) -> list[PictureFile]:
    """Every picture by its header, the mask last."""
    files = [
        look_at(data, f"image[{i}]" if i else "image", limits, "kept" if kept_source and not i else "image")
        for i, data in enumerate(found.pictures)
    ]
    if found.mask is not None:
        # OpenAI's polarity and no other: where alpha is 0, the source may change
        files.append(look_at(found.mask, "mask", limits, "mask"))
    return files
