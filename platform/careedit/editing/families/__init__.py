"""The families of bases: one class per diffusers pipeline, over one interface that the engine uses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from careedit.editing.families.family import Begin, Encoded, Family, Kept, Row, placed
from careedit.editing.families.fill import FluxFill, as_fill, in_context_prompt
from careedit.editing.families.klein import Flux2Klein
from careedit.editing.families.klein_kv import Flux2KleinKV
from careedit.editing.families.kontext import FluxKontext
from careedit.editing.families.longcat import LongCatEdit
from careedit.editing.families.prompts import Prompt, PromptEncoder
from careedit.editing.families.qwen import QwenEditPlus
from careedit.editing.families.sequence import SequenceFamily

FAMILIES: Mapping[str, type[Family]] = MappingProxyType(
    {kind.facts.pipeline: kind for kind in (FluxFill, FluxKontext, Flux2Klein, Flux2KleinKV, QwenEditPlus, LongCatEdit)}
)
"""The class of each family by its pipeline class."""

__all__ = [
    "FAMILIES",
    "Begin",
    "Encoded",
    "Family",
    "Flux2Klein",
    "Flux2KleinKV",
    "FluxFill",
    "FluxKontext",
    "Kept",
    "LongCatEdit",
    "Prompt",
    "PromptEncoder",
    "QwenEditPlus",
    "Row",
    "SequenceFamily",
    "as_fill",
    "in_context_prompt",
    "placed",
]
