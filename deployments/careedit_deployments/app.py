"""`build_app` turns a configuration into a Serve application. It reads the manifests of expert sets, no weights, and starts nothing.

In a Serve YAML: `import_path: careedit_deployments.app:build_app`, and the configuration as `args`, or `args: {config: FILE}`.

The version of a deployment is the hash of everything that running replicas cannot change. `serve.run` of another
configuration therefore keeps replicas with the same version and only gives them the new `user_config`: another set, other
experts. (`serve deploy` of a YAML replaces every replica if `args` change; it can change `user_config` in place.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve import Application

import careedit
from careedit.errors import InputError
from careedit.experts import ExpertSet, load_expert_set
from careedit.experts.licence import check_commercial
from careedit_deployments.cluster.fleet import (
    INGRESS,
    SCORER,
    ArmFleet,
    Fleet,
    describe_arm,
    encoder_name,
    expert_name,
    router_name,
)
from careedit_deployments.cluster.ingress import Ingress
from careedit_deployments.cluster.router import RouterConfig, RouterReplica
from careedit_deployments.config import Arm, ServeConfig
from careedit_deployments.edits.backend import ExpertInfo
from careedit_deployments.encoder.identity import base_key
from careedit_deployments.replica.choice import ExpertSettings, SetChoice
from careedit_deployments.replica.replica import ExpertReplica
from careedit_deployments.replica.scaling import StepSecondsPolicy
from careedit_deployments.scorer.pool import ScorerPool
from careedit_deployments.sizes import DeploymentConfig, Scaling

SPARE = 1024
"""Requests that Serve sends to an ingress replica beyond its maximum in progress; the replica refuses them at once."""


def build_app(config: ServeConfig | Mapping[str, Any]) -> Application:
    """The application of a configuration.

    Raises `InputError` for an invalid configuration or an expert that its set does not have, `ExpertError` and its
    subclasses for a set that cannot be read.
    """
    settings = read_config(config)
    sets = {name: load_expert_set(set_reference(arm.expert_set)) for name, arm in settings.arms.items()}
    if settings.commercial:
        for loaded in sets.values():
            check_commercial(loaded)
    fleet = plan_fleet(settings, sets)
    telemetry = settings.telemetry.model_dump(mode="json")
    pool: Application | None = None
    if settings.scorer.backend != "none":
        size = settings.scorer.deployment
        pool = _bind(ScorerPool, SCORER, size, settings.scorer.model_dump(mode="json"), telemetry, _threads(size))
    encoders = _encoders(settings, sets, fleet)
    parts = [*([pool] if pool is not None else []), *encoders.values()]
    for name, arm in settings.arms.items():
        own = fleet.arms[name]
        handles = {"scorer": pool} | ({} if own.encoder is None else {"encoder": encoders[own.encoder]})
        parts += _arm(settings, name, arm, sets[name], own, handles)
    served = fleet.model_dump(mode="json")
    # The ingress finds deployments by name, so that another fleet needs no new ingress; as its arguments they are deployed.
    whole = settings.model_dump(mode="json")
    # Fields of an arm that come with the fleet.
    replaceable = {"expert_set", "experts", "long_tail", "device", "dtype", "quantisation", "compiled"}
    lasting = {
        **whole,
        "arms": {name: {k: v for k, v in arm.items() if k not in replaceable} for name, arm in whole["arms"].items()},
    }
    return _bind(
        Ingress,
        INGRESS,
        settings.ingress,
        whole,
        user_config=served,
        version=lasting,
        parts={"fleet": served, "parts": parts},
        # The app itself counts requests in progress and refuses more. Serve must not refuse before it, or many
        # half-sent bodies would keep health checks and other callers out.
        request_limits={
            "max_ongoing_requests": settings.ingress.max_ongoing_requests + SPARE,
            "max_queued_requests": max(SPARE, settings.ingress.max_queued_requests),
        },
    )


def read_config(config: ServeConfig | Mapping[str, Any]) -> ServeConfig:
    """The configuration, given as such, as its fields, or as `{"config": FILE}`. Raises `InputError`."""
    if isinstance(config, ServeConfig):
        return config
    if set(config) == {"config"}:
        return ServeConfig.from_yaml(str(config["config"]))
    return ServeConfig(**config)


def set_reference(expert_set: str) -> str:
    """The name or address of an expert set for every process of the cluster; a local folder becomes absolute.

    A name of the registry ("models:/tiny@champion") is resolved here, once. All replicas then have the same set, and a new
    champion is served after the next deployment.
    """
    from careedit.experts.set import locate

    place = locate(expert_set)
    return place.address if place.local is None else str(place.local.resolve())


def plan_fleet(config: ServeConfig, sets: Mapping[str, ExpertSet]) -> Fleet:
    """The deployments of a configuration. Raises `InputError` for settings of an expert that does not exist."""
    arms: dict[str, ArmFleet] = {}
    encoders: dict[tuple[str, str | None, str | None], str] = {}
    for name, arm in config.arms.items():
        loaded = sets[name]
        encoder = None
        if config.encoder is not None:
            encoder = encoders.setdefault((base_key(loaded), arm.device, arm.dtype), encoder_name(name))
        for expert in (*arm.experts, *arm.tail_of(loaded.names)):
            if expert not in loaded.names:
                raise InputError(
                    f"The arm {name!r} has settings for the expert {expert!r}, but its set has {', '.join(loaded.names)}."
                )
        own = tuple(expert for expert in loaded.names if expert not in arm.tail_of(loaded.names))
        check_quantised(name, arm, loaded, own)
        arms[name] = ArmFleet(
            info=describe_arm(name, arm, loaded),
            needs_pixels=_router(loaded).has_files,
            own=own,
            shared=config.shared is not None,
            encoder=encoder,
            max_in_flight={
                expert_name(name, expert): _max_in_flight(one) for expert, one in _editing(config, arm, own).items()
            },
        )
    return Fleet(arms=arms, scorer=config.scorer.backend != "none")


def check_quantised(name: str, arm: Arm, loaded: ExpertSet, own: Sequence[str]) -> None:
    """Raise `InputError` for weights that are to be quantised twice, and for experts with replicas of their `own`, which
    merge them into quantised weights.
    """
    file = loaded.spec.base.transformer
    if arm.quantisation is not None and file is not None:
        raise InputError(
            f"The base of the arm {name!r} is quantised already, by its set's file {file.file}; remove quantisation."
        )
    if (arm.quantisation is not None or file is not None) and own:
        remedy = "or remove quantisation" if file is None else "or use a set whose base is not quantised"
        raise InputError(
            f"The arm {name!r} has {arm.quantisation or 'quantised'} weights, and the expert {own[0]!r} would be merged into "
            f"them, because it has replicas of its own; list it in long_tail, {remedy}."
        )


def _router(loaded: ExpertSet) -> RouterConfig:
    spec = loaded.spec.router
    return RouterConfig(
        expert_set=loaded.folder.address,
        sha256=loaded.sha256,
        kind=spec.kind,
        options=spec.options,
        experts=tuple(
            ExpertInfo(name=one.name, competence=one.competence, handles=one.handles)
            for one in loaded.manifests.values()
        ),
    )


def _encoders(config: ServeConfig, sets: Mapping[str, ExpertSet], fleet: Fleet) -> dict[str, Application]:
    """The encoder deployments by name: one for all arms with the same base, device and number format."""
    found: dict[str, Application] = {}
    if config.encoder is None:
        return found
    from careedit_deployments.encoder.replica import (  # here: it imports torch
        BaseChoice,
        EncoderReplica,
        EncoderSettings,
    )

    size = config.encoder
    for name, arm in config.arms.items():
        encoder = fleet.arms[name].encoder
        if encoder is None or encoder in found:
            continue
        loaded = sets[name]
        settings = EncoderSettings(
            device=arm.device,
            dtype=arm.dtype,
            threads=_threads(size),
            batch=size.batch,
            cache_bytes=size.cache_bytes,
            check_seconds=size.health_check_timeout_s / 2,
        )
        telemetry = config.telemetry.model_dump(mode="json")
        choice = BaseChoice(expert_set=loaded.folder.address, base=base_key(loaded))
        found[encoder] = _bind(
            EncoderReplica,
            encoder,
            size,
            settings.model_dump(mode="json"),
            telemetry,
            user_config=choice.model_dump(mode="json"),
        )
    return found


def _arm(
    config: ServeConfig,
    name: str,
    arm: Arm,
    loaded: ExpertSet,
    fleet: ArmFleet,
    handles: Mapping[str, Application | None],
) -> list[Application]:
    """An arm's router and editing deployments; `handles` are the deployments that the editing ones call."""
    routed = _router(loaded).model_dump(mode="json")
    telemetry = config.telemetry.model_dump(mode="json")
    parts = [_bind(RouterReplica, router_name(name), config.router, telemetry, user_config=routed)]
    choice = SetChoice(expert_set=loaded.folder.address, sha256=loaded.sha256)
    judge = config.scorer.model_dump(mode="json") if handles["scorer"] is not None else None
    for expert, deployment in _editing(config, arm, fleet.own).items():
        settings = ExpertSettings(
            arm=name,
            expert=expert,
            batch=config.batch,
            threads=_threads(deployment),
            device=arm.device,
            dtype=arm.dtype,
            quantisation=arm.quantisation,
            compiled=arm.compiled,
            workers=2
            * deployment.max_ongoing_requests,  # an edit whose caller left holds a worker while it waits for the judge
            check_seconds=deployment.health_check_timeout_s / 2,
            encoder=fleet.encoder,
        )
        parts.append(
            _bind(
                ExpertReplica,
                expert_name(name, expert),
                deployment,
                settings.model_dump(mode="json"),
                telemetry,
                judge,
                user_config=choice.model_dump(mode="json"),
                by_work=True,
                parts=handles,
            )
        )
    return parts


def _editing(config: ServeConfig, arm: Arm, own: Sequence[str]) -> dict[str | None, DeploymentConfig]:
    """The editing deployments of an arm, by expert; None is the shared pool."""
    pools: dict[str | None, DeploymentConfig] = {one: arm.experts.get(one, config.expert) for one in own}
    if config.shared is not None:
        pools[None] = config.shared
    return pools


def _max_in_flight(deployment: DeploymentConfig) -> int:
    return deployment.scaling.max_replicas * deployment.max_ongoing_requests + deployment.max_queued_requests


def _threads(deployment: DeploymentConfig) -> int:
    return deployment.threads or max(1, int(deployment.num_cpus))


def _bind(
    kind: type,
    name: str,
    config: DeploymentConfig,
    *args: Any,
    user_config: Mapping[str, Any] | None = None,
    by_work: bool = False,
    version: object = None,
    parts: Mapping[str, Any] | None = None,
    request_limits: Mapping[str, int] | None = None,
) -> Application:
    """A deployment of the size in `config`. `by_work`: scaled by queued denoising, else by requests.

    `version` is everything that a running replica cannot change, by default `args`. `parts` are further arguments, which do
    not count for the version. `request_limits` replace those of `config`.
    """
    pinned = json.dumps([careedit.__version__, kind.__name__, version or args], sort_keys=True)
    deployment: Any = serve.deployment(kind)
    deployment = deployment.options(
        name=name,
        user_config=None if user_config is None else dict(user_config),
        ray_actor_options={
            "num_cpus": config.num_cpus,
            "num_gpus": config.num_gpus,
            "resources": dict(config.resources),
        },
        **(request_limits or _request_limits(config)),
        graceful_shutdown_timeout_s=config.graceful_shutdown_s,
        health_check_period_s=config.health_check_period_s,
        health_check_timeout_s=config.health_check_timeout_s,
        max_constructor_retry_count=3,
        **_size(config.scaling, by_work),
    )
    # Through Ray's public API every deployment gets a new version each time, so `serve.run` would replace every replica.
    deployment = deployment.options(version=hashlib.sha256(pinned.encode()).hexdigest()[:16], _internal=True)
    bound: Application = deployment.bind(*args, **(parts or {}))
    return bound


def _request_limits(config: DeploymentConfig) -> dict[str, int]:
    return {
        "max_ongoing_requests": config.max_ongoing_requests,
        "max_queued_requests": config.max_queued_requests,
    }


def _size(scaling: Scaling, by_work: bool) -> dict[str, Any]:
    if scaling.min_replicas == scaling.max_replicas:
        return {"num_replicas": scaling.max_replicas}
    options: dict[str, Any] = {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "target_ongoing_requests": scaling.target_ongoing_requests,
        "upscale_delay_s": scaling.upscale_delay_s,
        "downscale_delay_s": scaling.downscale_delay_s,
    }
    if by_work:
        options["policy"] = {
            "policy_function": f"{StepSecondsPolicy.__module__}:{StepSecondsPolicy.__name__}",
            "policy_kwargs": {"target_seconds": scaling.target_step_seconds},
        }
    return {"autoscaling_config": options}
