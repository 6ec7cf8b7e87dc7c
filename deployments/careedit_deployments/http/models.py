"""`GET /v1/models` (as OpenAI's) and `GET /v1/experts`: what can be asked for."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request

from careedit_deployments.edits.backend import ArmInfo
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.schema import Answer
from careedit_deployments.http.services import services_of

router = APIRouter(tags=["models"], responses=error_answers(401, 429, 500))


class Model(Answer):
    """An arm, as OpenAI's API tells of a model."""

    id: str
    """What `model` of a request may name."""
    object: str = "model"
    """Always "model"."""
    created: int = 0
    """Always 0: sets are told apart by their hash, not by their age."""
    owned_by: str = "careedit"
    """Always "careedit"."""
    expert_set: str
    """Name of its expert set."""
    version: str
    """Version of that set."""
    sha256: str
    """Hash of that set."""
    steps: int
    """Steps of an edit that asks for none."""
    panel: int
    """Side of its panel, in pixels: the detail that an edit can have."""
    takes_guidance: bool
    """Whether `guidance` may be given."""
    references: int
    """References that may be given beside the source."""


class ModelList(Answer):
    """Every model."""

    object: str = "list"
    """Always "list"."""
    data: list[Model]
    """In the configuration's order."""


class ExpertInfo(Answer):
    """One expert of one arm."""

    name: str
    """What `expert` of a request may name."""
    model: str
    """The arm that has it."""
    competence: str | None = None
    """What it is for, in a word."""
    handles: list[str] = Field(default=[])
    """Edit kinds and conditions that it is for."""
    description: str | None = None
    """What it does."""
    deployment: str | None = None
    """"own": replicas of its own; "shared": the pool edits with it."""
    state: str | None = None
    """Whether it can be used now."""


class ExpertList(Answer):
    """Every expert."""

    object: str = "list"
    """Always "list"."""
    data: list[ExpertInfo]
    """Arm by arm."""


@router.get("/v1/models", operation_id="listModels")
async def list_models(request: Request) -> ModelList:
    """The arms that a request may name; a shadow arm is none of them."""
    arms = services_of(request).backend.arms.values()
    return ModelList(data=[_model(arm) for arm in arms if not arm.shadow])


@router.get("/v1/models/{model}", operation_id="retrieveModel", responses=error_answers(404))
async def get_model(model: str, request: Request) -> Model:
    """One arm."""
    arm = services_of(request).backend.arms.get(model)
    if arm is None or arm.shadow:
        raise NotFoundError(f"There is no model {model[:64]!r}; GET /v1/models lists them.", field="model")
    return _model(arm)


@router.get("/v1/experts", operation_id="listExperts")
async def list_experts(request: Request) -> ExpertList:
    """The experts of every arm that a request may name."""
    arms = services_of(request).backend.arms.values()
    return ExpertList(
        data=[
            ExpertInfo(model=arm.name, **{**expert.model_dump(), "handles": list(expert.handles)})
            for arm in arms
            if not arm.shadow
            for expert in arm.experts.values()
        ]
    )


def _model(arm: ArmInfo) -> Model:
    return Model(
        id=arm.name,
        expert_set=arm.expert_set,
        version=arm.version,
        sha256=arm.sha256,
        steps=arm.steps,
        panel=arm.panel,
        takes_guidance=arm.takes_guidance,
        references=arm.references,
    )
