"""A backend that edits by a rule, at once, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from PIL import Image, ImageOps

from careedit.records import BatchSlot, EditTrace, RoutingDecision
from careedit.routing import RoutingFeatures
from careedit.scoring import Score, ScoreRequest
from careedit.scoring.base import JudgeIdentity
from careedit_deployments.edits.backend import ArmInfo, EditCall, EditEvent, Made, Partial, Progress
from careedit_deployments.errors import ScorerUnavailableError, UnavailableError

JUDGE = JudgeIdentity(backend="scripted", model="rule", revision="1", prompts="none")

EXPERTS = {
    "erase": {"competence": "erase", "handles": ["remove"], "description": "Removes things.", "state": "ready"},
    "compose": {"competence": "compose", "handles": ["add"], "description": "Adds things.", "state": "ready"},
}


class ScriptedBackend:
    """Inverts the picture; an arm in `broken` fails, `scores` holds what the judge thinks of each arm's last edit."""

    def __init__(
        self,
        arms: Collection[str] = ("tiny",),
        *,
        shadows: Collection[str] = (),
        scores: Mapping[str, float] | None = None,
    ) -> None:
        self.broken: set[str] = set()
        self.scores = scores
        self.calls: list[EditCall] = []
        self.asked: list[ScoreRequest] = []
        self.gate = asyncio.Event()
        """Edits wait for it."""
        self.gate.set()
        self._arms = {
            name: ArmInfo(
                name=name,
                expert_set="tiny",
                version="1.0",
                sha256="0" * 64,
                experts=EXPERTS,
                steps=4,
                guidance=None,
                top_k=1,
                panel=64,
                takes_guidance=False,
                shadow=name in shadows,
            )
            for name in (*arms, *shadows)
        }

    @property
    def arms(self) -> Mapping[str, ArmInfo]:
        return self._arms

    async def route(self, arm: str, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        chosen = "erase" if "remove" in features.instruction else "compose"
        return RoutingDecision(
            weights={chosen: 1.0},
            probabilities={name: 0.9 if name == chosen else 0.1 for name in EXPERTS},
            feasible=0.97,
            entropy=0.33,
            router="rules",
            reason=f"The instruction asks for what {chosen!r} is for.",
        )

    async def edit(self, call: EditCall) -> AsyncIterator[EditEvent]:
        self.calls.append(call)
        await self.gate.wait()
        if call.arm in self.broken:
            raise UnavailableError(f"No replica of {call.arm!r} answers; try again.")
        source, steps = call.request.image, call.request.steps or 4
        for image in range(call.request.n):
            for index in range(call.partials):
                yield Partial(image=image, index=index, picture=ImageOps.posterize(source, 2 + index))
            if call.progress:
                yield Progress(image=image, done=steps, total=steps)
            yield Made(image=image, picture=result_of(source, call), trace=trace_of(call, image))

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        if self.scores is None:
            raise ScorerUnavailableError("There is no judge; configure one.")
        self.asked += requests
        given = [self.scores[self.calls[-1].arm]] * len(requests)
        return [Score(followed=one, preserved=1, clean=1, overall=one, judge=JUDGE) for one in given]

    async def ready(self) -> Mapping[str, str]:
        return {name: "It was told to fail." for name in self.broken}


def result_of(source: Image.Image, call: EditCall) -> Image.Image:
    """The inverted source, where the mask allows it."""
    edited = ImageOps.invert(source)
    return edited if call.request.mask is None else Image.composite(edited, source, call.request.mask)


def trace_of(call: EditCall, image: int) -> EditTrace:
    """A trace such as an expert replica writes."""
    steps = call.request.steps or 4
    return EditTrace(
        expert_set="tiny",
        expert_set_sha256="0" * 64,
        instruction=call.request.instruction,
        prompt=call.request.instruction,
        image_sha256="0" * 64,
        routing=call.decision,
        application="merged",
        seed=(call.request.seed or 0) + image,
        steps=steps,
        guidance=None,
        panel=(64, 64),
        nfe=steps,
        batch=(BatchSlot(steps=steps, weights=call.decision.weights),),
        slot=0,
        device="cpu",
        dtype="float32",
        runtime="scripted",
        seconds={"route": 0.001, "prepare": 0.01, "denoise": 0.1, "finish": 0.01},
    )
