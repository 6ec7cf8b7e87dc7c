"""`Credit`: what the Content Credentials of a result say about its edit."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from careedit.record import Record


class Credit(Record):
    """What made a picture; the assertion `org.careedit.edit`. It holds no words and no name of a user."""

    version: int = 1
    """Version of this format; always 1."""
    edit: str
    """Id of the edit, which feedback and the log of edits use."""
    model: str
    """Name of the base model that made the picture, as the expert set states it."""
    model_licence: str | None = None
    """Licence of the base model, as `careedit.experts.licence` finds it; None: it is not known."""
    expert_set: str
    """Name of the expert set."""
    expert_set_sha256: str
    """Hash of the expert set: base, experts, router and defaults."""
    experts: Mapping[str, float]
    """Weight of each expert of the edit, by name; "base" is the base without an expert."""
    licences: Mapping[str, str] = Field(default_factory=dict)
    """Licence of each of these experts, by name, as its manifest states it. The base alone has none here."""
