"""The policy of a tenant, applied to an edit: what it may use, how much, and what the edit may be used for.

`EditService.start` applies it to every edit before it is routed, also to a job when it runs. The HTTP layer asks here as well
for what it can refuse before it decodes an image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from careedit.language import listed
from careedit.records import BASE, RoutingDecision
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.assignment import choose_arm, shadows_of
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.errors import NotFoundError, TenantPolicyError, TooExpensiveError
from careedit_deployments.listening import Limits
from careedit_deployments.state.records import ANONYMOUS
from careedit_deployments.state.tenant_policy import Purpose, TenantPolicy


def limits_under(limits: Limits, policy: TenantPolicy) -> Limits:
    """The limits of a request of a tenant. The pixels of all images of a request together stay as they are."""
    together = {"request_pixels": limits.max_request_pixels, "result_pixels": limits.max_result_pixels}
    own = {
        "pixels": min(limits.pixels, policy.pixels or limits.pixels),
        "images": min(limits.images, policy.images or limits.images),
    }
    return limits.model_copy(update=together | own)


def check_region(policy: TenantPolicy, region: str | None) -> None:
    """Raise `TenantPolicyError` if the tenant is bound to another region than that of this server."""
    if policy.region is not None and policy.region != region:
        here = "has no configured region" if region is None else f"is in {region!r}"
        raise TenantPolicyError(
            f"Your tenant is bound to the region {policy.region!r} and this server {here}; send the request to a server of "
            "your region."
        )


def check_order(config: ServeConfig, policy: TenantPolicy, order: EditOrder) -> Limits:
    """Check an order before anything is done for it, and return the limits for it.

    Raises `TenantPolicyError`, and `TooExpensiveError` for an image with too many pixels.
    """
    check_region(policy, config.region)
    limits = limits_under(config.limits, policy)
    _check_experts(policy, order.request.expert)
    _check_pictures(limits, order)
    return limits


def _check_experts(policy: TenantPolicy, expert: str | Mapping[str, float]) -> None:
    names = () if expert == "auto" else (expert,) if isinstance(expert, str) else tuple(expert)
    closed = next((name for name in names if not policy.allows_expert(name)), None)
    if closed is not None:
        raise TenantPolicyError(
            f"Your tenant may not use the expert {closed!r}; GET /v1/experts lists those that it may use.",
            field="expert",
        )


def _check_pictures(limits: Limits, order: EditOrder) -> None:
    # Images that a client sends are checked before they are decoded; a job's tenant may have another policy since then.
    request = order.request
    sizes = {"image": request.image.size, "size": order.result_size or request.image.size}
    sizes |= {f"image[{i}]": picture.size for i, picture in enumerate(request.references, 1)}
    for field, (width, height) in sizes.items():
        if width * height > limits.pixels:
            raise TooExpensiveError(
                f"{field} has {width}x{height} = {width * height:,} pixels; the limit is {limits.pixels:,}, so send a smaller "
                "image or ask for a smaller size.",
                field=field,
            )


def arm_under(
    config: ServeConfig,
    expert_sets: Mapping[str, str],
    policy: TenantPolicy,
    model: str | None,
    user_key: str,
    disabled: Collection[str],
) -> str:
    """The arm for a request, as in `choose_arm`, among those that the tenant may use. Raises `TenantPolicyError` as well."""
    allowed = {name: arm for name, arm in config.arms.items() if policy.allows_arm(name, expert_sets.get(name))}
    try:
        return choose_arm(allowed, expert_sets, model, config.ab_salt, user_key, disabled)
    except NotFoundError as error:
        if policy.models is None or model not in {None, *config.arms, *expert_sets.values()}:
            raise
        what = "any model that takes traffic here" if model is None else f"the model {model!r}"
        raise TenantPolicyError(
            f"Your tenant may not use {what}; GET /v1/models lists those that it may use.",
            field=None if model is None else "model",
        ) from error


def decision_under(policy: TenantPolicy, decision: RoutingDecision) -> RoutingDecision:
    """A router's decision without the experts that the tenant may not use. Without any other, the base edits alone."""
    kept = {name: weight for name, weight in decision.weights.items() if policy.allows_expert(name)}
    closed = [name for name in decision.weights if name not in kept]
    if not closed:
        return decision
    total = sum(kept.values())
    weights = {name: weight / total for name, weight in kept.items()} or {BASE: 1.0}
    reason = f"{decision.reason} The tenant may not use {listed(closed)}, so the edit uses {listed(list(weights))}."
    return decision.model_copy(update={"weights": weights, "reason": reason})


def keeps_source(config: ServeConfig, policy: TenantPolicy, owner: str) -> bool:
    """Whether results keep the Content Credentials of their source: the tenant decides, without a key the configuration."""
    if config.credentials is None or "keep_source" not in policy.purposes:
        return False
    return config.credentials.keep_source or owner != ANONYMOUS


def purposes_of(config: ServeConfig, policy: TenantPolicy, *, owner: str, edit: str, arm: str) -> tuple[Purpose, ...]:
    """What this server may use an edit for: what the tenant allows and the configuration does."""
    copied = "shadow" in policy.purposes and bool(shadows_of(config.arms, config.ab_salt, edit))
    judged = config.scorer.backend != "none" and (copied or config.arms[arm].guard.min_judge_score is not None)
    applies: dict[Purpose, bool] = {
        "shadow": copied,
        "judging": judged,
        "evaluation": True,
        "keep_source": keeps_source(config, policy, owner),
    }
    return tuple(purpose for purpose, does in applies.items() if does and purpose in policy.purposes)


def check_webhook_host(policy: TenantPolicy, url: str) -> None:
    """Raise `TenantPolicyError` if messages about the tenant's jobs may not go to the host of this URL."""
    if policy.webhook_hosts is None:
        return
    try:
        host = urlsplit(url).hostname
    except ValueError:  # not a URL
        host = None
    if host not in policy.webhook_hosts:
        hosts = " or ".join(policy.webhook_hosts) or "no host"
        raise TenantPolicyError(
            f"Messages about jobs of your tenant may go to {hosts}; poll the job, or ask the operator."
        )
