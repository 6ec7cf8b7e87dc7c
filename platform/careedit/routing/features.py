"""What a router sees of an edit: words and conditions at once, token tensors on request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from careedit.errors import InputError
from careedit.images import mask_share
from careedit.language import words_of
from careedit.records import EditRequest

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the picture's sides, 0 to 1; right and bottom are exclusive."""

CONDITIONS = ("mask_present", "mask_area", "reference_present")
"""The condition tokens, in order."""


class Encoder(Protocol):
    """Turns pictures and text into tokens of one width: a CLIP model, usually. It may cache."""

    @property
    def width(self) -> int:
        """The width d of every token."""
        ...

    def visual_tokens(self, image: Image.Image) -> Tensor:
        """Tokens of an RGB picture of any size, [Nv, d]; Nv is the same for every picture."""
        ...

    def text_tokens(self, text: str) -> Tensor:
        """Tokens of a text, [Nt, d], without padding; Nt depends on the text's length."""
        ...


@dataclass(frozen=True, eq=False)
class RouterTokens:
    """The input of a learned router for one edit, without a batch dimension; all on the encoder's device."""

    source: Tensor
    """Visual tokens of the source, [Nv, d]."""
    reference: Tensor | None
    """Visual tokens of the reference, [Nv, d]; None without one."""
    text: Tensor
    """Text tokens of the instruction, [Nt, d]."""
    conditions: tuple[float, ...]
    """One number per name in `CONDITIONS`, each 0 to 1; the router projects each to a token of width d."""


@dataclass(frozen=True, eq=False)
class RoutingFeatures:
    """One edit as a router sees it."""

    instruction: str
    """The instruction, as the user wrote it."""
    source: Image.Image | None = None
    """The source, RGB, at its own size; only the learned router needs it."""
    references: tuple[Image.Image, ...] = ()
    """The references, RGB, at their own sizes."""
    mask_area: float = 0.0
    """Share of the picture that the mask marks for editing, 0 to 1; 0 without a mask."""
    mask_bbox: Box | None = None
    """The box around the area that the mask marks; None without a mask."""
    turn: int = 0
    """Index of this turn in a multi-turn edit, 0 for the first."""

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The instruction's words, normalised (`careedit.language.normalise`)."""
        return words_of(self.instruction)

    @property
    def has_mask(self) -> bool:
        """Whether the user gave a mask."""
        return self.mask_bbox is not None

    @property
    def has_reference(self) -> bool:
        """Whether the user gave a reference picture."""
        return bool(self.references)

    @property
    def conditions(self) -> tuple[float, ...]:
        """One number per name in `CONDITIONS`, each 0 to 1."""
        return (float(self.has_mask), self.mask_area, float(self.has_reference))

    @property
    def picture(self) -> Image.Image:
        """The source; raises `InputError` if these features were made without one."""
        if self.source is None:
            raise InputError("These routing features hold no source picture; make them with features_of(request).")
        return self.source

    def tokens(self, encoder: Encoder) -> RouterTokens:
        """The learned router's input: visual tokens of source and reference, text tokens, conditions.

        Encodes on each call. Raises `InputError` if these features were made without a source.
        """
        return RouterTokens(
            source=encoder.visual_tokens(self.picture),
            reference=encoder.visual_tokens(self.references[0]) if self.references else None,
            text=encoder.text_tokens(self.instruction),
            conditions=self.conditions,
        )


def features_of(request: EditRequest, *, turn: int = 0) -> RoutingFeatures:
    """The features of a request; `turn` is the number of earlier edits of its picture."""
    area, box = 0.0, None
    if request.mask is not None:
        # The threshold of `mask_share`, so that area and box describe the same pixels.
        bounds = request.mask.point(lambda value: 255 if value >= 128 else 0).getbbox()
        if bounds is not None:
            width, height = request.mask.size
            area = mask_share(request.mask)
            box = (bounds[0] / width, bounds[1] / height, bounds[2] / width, bounds[3] / height)
    return RoutingFeatures(
        instruction=request.instruction,
        source=request.image,
        references=request.references,
        mask_area=area,
        mask_bbox=box,
        turn=turn,
    )
