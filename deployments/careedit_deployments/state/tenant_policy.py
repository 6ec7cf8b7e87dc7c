"""What one tenant may do, and for which purposes its edits may be used. `edits/tenancy.py` applies it."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveInt

from careedit.record import Record
from careedit.records import BASE
from careedit_deployments.config import Name
from careedit_deployments.state.records import ANONYMOUS

Purpose = Literal["shadow", "judging", "evaluation", "keep_source"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
"""What an edit may be used for in addition to the answer: a copy for shadow arms, scores of the judge, exports for an
evaluation, and the source's Content Credentials in the result."""

Host = Annotated[str, Field(pattern=r"^[a-z0-9._:-]{1,253}$")]
"""A host as it stands in a URL, in small letters, without a port."""


class TenantPolicy(Record):
    """What a tenant may do on this server, in addition to the limits of the configuration, which hold for everyone."""

    models: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Arms that the tenant may use, each by its name or by the name of its expert set. Default: all."""
    experts: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Experts that the tenant may use, by name; the base alone is always allowed. Default: all."""
    pixels: PositiveInt | None = None
    """Maximum size of one image that is sent or made, in pixels. Default: `limits.pixels`, which also holds for a larger value."""
    images: PositiveInt | None = None
    """Maximum number of images per request (`n`). Default: `limits.images`, which also holds for a larger value."""
    evaluations_per_day: PositiveInt | None = None
    """Maximum cost of the edits that the tenant starts on one day in UTC, in evaluations of the transformer. Default: no limit."""
    region: Name | None = None
    """Region in which the tenant's images are processed. Servers of other regions refuse them. Default: any server may."""
    webhook_hosts: tuple[Host, ...] | None = None
    """Hosts that messages about the tenant's jobs may go to; an empty list allows none. Default: those that the configuration
    allows."""
    purposes: tuple[Purpose, ...] = ()
    """What the tenant's edits may be used for, as in `PURPOSES`. Default: nothing but the answer."""

    def allows_arm(self, name: str, expert_set: str | None) -> bool:
        """Whether the tenant may use the arm with this name and expert set."""
        return self.models is None or not {name, expert_set}.isdisjoint(self.models)

    def allows_expert(self, name: str) -> bool:
        """Whether the tenant may use an expert, or the base."""
        return self.experts is None or name == BASE or name in self.experts


OPERATOR = TenantPolicy(purposes=PURPOSES)
"""The policy of callers without a key. Their server is its operator's own, so its configuration alone decides."""


def policy_for(owner: str, own: TenantPolicy | None) -> TenantPolicy:
    """The policy that holds for an owner: `OPERATOR` for callers without a key, else the tenant's `own` one or the defaults."""
    return OPERATOR if owner == ANONYMOUS else own or TenantPolicy()
