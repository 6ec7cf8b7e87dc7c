"""What stands behind the HTTP layer: something that routes, edits and scores. Ray Serve handles, or one process in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

from PIL import Image

from careedit.record import Record
from careedit.records import EditRequest, EditTrace, RoutingDecision
from careedit.routing import RoutingFeatures
from careedit.scoring import Score, ScoreRequest


class EditCall(Record):
    """One edit as an expert replica is asked for it: routed, with its seed drawn, so that a second try is the same edit."""

    id: str
    """Id of the edit."""
    arm: str
    """The arm that edits."""
    request: EditRequest
    """What is wanted; `seed` is set. `expert` is what the user asked for, `decision` what came of it."""
    decision: RoutingDecision
    """Who edits, and why."""
    partials: int = 0
    """Previews that are wanted while an image is made, 0 to 3."""
    progress: bool = False
    """Whether its steps are told while they are done."""
    deadline: float
    """Unix time at which the edit is given up."""
    request_id: str = ""
    """Id of the HTTP request or job, for logs."""
    trace_headers: Mapping[str, str] = {}
    """`traceparent` and its kin, for spans."""


class Progress(Record):
    """Steps were done."""

    kind: Literal["progress"] = "progress"
    image: int
    """Index of the image, 0 to n - 1."""
    done: int
    """Steps done for it, previews of its early filter included."""
    total: int
    """Steps that it takes in all."""


class Partial(Record):
    """A preview of an image that is being made."""

    kind: Literal["partial"] = "partial"
    image: int
    """Index of the image."""
    index: int
    """0 for its first preview."""
    picture: Image.Image
    """The denoised estimate as the user would get it, of the source's size."""


class Made(Record):
    """An image is finished."""

    kind: Literal["made"] = "made"
    image: int
    """Index of the image."""
    picture: Image.Image
    """The result, of the source's size."""
    trace: EditTrace
    """How it was made."""


EditEvent = Progress | Partial | Made
"""What a replica tells while it edits; the stream ends after n `Made`, or raises."""


class ArmInfo(Record):
    """An arm as the HTTP layer tells of it."""

    name: str
    """The arm's name."""
    expert_set: str
    """Name of its set."""
    version: str
    """Version of its set."""
    sha256: str
    """Hash of its set."""
    experts: Mapping[str, Mapping[str, object]]
    """Per expert: competence, handles, description, deployment ("own" or "shared"), state."""
    steps: int
    """The set's default steps."""
    guidance: float | None
    """The set's default guidance."""
    top_k: int
    """How many experts its router may mix."""
    panel: int
    """Side of its panel, in pixels."""
    takes_guidance: bool
    """Whether its base takes guidance."""
    references: int = 1
    """References that its base takes beside the source."""
    shadow: bool
    """Whether its results are only scored."""


class Backend(Protocol):
    """Routes, edits and scores. Every method may raise the errors of `careedit_deployments.errors` and of `careedit`."""

    @property
    def arms(self) -> Mapping[str, ArmInfo]:
        """What is served."""
        ...

    async def route(self, arm: str, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """Ask the arm's router."""
        ...

    def edit(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """Edit; closing the iterator stops the edit within one step. A dead replica is retried within the deadline."""
        ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Ask the scorer pool. Raises `ScorerUnavailableError` where there is none or it does not answer."""
        ...

    async def ready(self) -> Mapping[str, str]:
        """Why no edit could be made now, per part; empty when edits can be made."""
        ...
