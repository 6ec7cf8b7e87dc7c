"""A backend that paints instead of editing: quick, without torch, and as slow, broken or full as a test wants it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType

from PIL import Image, ImageChops

from careedit.errors import InputError
from careedit.images import composite
from careedit.records import BatchSlot, EditTrace, RoutingDecision
from careedit.routing import RoutingFeatures
from careedit.scoring import JudgeIdentity, Score, ScoreRequest
from careedit_deployments.edits.backend import ArmInfo, EditCall, EditEvent, Made, Partial, Progress
from careedit_deployments.errors import ScorerUnavailableError

EXPERTS = {
    "erase": {"competence": "erase", "handles": ["remove"], "description": "Erases.", "deployment": "own"},
    "style": {"competence": "style", "handles": ["style"], "description": "Paints.", "deployment": "own"},
}


def arm_info(name: str = "tiny", **changed: object) -> ArmInfo:
    """What the pretended backend tells of an arm."""
    told = {
        "name": name,
        "expert_set": "pretended",
        "version": "1.0",
        "sha256": "0" * 64,
        "experts": EXPERTS,
        "steps": 4,
        "guidance": None,
        "top_k": 1,
        "panel": 64,
        "takes_guidance": False,
        "shadow": False,
    }
    return ArmInfo(**{**told, **changed})


class Pretended:
    """Inverts the colours where it may; a step is a turn of the event loop."""

    def __init__(self, *names: str) -> None:
        self.arms: Mapping[str, ArmInfo] = MappingProxyType({name: arm_info(name) for name in names or ("tiny",)})
        self.calls: list[EditCall] = []
        """Edits that were begun."""
        self.steps = 0
        """Steps that were done."""
        self.closed = 0
        """Edits whose iterator was closed."""
        self.fails: BaseException | None = None
        """What the next edits raise, after `fails_after` steps."""
        self.fails_after = 0
        self.pause = 0.0
        """Seconds per step."""
        self.unready: dict[str, str] = {}
        """What `ready` answers."""
        self.judge = True
        """Whether there is one."""

    async def route(self, arm: str, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """Erase, always."""
        return RoutingDecision(weights={"erase": 1.0}, router="pretended", reason="It always is.")

    async def edit(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """One step after the other."""
        self.calls.append(call)
        request, steps = call.request, call.request.steps or 1
        picture = ImageChops.invert(request.image)
        if request.mask is not None:
            picture = composite(request.image, picture, request.mask)
        try:
            for image in range(request.n):
                told = 0
                for step in range(steps):
                    if self.fails is not None and step == self.fails_after:
                        raise self.fails
                    await asyncio.sleep(self.pause)
                    self.steps += 1
                    if call.progress:
                        yield Progress(image=image, done=step + 1, total=steps)
                    if told < call.partials and step + 1 < steps:
                        yield Partial(image=image, index=told, picture=request.image)
                        told += 1
                yield Made(image=image, picture=picture, trace=_trace(call, image))
        finally:
            self.closed += 1

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Full marks for what differs from its source."""
        if not self.judge:
            raise ScorerUnavailableError("The judge is away; come back later.")
        judge = JudgeIdentity(backend="pretended", model="rule", revision="1", prompts="none-1")
        marks = [1.0 if request.source.tobytes() != request.edited.tobytes() else 0.0 for request in requests]
        return [Score(followed=mark, preserved=1.0, clean=1.0, overall=mark, judge=judge) for mark in marks]

    async def ready(self) -> Mapping[str, str]:
        """As it was told."""
        return self.unready


def _trace(call: EditCall, image: int) -> EditTrace:
    request = call.request
    if request.seed is None or request.steps is None:
        raise InputError("A call states its seed and its steps; settle them before it is sent.")
    return EditTrace(
        expert_set="pretended",
        expert_set_sha256="0" * 64,
        instruction=request.instruction,
        prompt=request.instruction,
        image_sha256="0" * 64,
        routing=call.decision,
        application="merged",
        seed=request.seed + image,
        steps=request.steps,
        guidance=None,
        panel=(64, 64),
        nfe=request.steps,
        batch=(BatchSlot(steps=request.steps, weights=call.decision.weights),),
        slot=0,
        device="cpu",
        dtype="float32",
        runtime="pretended",
        seconds={"denoise": 0.0},
    )


def picture_file(
    size: tuple[int, int] = (48, 32), colour: tuple[int, int, int] = (200, 40, 90), **save: object
) -> bytes:
    """The bytes of a PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG", **save)
    return buffer.getvalue()


def mask_file(size: tuple[int, int] = (48, 32), *, left_is_free: bool = True) -> bytes:
    """The bytes of a mask by OpenAI's rule: transparent where the source may change."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    half = (0, 0, size[0] // 2, size[1]) if left_is_free else (size[0] // 2, 0, size[0], size[1])
    mask.paste((0, 0, 0, 0), half)
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()
