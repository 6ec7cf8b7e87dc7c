"""What is served and how it does: models, experts, arms of the A/B test with their latest edits, and health."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from careedit.errors import CareEditError
from careedit_deployments.ab.status import ArmStatus, arm_statuses
from careedit_deployments.credentials import expiry_warning
from careedit_deployments.edits.backend import ArmInfo
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.schema import Answer, ListAnswer
from careedit_deployments.http.services import caller_of, services_of
from careedit_deployments.state.clock import unix_time

LOW_DISK = 2**30
"""Free bytes of a local folder of images below which `/readyz` warns."""

router = APIRouter()

_ERRORS = error_answers(401, 429, 500)


class Model(Answer):
    """An arm, in the form of a model of OpenAI's API."""

    id: str
    """Name of the arm, for the request field `model`."""
    object: str = "model"
    """Type of the answer; always "model"."""
    created: int = 0
    """Always 0: expert sets are identified by their hash, not by their age."""
    owned_by: str = "careedit"
    """Owner in the sense of OpenAI's API; always "careedit"."""
    expert_set: str
    """Name of the arm's expert set."""
    version: str
    """Version of the expert set."""
    sha256: str
    """Hash of the expert set."""
    steps: int
    """Number of denoising steps of an edit that does not set `steps`."""
    panel: int
    """Side of a panel in pixels; an edit has no finer detail."""
    takes_guidance: bool
    """Whether a request may set `guidance`."""
    references: int
    """Maximum number of references in addition to the source."""


class ModelList(ListAnswer):
    """Every model that a request may name."""

    data: list[Model]
    """The models, in the order of the configuration."""


class ExpertInfo(Answer):
    """One expert of one arm."""

    name: str
    """Name of the expert, for the request field `expert`."""
    model: str
    """Name of the arm that has the expert."""
    competence: str | None = None
    """What the expert is for, in one word."""
    handles: list[str] = Field(default=[])
    """Edit kinds and conditions that the expert is for."""
    description: str | None = None
    """What the expert does, from its manifest; null if the manifest does not say it."""
    deployment: str | None = None
    """"own": the expert has replicas of its own; "shared": the shared pool edits with it."""
    state: str | None = None
    """Whether the expert can be used now; null if that is not known."""


class ExpertList(ListAnswer):
    """Every expert that a request may name."""

    data: list[ExpertInfo]
    """The experts, arm by arm."""


class LatestEdit(Answer):
    """An edit that ended recently, without anything that identifies the caller or the request."""

    arm: str
    """Name of the arm that edited."""
    shadow: bool
    """Whether the edit was a shadow copy, whose result is not returned."""
    experts: dict[str, float]
    """Weight of each expert in the edit."""
    outcome: str
    """How the edit ended, for example "made" or "failed"."""
    seconds: float
    """Time from acceptance to the end, in seconds."""
    score: float | None
    """The judge's overall score, 0 to 1; null if the edit was not scored."""
    created: float
    """Time of acceptance, in Unix seconds."""


class ArmList(ListAnswer):
    """Every arm, shadow arms included, and the latest edits."""

    data: list[ArmStatus]
    """The arms, in the order of the configuration."""
    latest: list[LatestEdit]
    """The latest edits, newest first."""


class Health(Answer):
    """Whether the server works."""

    status: str
    """Whether edits can be made: "ok" or "unavailable"."""
    reasons: dict[str, str] = Field(default={})
    """For each part that prevents edits, the reason; empty if edits can be made."""
    warnings: dict[str, str] = Field(default={}, exclude_if=lambda warnings: not warnings)
    """For each part that needs an operator although edits can be made, the reason; left out if there are no warnings."""


@router.get("/v1/models", tags=["models"], operation_id="listModels", responses=_ERRORS)
async def list_models(request: Request) -> ModelList:
    """List the arms that a request of the caller may name; shadow arms are not among them."""
    return ModelList(data=[_model(arm) for arm in _arms_of(request)])


@router.get(
    "/v1/models/{model}",
    tags=["models"],
    operation_id="retrieveModel",
    responses=_ERRORS | error_answers(404),
)
async def get_model(model: str, request: Request) -> Model:
    """Return one arm."""
    arm = next((arm for arm in _arms_of(request) if arm.name == model), None)
    if arm is None:
        raise NotFoundError(f"The model {model[:64]!r} does not exist; GET /v1/models lists them.", field="model")
    return _model(arm)


@router.get("/v1/experts", tags=["models"], operation_id="listExperts", responses=_ERRORS)
async def list_experts(request: Request) -> ExpertList:
    """List the experts of every arm that a request of the caller may name."""
    return ExpertList(
        data=[
            ExpertInfo(model=arm.name, **{**expert.model_dump(), "handles": list(expert.handles)})
            for arm in _arms_of(request)
            for expert in arm.experts.values()
            if caller_of(request).policy.allows_expert(expert.name)
        ]
    )


@router.get("/v1/arms", tags=["models"], operation_id="listArms", responses=error_answers(400, 401, 429, 500, 503))
async def list_arms(
    request: Request,
    hours: Annotated[float | None, Query(gt=0, le=24 * 365, description="Count only edits of the last hours.")] = None,
    limit: Annotated[int, Query(ge=0, le=100, description="Maximum number of latest edits.")] = 20,
) -> ArmList:
    """List the arms: traffic, edits, errors, mean judge score, users' ratings, and why an arm is disabled."""
    services = services_of(request)
    since = 0.0 if hours is None else unix_time() - 3600 * hours
    edits = await services.store.edits.latest(since=since, limit=limit) if limit else []
    return ArmList(
        data=await arm_statuses(services.config, services.store, since=since),
        latest=[
            LatestEdit(
                arm=edit.arm,
                shadow=edit.shadow_of is not None,
                experts=dict(edit.experts),
                outcome=edit.outcome,
                seconds=edit.seconds,
                score=edit.scores.get("overall") if edit.scores else None,
                created=edit.created,
            )
            for edit in edits
        ],
    )


@router.get("/healthz", tags=["health"], operation_id="health")
async def health() -> Health:
    """Say that the process answers. It checks no other part, so use it as a liveness probe."""
    return Health(status="ok")


@router.get("/readyz", tags=["health"], operation_id="ready", response_model=Health, responses={503: {"model": Health}})
async def ready(request: Request) -> JSONResponse:
    """Say whether an edit can be made now: replicas are up and the database answers."""
    services = services_of(request)
    reasons = dict(await services.backend.ready())
    try:
        await services.store.ping()
    except CareEditError:  # the log has the details, which are not for everybody
        reasons["store"] = "The database does not answer."
    if services.stopping.begun:
        reasons["server"] = "The server is stopping."
    warnings = dict(services.warnings)
    free = await run_sync(services.blobs.free_bytes)
    if free is not None and free < LOW_DISK:
        warnings["disk"] = f"Only {free // 2**20} MiB are left for images; free some, or jobs and sessions are refused."
    if (expiry := expiry_warning(services.codecs.signing)) is not None:
        warnings["credentials"] = expiry
    answer = Health(status="unavailable" if reasons else "ok", reasons=reasons, warnings=warnings)
    return JSONResponse(answer.model_dump(), 503 if reasons else 200)


def _arms_of(request: Request) -> list[ArmInfo]:
    """The arms that the caller may name."""
    policy, arms = caller_of(request).policy, services_of(request).backend.arms.values()
    return [arm for arm in arms if not arm.shadow and policy.allows_arm(arm.name, arm.expert_set)]


def _model(arm: ArmInfo) -> Model:
    return Model(**dict(arm), id=arm.name)
