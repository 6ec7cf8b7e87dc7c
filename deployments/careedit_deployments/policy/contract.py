"""What a check of the content policy gets and what it answers. Your own check needs this module only.

A configuration names a function, `package.module:function`. It is called once, with the check's `options`, and returns the
check: a function, or an object with `__call__`, that takes a `PolicyInput` and returns a `Verdict`. A plain function runs in a
thread and may block. An `async` function runs in the server's event loop and must not block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from careedit.record import Record
from careedit_deployments.checks import Moderation, Stage

REASON = 300
"""Maximum length of a reason, in characters."""


class PolicyPicture(Record):
    """A picture that a check looks at."""

    role: Literal["source", "reference", "mask", "result"]
    """What the picture is in the edit."""
    picture: Image.Image
    """The decoded picture, as the edit uses it. Do not change it."""
    file_sha256: str | None = None
    """sha256 of the file that the client sent, in hexadecimal. None: this server made the picture, or stores it without the
    file's metadata, as in a session."""


class PolicyInput(Record):
    """What a check decides about: the input of an edit, or one of its results."""

    stage: Stage
    """"input": words and pictures, before routing; "output": one result or preview, with the words."""
    level: Moderation
    """The request's `moderation`; "auto" if it has none."""
    instruction: str
    """What the client asks for, in its own words."""
    pictures: tuple[PolicyPicture, ...]
    """Source, references and mask, or the one result."""
    edit: str
    """Id of the edit, for your logs."""
    tenant: str
    """Id of the tenant that asks."""


class Verdict(Record):
    """The answer of a check."""

    verdict: Literal["allow", "refuse", "mark"]
    """"allow": go on; "refuse": the edit ends; "mark": go on, and the answer says so."""
    reason: Annotated[str, Field(max_length=REASON)] = ""
    """A sentence for the client that says why; for "refuse" and "mark". Empty by default: a general sentence is sent."""


ALLOW = Verdict(verdict="allow")
"""The verdict of a check that has nothing against it."""

Check = Callable[[PolicyInput], Verdict | Awaitable[Verdict]]
"""A check, as the configured function returns it."""


class PolicyMark(Record):
    """A check that let an edit pass and marked it."""

    check: str
    """Name of the check, as the server's configuration gives it."""
    stage: Stage
    """What was marked: the input, or the result."""
    image: int | None = None
    """Index of the marked result; null if the input was marked."""
    reason: str
    """The sentence with which the check marked it."""
