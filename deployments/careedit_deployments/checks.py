"""The content policy in a `ServeConfig`: which checks look at edits, when, and what happens if one does not answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from careedit.errors import InputError
from careedit.record import Record

Moderation = Literal["auto", "low"]
"""Levels of the request field `moderation`."""

Stage = Literal["input", "output"]
"""When a check is asked: before routing, with words and pictures; before a result leaves, with that picture."""


class PolicyCheck(Record):
    """One check of the content policy: Python code, or a service at an address."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    """Name of the check in metrics, logs and the answers' marks; unique in the configuration."""
    use: Annotated[str, Field(min_length=1, max_length=2000)]
    """What decides: "package.module:function", a function that gets `options` and returns the check, or the http(s)
    address of a service."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Arguments of the function, for example the file of a words list. A service gets none. Empty by default."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("input", "output")
    """When the check is asked: "input" (words, source, references, mask) or "output" (each result). Default: both."""
    levels: Annotated[tuple[Moderation, ...], Field(min_length=1)] = ("auto", "low")
    """Values of the request field `moderation` at which the check is asked; default: both, so that a client cannot
    switch it off. ["auto"] lets `moderation: low` skip it."""
    timeout_s: Annotated[PositiveFloat, Field(le=60)] = 5.0
    """Maximum time of one call, in seconds, up to 60; default 5. The edit's own deadline holds too."""
    on_failure: Literal["refuse", "allow"] = "refuse"
    """What happens if the check fails or takes too long. "refuse" (default): the edit ends with status 503. "allow": the
    edit goes on; the failure is counted and logged."""
    concurrency: PositiveInt = 8
    """Maximum number of calls of this check at once in one ingress replica; default 8. Later calls wait."""
    api_key_env: str | None = None
    """Name of the environment variable with the service's key, which is sent as a bearer token. Default: no key."""
    hosts: tuple[str, ...] = ()
    """The service's host, if it is not on the public internet. Empty by default: only public hosts are called."""

    @property
    def is_service(self) -> bool:
        """Whether the check is a service at an address."""
        return self.use.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _check_use(self) -> PolicyCheck:
        if self.is_service and self.options:
            raise InputError(f"The policy check {self.name!r} is a service and gets no options; leave options out.")
        if not self.is_service and (self.api_key_env is not None or self.hosts):
            raise InputError(
                f"api_key_env and hosts of the policy check {self.name!r} belong to a service; leave them out."
            )
        if not self.is_service and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.use):
            raise InputError(
                f"The policy check {self.name!r} uses {self.use[:80]!r}; give package.module:function or an http address."
            )
        return self


class PolicyConfig(Record):
    """The content policy of a server."""

    checks: tuple[PolicyCheck, ...] = ()
    """The checks, in the order in which they are asked; the first refusal ends the edit. Empty by default."""
    previews: Literal["withheld", "checked"] = "withheld"
    """What happens to previews if a check looks at results. "withheld" (default): none is sent, because a result may be
    refused after its previews were seen. "checked": each preview is checked as a result is, and sent if it is allowed."""

    @model_validator(mode="after")
    def _check_names(self) -> PolicyConfig:
        names = [check.name for check in self.checks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"Two policy checks have the name {twice[0]!r}; give each its own name.")
        return self

    @property
    def withholds_previews(self) -> bool:
        """Whether no preview is sent, at any level."""
        return self.previews == "withheld" and any("output" in check.stages for check in self.checks)
