"""A backend that paints instead of editing: fast, without torch, and as slow, broken or full as a test needs."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from PIL import Image, ImageChops

from careedit.images import composite
from careedit.records import BatchSlot, EditTrace, RoutingDecision
from careedit.routing import RoutingFeatures
from careedit.scoring import JudgeIdentity, Score, ScoreRequest
from careedit_deployments.edits.backend import (
    ArmInfo,
    Candidate,
    EditCall,
    EditEvent,
    ExpertInfo,
    ImageDone,
    Preview,
    Progress,
)
from careedit_deployments.errors import ScorerUnavailableError, UnavailableError

JUDGE = JudgeIdentity(backend="fake", model="rule", revision="1", prompts="none-1")
EXPERTS = {
    name: ExpertInfo(
        name=name, competence=name, handles=(kind,), description=f"{name}.", deployment="own", state="ready"
    )
    for name, kind in (("erase", "remove"), ("style", "style"))
}


def arm_info(name: str = "tiny", **changed: object) -> ArmInfo:
    """What the fake backend says about an arm."""
    fields = {
        "name": name,
        "expert_set": "fake",
        "version": "1.0",
        "sha256": "0" * 64,
        "experts": EXPERTS,
        "steps": 4,
        "guidance": None,
        "top_k": 1,
        "panel": 64,
        "takes_guidance": False,
        "base_licence": "Apache-2.0",
        "shadow": False,
    }
    return ArmInfo(**{**fields, **changed})


class FakeBackend:
    """Inverts the colours where it may; a step is a turn of the event loop."""

    def __init__(
        self,
        *arms: str,
        shadows: Collection[str] = (),
        scores: Mapping[str, float] | None = None,
        judge: bool = True,
    ) -> None:
        """`scores` are the judge's for the last edit of each arm; without them it gives 1 to what differs from its source."""
        self.arms: Mapping[str, ArmInfo] = {
            name: arm_info(name, shadow=name in shadows) for name in (*(arms or ("tiny",)), *shadows)
        }
        self.calls: list[EditCall] = []
        """Edits that were begun."""
        self.steps = 0
        """Steps that were done."""
        self.closed = 0
        """Edits whose iterator was closed."""
        self.fails: BaseException | None = None
        """What the next edits raise, after `fails_after` steps."""
        self.fails_after = 0
        self.broken: set[str] = set()
        """Arms whose replicas do not answer."""
        self.pause = 0.0
        """Seconds per step."""
        self.gate = asyncio.Event()
        """Edits wait for it; it is open at first."""
        self.gate.set()
        self.unready: dict[str, str] = {}
        """What `ready` answers."""
        self.judge, self.scores = judge, scores

    async def route(self, arm: str, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """Style for what is to be drawn or added, else erase."""
        chosen = "style" if {"draw", "add"} & set(features.instruction.split()) else "erase"
        return RoutingDecision(
            weights={chosen: 1.0},
            probabilities={name: 0.9 if name == chosen else 0.1 for name in EXPERTS},
            feasible=0.97,
            entropy=0.33,
            router="rules",
            reason=f"The instruction asks for what {chosen!r} is for.",
        )

    async def edit(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """One step after the other."""
        self.calls.append(call)
        request, steps = call.request, call.request.steps
        try:
            await self.gate.wait()
            if call.arm in self.broken:
                raise UnavailableError(f"No replica of {call.arm!r} answers; try again.")
            for image in range(request.n):
                previews = 0
                for step in range(steps):
                    if self.fails is not None and step == self.fails_after:
                        raise self.fails
                    await asyncio.sleep(self.pause)
                    self.steps += 1
                    if call.progress:
                        yield Progress(image=image, done=step + 1, total=steps)
                    if previews < call.partials and step + 1 < steps:
                        yield Preview(image=image, index=previews, picture=request.image)
                        previews += 1
                tried = request.early_filter.candidates if call.candidates and request.early_filter else 0
                for index in range(tried):
                    yield Candidate(image=image, index=index, picture=request.image)
                yield done(call, image)
        finally:
            self.closed += 1

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request."""
        if not self.judge:
            raise ScorerUnavailableError("The judge is away; come back later.")
        if self.scores is not None:
            values = [self.scores[self.calls[-1].arm]] * len(requests)
        else:
            values = [float(request.source.tobytes() != request.edited.tobytes()) for request in requests]
        return [Score(followed=one, preserved=1.0, clean=1.0, overall=one, judge=JUDGE) for one in values]

    async def ready(self) -> Mapping[str, str]:
        """Parts that are not ready, and why."""
        return {**self.unready, **{name: "It was set to fail." for name in self.broken}}


def done(call: EditCall, image: int) -> ImageDone:
    """Image `image` of a call, with a trace such as an expert replica writes."""
    request = call.request
    picture = ImageChops.invert(request.image)
    if request.mask is not None:
        picture = composite(request.image, picture, request.mask)
    trace = EditTrace(
        expert_set="fake",
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
        runtime="fake",
        seconds={"route": 0.001, "prepare": 0.01, "denoise": 0.1, "finish": 0.01},
    )
    return ImageDone(image=image, picture=picture, trace=trace)


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
