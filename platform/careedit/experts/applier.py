"""Choosing how a set's experts are applied."""

from __future__ import annotations

from torch import nn

from careedit.experts.base import Application, ExpertApplier
from careedit.experts.library import AdapterLibrary
from careedit.experts.merged import MergedApplier
from careedit.experts.shared import SharedApplier


def make_applier(
    transformer: nn.Module, library: AdapterLibrary, application: Application, *, byte_budget: int | None = None
) -> ExpertApplier:
    """An applier that owns `transformer` and takes experts from `library`, e.g. an `ExpertSet`.

    `byte_budget` bounds the adapters held at once; None holds every one that was used.
    """
    kind = MergedApplier if application == "merged" else SharedApplier
    return kind(transformer, library, byte_budget=byte_budget)
