"""The contract between the HTTP layer and what routes, edits and scores: Ray Serve handles, or one process in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

from PIL import Image
from pydantic import Field

from careedit.record import Record
from careedit.records import EditRequest, EditTrace, RoutingDecision, mixture_rows
from careedit.routing import RoutingFeatures
from careedit.scoring import Score, ScoreRequest
from careedit.selection.plan import evaluations
from careedit_deployments.checks import Moderation
from careedit_deployments.policy.contract import PolicyMark
from careedit_deployments.state.records import ANONYMOUS
from careedit_deployments.state.tenant_policy import Purpose

ENCODED_PIXELS = 2**20
"""Pixels whose encoding counts as one evaluation of the transformer. As a PNG or lossless WebP they take some tenths of a
second of CPU time."""

PANEL_PIXELS = 2**20
"""Maximum pixels of a panel, as an estimate: the bases edit at 512 to 1024 pixels a side."""


class EditOrder(Record):
    """An edit as an HTTP request, a job or a session's turn asks for it."""

    request: EditRequest
    """The edit itself: images, instruction and options."""
    model: str | None = None
    """Name of an arm or of its expert set; None: the traffic weights decide."""
    user: str | None = None
    """Who asks, for sticky arms and limits; None: the request belongs to no user."""
    partials: int = 0
    """Previews per image while it is made, 0 to 3."""
    candidates: bool = False
    """Whether the last preview of each candidate of an early filter is sent."""
    progress: bool = False
    """Whether progress events are sent. Each is a message across the cluster, so set it only where they are shown."""
    deadline_s: float | None = None
    """Seconds until the edit is given up; None: the server's limit."""
    request_id: str = ""
    """Id of the HTTP request or job, for logs."""
    turn: int = 0
    """Earlier edits in the session that led to this source; a feature of the router."""
    result_size: tuple[int, int] | None = None
    """Width and height of each result in pixels, as it is encoded; None: the source's."""
    owner: str = ANONYMOUS
    """Id of the tenant that asks."""
    moderation: Moderation = "auto"
    """Level of the content policy that the request asks for."""
    files_sha256: tuple[str | None, ...] = ()
    """sha256 of the files that the client sent, source first; None where the file was not sent. Only policy checks use it."""
    trace_headers: Mapping[str, str] = Field(default_factory=dict)
    """`traceparent` and related headers, for spans."""

    @property
    def encoded_pixels(self) -> int:
        """Pixels of all files that are encoded for the answer: results, previews and candidates (at a panel's scale)."""
        width, height = self.result_size or self.request.image.size
        wanted = self.request.early_filter if self.candidates else None
        tried = 0 if wanted is None else wanted.candidates * min(width * height, PANEL_PIXELS)
        return self.request.n * (width * height * (1 + self.partials) + tried)


class EditCall(EditOrder):
    """An accepted order: assigned to an arm, routed, its seed drawn, so that a second attempt makes the same edit.

    `request.seed` and `request.steps` are set. `request.expert` is what the user asked for, `decision` is the result.
    """

    id: str
    """Id of the edit, for feedback and logs."""
    arm: str
    """Name of the arm that edits."""
    decision: RoutingDecision
    """The experts that edit, and why."""
    purposes: tuple[Purpose, ...] = ()
    """What the edit may be used for in addition to the answer; default nothing."""
    deadline_s: float
    """Seconds until the edit is given up, counted from this call: clocks of different hosts are not compared."""

    @property
    def cost(self) -> int:
        """Work that the edit is expected to take: transformer evaluations, and encoding in the same unit."""
        request = self.request
        assert request.steps is not None
        rows = len(mixture_rows(self.decision.weights, masked=request.mask is not None))
        made = evaluations(request.early_filter, n=request.n, steps=request.steps, rows=rows)
        return made + round(self.encoded_pixels / ENCODED_PIXELS)


class Progress(Record):
    """Steps of an image were made."""

    kind: Literal["progress"] = "progress"
    """Type of the event; always "progress"."""
    image: int
    """Index of the image, 0 to n - 1."""
    done: int
    """Steps made for it, previews of its early filter included."""
    total: int
    """Steps that it needs in total."""


class Preview(Record):
    """A preview of an unfinished image."""

    kind: Literal["partial"] = "partial"
    """Type of the event; always "partial"."""
    image: int
    """Index of the image, 0 to n - 1."""
    index: int
    """Index of the preview, 0 for the first."""
    picture: Image.Image
    """The estimated result at this step, of the source's size."""


class Candidate(Record):
    """What the early filter's judge saw last of one candidate."""

    kind: Literal["candidate"] = "candidate"
    """Type of the event; always "candidate"."""
    image: int
    """Index of the image, 0 to n - 1."""
    index: int
    """Index of the candidate, as in the trace of the filter."""
    picture: Image.Image
    """Its last preview, at the panel's scale."""


class ImageDone(Record):
    """A finished image."""

    kind: Literal["made"] = "made"
    """Type of the event; always "made"."""
    image: int
    """Index of the image, 0 to n - 1."""
    picture: Image.Image
    """The result, of the source's size."""
    trace: EditTrace
    """How the image was made, with everything that a replay needs."""
    marks: tuple[PolicyMark, ...] = ()
    """Marks of the content policy, for the input and for this image."""


EditEvent = Progress | Preview | Candidate | ImageDone
"""What a replica sends while it edits; the stream ends after n `ImageDone`, or raises."""


class ExpertInfo(Record):
    """An expert of an arm, as the ingress and the arm's router know it; a `careedit.routing.RoutableExpert`."""

    name: str
    """Unique within the arm's expert set; what `expert` of a request names."""
    competence: str
    """What the expert is for, in one word."""
    handles: tuple[str, ...] = ()
    """Edit kinds and conditions that the expert is for, for example "remove" or "mask"."""
    description: str | None = None
    """What the expert does, as a sentence from its manifest; None: the manifest has no description."""
    deployment: Literal["own", "shared"] | None = None
    """"own": the expert has replicas of its own; "shared": the shared pool edits with it; None: not known."""
    state: str | None = None
    """Whether the expert can be used now; None: not known."""
    licence: str | None = None
    """Licence of the expert, from its manifest; None: not known."""


class ArmInfo(Record):
    """An arm, as the ingress knows it without loading its expert set."""

    name: str
    """Name of the arm; what `model` of a request names."""
    expert_set: str
    """Name of the arm's expert set."""
    version: str
    """Version of the arm's expert set."""
    sha256: str
    """Hash of the arm's expert set."""
    experts: Mapping[str, ExpertInfo]
    """The experts of the set, by name, in the set's order."""
    steps: int
    """Denoising steps of an edit that asks for none."""
    guidance: float | None
    """Guidance of an edit that asks for none; None where the base takes none."""
    top_k: int
    """Maximum of experts that the router mixes by default."""
    panel: int
    """Side of a panel, in pixels."""
    takes_guidance: bool
    """Whether the base takes guidance, so that a request may give it."""
    references: int = 1
    """Maximum of references in addition to the source."""
    base: str = "unknown"
    """Name of the arm's base model, for people and for Content Credentials; default "unknown"."""
    base_licence: str | None = None
    """Licence of the arm's base model; None, the default: it is not known."""
    shadow: bool
    """Whether the arm only repeats edits of other arms; its results are not returned."""


class Backend(Protocol):
    """Routes, edits and scores. Every method may raise the errors of `careedit_deployments.errors` and of `careedit`."""

    @property
    def arms(self) -> Mapping[str, ArmInfo]:
        """The arms that are served, by name."""
        ...

    async def route(self, arm: str, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """Ask the arm's router."""
        ...

    def edit(self, call: EditCall) -> AsyncIterator[EditEvent]:
        """Edit; closing the iterator stops the edit within one step. If its replica dies, it is retried within the deadline."""
        ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Ask the scorer pool. Raises `ScorerUnavailableError` if no pool is configured or it does not answer."""
        ...

    async def ready(self) -> Mapping[str, str]:
        """The parts that are not ready, with the reason; empty when edits can be made."""
        ...
