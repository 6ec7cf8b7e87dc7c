"""Where the content policy meets an edit: its input before routing, its previews and results before they leave.

The policy is asked once per edit for the input, and once per result. A retry on another replica asks it no more, and a shadow
copy not at all: its words and pictures were allowed, and its result is not sent to anyone.
"""

from __future__ import annotations

from careedit_deployments.edits.backend import Candidate, EditCall, EditEvent, EditOrder, ImageDone, Preview
from careedit_deployments.errors import PolicyError, PolicyUnavailableError
from careedit_deployments.policy.contract import PolicyInput, PolicyMark, PolicyPicture
from careedit_deployments.policy.hook import PolicyHook


async def check_input(policy: PolicyHook, order: EditOrder, edit: str, ends: float) -> tuple[PolicyMark, ...]:
    """Ask the policy about the words and pictures of an order; returns its marks. Raises what `PolicyHook.check` raises."""
    if not policy.asks("input"):
        return ()
    request = order.request
    sent = order.files_sha256 or (None,) * (1 + len(request.references))
    pictures = [PolicyPicture(role="source", picture=request.image, file_sha256=sent[0])]
    for picture, sha256 in zip(request.references, sent[1:], strict=True):
        pictures.append(PolicyPicture(role="reference", picture=picture, file_sha256=sha256))
    if request.mask is not None:
        pictures.append(PolicyPicture(role="mask", picture=request.mask))
    about = PolicyInput(
        stage="input",
        level=order.moderation,
        instruction=request.instruction,
        pictures=tuple(pictures),
        edit=edit,
        tenant=order.owner,
    )
    return await policy.check(about, ends=ends)


async def check_event(
    policy: PolicyHook, call: EditCall, event: EditEvent, ends: float, marks: tuple[PolicyMark, ...]
) -> EditEvent | None:
    """The event as it may leave: a result with its marks and those of the input (`marks`).

    None: a preview or a candidate that may not leave.
    Raises `PolicyError` for a result that is refused, which ends the edit with all images that it has not sent yet.
    """
    if not isinstance(event, ImageDone | Preview | Candidate):
        return event
    if policy.asks("output"):
        about = PolicyInput(
            stage="output",
            level=call.moderation,
            instruction=call.request.instruction,
            pictures=(PolicyPicture(role="result", picture=event.picture),),
            edit=call.id,
            tenant=call.owner,
        )
        try:
            marks = (*marks, *await policy.check(about, ends=ends, image=event.image))
        except (PolicyError, PolicyUnavailableError):
            if not isinstance(event, ImageDone):
                return None
            raise
    return event.model_copy(update={"marks": marks}) if marks and isinstance(event, ImageDone) else event
