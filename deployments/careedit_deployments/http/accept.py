"""An edit on its way in and out: limits are checked first, then images are decoded, then the edit starts and is answered.

Edits, turns of sessions and jobs all go this way: `check_before_decoding`, then `order_of`, then `EditService.start`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from anyio.to_thread import run_sync
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from careedit.errors import ImageError
from careedit.records import EditRequest, EditTrace
from careedit_deployments.edits.backend import EditOrder, ImageDone
from careedit_deployments.edits.codecs import Codecs, Origin, PictureFile, Reading
from careedit_deployments.edits.edit_service import Running, check_cost, settings
from careedit_deployments.edits.output import Output
from careedit_deployments.edits.sessions import Base, Turn
from careedit_deployments.edits.tenancy import keeps_source
from careedit_deployments.errors import UnavailableError
from careedit_deployments.http.form import EditInput
from careedit_deployments.http.output import images_response, output_of, store_file
from careedit_deployments.http.pictures import check_together, decode_pictures, hold_memory, inspect
from careedit_deployments.http.schema import EditReport, ImageData
from careedit_deployments.http.services import (
    caller_of,
    limits_of,
    request_id_of,
    services_of,
    sessions_of,
    trace_headers_of,
    user_of,
)
from careedit_deployments.listening import Limits
from careedit_deployments.policy.contract import PolicyMark


@dataclass(frozen=True, eq=False)
class AcceptedEdit:
    """An edit or turn that was started, and how its results look."""

    form: EditInput
    """What the client sent; its source is the first of `pictures`, also in a session."""
    running: Running | Turn
    """The edit, which begins when its events are iterated."""
    output: Output
    """Size, format, quality and notes of the results."""
    codecs: Codecs
    """The encoders and decoders of the server."""
    owner: str
    """Id of the tenant that asked."""
    user: str | None
    """The end user, as the server stores them."""
    ingredient: bytes | None = None
    """The source with its Content Credentials, if results keep them."""

    async def encode(self, picture: Image.Image, output: Output | None = None) -> bytes:
        """The file of a result, preview or candidate; default: in the format and size of the results.

        Raises `DeadlineError` once the edit's deadline has passed.
        """
        origin = Origin(self.running.credit, self.ingredient)
        return await self.codecs.encode(
            self.owner, picture, output or self.output, origin=origin, ends=self.running.ends
        )

    async def encode_base64(self, picture: Image.Image, output: Output | None = None) -> str:
        """`encode`, as text for JSON."""
        return await _base64(await self.encode(picture, output))

    @property
    def report(self) -> dict[str, Any]:
        """The fields of `EditReport` that every response and event has."""
        running, session = self.running, self.form.fields.session
        return {
            "id": running.id,
            "arm": running.arm,
            **({"session": session} if session else {}),
            **({"turn": running.turn_id} if isinstance(running, Turn) else {}),
            "purposes": running.purposes,
            **({"notes": self.output.notes} if self.output.notes else {}),
        }

    @property
    def headers(self) -> dict[str, str]:
        """careedit's headers of the response."""
        return {"x-careedit-arm": self.running.arm, "x-careedit-edit": self.running.id}

    @property
    def references(self) -> int:
        """Number of references that were sent."""
        return len(self.form.pictures) - 1


async def accept(
    request: Request, form: EditInput, *, turn: str | None = None, notes: Sequence[str] = ()
) -> AcceptedEdit:
    """Start the edit that a client sent: in a session if `form` names one, there from the turn `turn` or from the last one.

    `notes` are added to those of the response. Raises what `order_of`, `EditService.start` and `Sessions.start` raise.
    """
    services, session = services_of(request), form.fields.session
    check_before_decoding(request, form)
    if session is None:
        order = await order_of(request, form)
        ingredient = await ingredient_from(request, form.pictures[0])
        output = output_of(form.fields, form.notes, order.request.image.size, services.config)
        running: Running | Turn = await services.edits.start(order.model_copy(update={"result_size": output.size}))
        user = order.user
    else:
        sessions = sessions_of(request)
        base = await sessions.base(session, caller_of(request).id, turn)
        form = replace(form, pictures=(base.data, *form.pictures))
        order = await order_of(request, form, source=base.reading)
        output = output_of(form.fields, form.notes, order.request.image.size, services.config)
        ingredient, full = await _ingredient_of_turn(request, base)
        notes = (*notes, *full)
        ordered = order.model_copy(update={"result_size": output.size})
        running = await sessions.start(base, ordered, ingredient=ingredient)
        user = order.user or base.session.user
    if notes:
        output = output.model_copy(update={"notes": (*output.notes, *notes)})
    return AcceptedEdit(form, running, output, services.codecs, order.owner, user, ingredient)


async def finish(request: Request, accepted: AcceptedEdit) -> Response:
    """Make every image and return the response as JSON. The images become files while the end of the edit is stored.

    Raises `UnavailableError` if an image is missing at the end, and `DeadlineError`.
    """
    files, traces = dict[int, asyncio.Task[bytes]](), dict[int, EditTrace]()
    marks: dict[PolicyMark, None] = {}  # ordered; each image repeats those of the input
    fields, output = accepted.form.fields, accepted.output
    try:
        async with aclosing(accepted.running.events()) as events:  # type: ignore[type-var]  # a generator, whose end stops it
            async for event in events:
                if isinstance(event, ImageDone):
                    traces[event.image] = event.trace
                    marks |= dict.fromkeys(event.marks)
                    files[event.image] = asyncio.create_task(accepted.encode(event.picture), name="careedit-answer")
        if len(files) != fields.n:
            raise UnavailableError("The edit ended before all of its images were made; try again.")
        with services_of(request).tracing.span("answer", trace_headers_of(request)):
            response = images_response(
                [await _image_data(request, accepted, await files[i]) for i in range(fields.n)],
                EditReport(**accepted.report, traces=[traces[i] for i in range(fields.n)], policy=tuple(marks)),
                output,
                prompt=fields.prompt,
                references=accepted.references,
                user=fields.end_user,
            )
            content = await run_sync(response.model_dump_json)
    finally:
        for task in files.values():
            task.cancel()
        await asyncio.gather(*files.values(), return_exceptions=True)
    return Response(content, media_type=JSONResponse.media_type, headers=accepted.headers)


async def _image_data(request: Request, accepted: AcceptedEdit, file: bytes) -> ImageData:
    """A result in the requested form: base64, or an address at which it is stored."""
    if accepted.form.fields.response_format == "b64_json":
        return ImageData(b64_json=await _base64(file))
    return ImageData(url=await store_file(request, file, accepted.output.format, user=accepted.user))


async def _base64(data: bytes) -> str:
    return (await run_sync(base64.b64encode, data)).decode("ascii")


async def ingredient_from(request: Request, source: bytes) -> bytes | None:
    """The source's file as an ingredient of its results, if they are to keep its Content Credentials. Raises `ImageError`."""
    caller = caller_of(request)
    if not keeps_source(services_of(request).config, caller.policy, caller.id):
        return None
    from careedit.provenance.signing import ingredient_of  # needs an optional package

    return await run_sync(ingredient_of, source)


async def _ingredient_of_turn(request: Request, base: Base) -> tuple[bytes | None, tuple[str, ...]]:
    """As `ingredient_from`; the source is the file that was sent. The chain of a session that grows too long starts again, and
    a note of the response says so."""
    kept = base.session.ingredient if base.parent is None else None
    try:
        made = await ingredient_from(request, base.data)
        return (made if made is None or kept is None else await services_of(request).blobs.get(kept)), ()
    except ImageError:
        if base.parent is None:
            raise
        return None, ("The chain of Content Credentials is at its maximum size; it starts again with this turn.",)


def check_before_decoding(request: Request, form: EditInput) -> None:
    """Raise `TooExpensiveError` for a request whose fields alone ask for more than the limits allow."""
    services, fields = services_of(request), form.fields
    steps, early_filter = settings(services.config, fields.level, fields.steps, fields.early_filter)
    previews = 0 if early_filter is None else early_filter.preview_steps or 1
    defaults = [arm.steps for arm in services.backend.arms.values()]
    # An arm whose default is too short for the filter is refused once the arm is known.
    fewest = min((count for count in defaults if count > previews), default=min(defaults, default=1))
    check_cost(
        limits_of(request),
        n=fields.n,
        steps=steps or fewest,
        early_filter=early_filter,
        rows=1 if isinstance(fields.expert, str) else len(fields.expert),
    )


async def order_of(request: Request, form: EditInput, *, source: Reading = "image") -> EditOrder:
    """The order of a request, its images decoded; the deadline starts here. Raises `FieldError` and other `InputError`s.

    `source` says how the first image is read, which this server may have stored.
    """
    started = time.monotonic()
    services, fields = services_of(request), form.fields
    steps, early_filter = settings(services.config, fields.level, fields.steps, fields.early_filter)
    limits = limits_of(request)
    with services.tracing.span("decode", trace_headers_of(request)):
        files = await run_sync(_inspect_all, form, limits, source)
        check_together(files, limits)
        await hold_memory(request, files)
        pictures = await decode_pictures(request, files)
    mask = None if form.mask is None else pictures.pop()
    preset = services.config.quality.get(fields.level)
    edit = EditRequest(
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
        step_cache=None if preset is None or fields.steps is not None else preset.step_cache,
    )
    return EditOrder(
        request=edit,
        model=fields.model,
        user=await user_of(request, fields.end_user),
        partials=fields.partial_images,
        candidates=fields.candidate_images,
        progress=fields.stream,
        moderation=fields.moderation or "auto",
        files_sha256=await run_sync(_hashes, form) if services.edits.policy.asks("input") else (),
        deadline_s=max(0.0, limits.deadline_s - (time.monotonic() - started)),
        request_id=request_id_of(request),
        owner=caller_of(request).id,
        trace_headers=trace_headers_of(request),
    )


def _hashes(form: EditInput) -> tuple[str | None, ...]:
    """sha256 of the files that were sent; a session's source is stored without the metadata with which it was sent."""
    hashes = [hashlib.sha256(data).hexdigest() for data in form.pictures]
    return tuple(hashes) if form.fields.session is None else (None, *hashes[1:])


def _inspect_all(form: EditInput, limits: Limits, source: Reading) -> list[PictureFile]:
    """Every image by its header, the mask last."""
    files = [
        inspect(data, f"image[{i}]" if i else "image", limits, "image" if i else source)
        for i, data in enumerate(form.pictures)
    ]
    if form.mask is not None:
        # Only OpenAI's polarity: where alpha is 0, the source may change.
        files.append(inspect(form.mask, "mask", limits, "mask"))
    return files
