"""From the body of an edit to the order that `Edits` takes: limits first, then pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from anyio.to_thread import run_sync
from PIL import Image
from starlette.requests import Request

from careedit.errors import ImageError, InputError
from careedit.images import decode_image, decode_mask
from careedit.records import EditRequest
from careedit_deployments.edit_service import check_cost, settings
from careedit_deployments.http.errors import FieldError
from careedit_deployments.http.form import EditInput
from careedit_deployments.http.limits import picture_limits
from careedit_deployments.http.services import Services, caller_of, request_id_of, services_of, trace_headers_of
from careedit_deployments.service import EditOrder


def check_before_decoding(services: Services, found: EditInput) -> None:
    """Refuse what asks for too much, as far as that shows without pixels and routing. Raises `TooExpensiveError`."""
    fields = found.fields
    steps, early_filter = settings(services.config, fields.level, fields.steps, fields.early_filter)
    least = min((arm.steps for arm in services.backend.arms.values()), default=1)
    check_cost(
        services.config.limits,
        n=fields.n,
        steps=steps or least,
        early_filter=early_filter,
        rows=1 if isinstance(fields.expert, str) else len(fields.expert),
    )


async def order_of(request: Request, found: EditInput) -> EditOrder:
    """The order, its pictures decoded in a thread. Raises `FieldError` and other `InputError`s."""
    services, caller, fields = services_of(request), caller_of(request), found.fields
    steps, early_filter = settings(services.config, fields.level, fields.steps, fields.early_filter)
    limits = picture_limits(services.config.limits)

    def decoded() -> EditRequest:
        source, *references = (
            decode(partial(decode_image, data, limits=limits), "image" if i == 0 else f"image[{i}]")
            for i, data in enumerate(found.pictures)
        )
        mask = (
            None
            if found.mask is None
            else decode(partial(decode_mask, found.mask, white_is_edit=False, limits=limits), "mask")
        )
        return EditRequest(
            image=source,
            instruction=fields.prompt,
            mask=mask,  # OpenAI's polarity and no other: where alpha is 0, the source may change
            references=tuple(references),
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
        request=await run_sync(decoded),
        model=fields.model,
        user=fields.safety_identifier or fields.user,
        partials=fields.partial_images,
        progress=fields.stream,
        request_id=request_id_of(request),
        owner=caller.id,
        trace_headers=trace_headers_of(request),
    )


def decode(read: Callable[[], Image.Image], param: str) -> Image.Image:
    """What `read` decodes; an error names the field. Raises `FieldError`."""
    try:
        return read()
    except InputError as error:
        code = "invalid_image" if isinstance(error, ImageError) and param != "mask" else "invalid_mask"
        raise FieldError(str(error), param, code) from None
