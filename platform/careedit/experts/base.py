"""How the denoising loop sees experts: a batch of rows, each naming the expert that computes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from careedit.records import BASE, unknown_expert

Application = Literal["merged", "shared"]
"""How adapters reach the base: folded into its weights, or beside them with a choice per row."""


@runtime_checkable
class ExpertApplier(Protocol):
    """Runs the base's transformer with an expert per row of the batch."""

    @property
    def kind(self) -> Application:
        """How this applier applies adapters."""
        ...

    def velocity(self, rows: Sequence[str], inputs: Mapping[str, Any]) -> Tensor:
        """The transformer's output, row i computed by expert `rows[i]` (`BASE`: by no expert).

        `inputs` are the keyword arguments of `FluxTransformer2DModel.forward` for a batch of `len(rows)` rows; a tensor
        in it is per row where its first dimension is the batch, except `img_ids` and `txt_ids` (2-D, shared by all
        rows); None where the base takes no guidance. Returns the velocity, shape [rows, tokens, channels].
        Every name must be leased (`lease`) by the caller; an expert that the set lacks raises `UnknownExpertError`.
        """
        ...

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Loads the named experts and keeps them loaded until the context ends; `BASE` needs no loading."""
        ...


class NoExperts:
    """The applier of a base without experts: every row must be `BASE`."""

    kind: Literal["merged"] = "merged"
    """With nothing to apply, the weights are the base's own, as in merged application."""

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer

    def velocity(self, rows: Sequence[str], inputs: Mapping[str, Any]) -> Tensor:
        """The base's velocity, shape [rows, tokens, channels]."""
        self._check(rows)
        return cast(Tensor, self.transformer(**{**inputs, "return_dict": False})[0])

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Nothing to load; a name other than `BASE` raises `UnknownExpertError`."""
        self._check(names)
        return nullcontext()

    @staticmethod
    def _check(names: Iterable[str]) -> None:
        for name in names:
            if name != BASE:
                raise unknown_expert(name, ())
