"""Example edits for benchmarks, demos and pages: requests with a known right result.

Packages provide them through the entry-point group `careedit.samples`; `careedit_tiny` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from PIL import Image

from careedit import plugins
from careedit.errors import InputError
from careedit.records import EditRequest


@dataclass(frozen=True, eq=False)
class SampleEdit:
    """One example edit."""

    kind: str
    """The kind of edit, such as "remove" or "style"."""
    request: EditRequest
    """The request that a user would send, with seed 0 and the router's choice of experts."""
    target: Image.Image
    """The right result, RGB, in the size of the request's image."""


class DrawSamples(Protocol):
    """A provider of example edits that no model was trained on."""

    def __call__(
        self, count: int, *, side: int, first: int = 0, kinds: Sequence[str] | None = None, plain: bool = False
    ) -> list[SampleEdit]:
        """`count` edits of `side` x `side` pixels, the kinds in turn, from number `first` of each kind.

        `kinds` limits the kinds (default: all); `plain` leaves out kinds with a mask or a reference. Equal arguments
        give equal edits.
        """


def draw_samples(
    count: int, *, side: int, first: int = 0, kinds: Sequence[str] | None = None, plain: bool = False
) -> list[SampleEdit]:
    """Example edits of the first installed provider; see `DrawSamples`. Raises `InputError` if no package provides any."""
    for name in plugins.names(plugins.SAMPLES):
        draw = cast(DrawSamples, plugins.load(plugins.SAMPLES, name, error=InputError))
        return draw(count, side=side, first=first, kinds=kinds, plain=plain)
    raise InputError("No installed package provides example edits; install careedit with its tiny family.")
