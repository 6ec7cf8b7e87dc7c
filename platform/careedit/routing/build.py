"""Routers by name: the options of each kind in an expert set's file, and the registry that builds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field

from careedit.errors import CareEditError, InputError, ManifestError
from careedit.loading import quick_imports
from careedit.record import Record
from careedit.routing.base import FixedRouter, RoutableExpert, Router
from careedit.routing.rules import RulesRouter

RouterFactory = Callable[[Sequence[RoutableExpert], Mapping[str, Any]], Router]
"""Makes a router for the experts of a set, from the options in the set's file."""

_FACTORIES: dict[str, RouterFactory] = {}


def register_router(kind: str) -> Callable[[RouterFactory], RouterFactory]:
    """Decorates the factory that `build_router` calls for `kind`."""

    def register(factory: RouterFactory) -> RouterFactory:
        if kind in _FACTORIES:
            raise CareEditError(f"A router {kind!r} is registered already; give yours another name.")
        _FACTORIES[kind] = factory
        return factory

    return register


def router_kinds() -> tuple[str, ...]:
    """The kinds that `build_router` knows, sorted."""
    return tuple(sorted(_FACTORIES))


def build_router(kind: str, *, experts: Sequence[RoutableExpert], options: Mapping[str, Any] | None = None) -> Router:
    """The router of an expert set: `kind` and `options` from its file, `experts` in its order.

    Raises `ManifestError` for an unknown kind or unusable options, `UnknownExpertError` if the options name an expert
    that the set lacks.
    """
    if kind not in _FACTORIES:
        raise ManifestError(f"The router {kind!r} does not exist; the known ones are {', '.join(router_kinds())}.")
    return _FACTORIES[kind](experts, options or {})


OptionsT = TypeVar("OptionsT", bound=Record)


def read_options(kind: str, record: type[OptionsT], options: Mapping[str, Any]) -> OptionsT:
    """`options` as `record`. Raises `ManifestError` for options that the record does not accept."""
    try:
        return record(**options)
    except InputError as error:
        raise ManifestError(f"The options of the router {kind!r} cannot be used: {error}") from None


class FixedOptions(Record):
    """Options of the fixed router in an expert set's file."""

    expert: str | dict[str, float]
    """What every edit uses: a name, "base" for no expert, or a weight per name."""


class RulesOptions(Record):
    """Options of the rules router in an expert set's file."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Divides the scores before the softmax: above 1, probabilities and mixtures become more even."""


class TransformerOptions(Record):
    """Options of the learned router, files and folders as paths on this machine.

    An expert set's file names them with their hashes, `{file: router/router.json, sha256: ...}` and `{folder: clip, sha256:
    ...}`; `careedit.experts.router_options` checks the hashes and replaces each entry by its path.
    """

    config: str = Field(min_length=1)
    """Path of the router's `router.json`."""
    weights: str = Field(min_length=1)
    """Path of the router's `router.safetensors`."""
    encoder: str = Field(min_length=1)
    """The encoder: a folder in open_clip's hub layout, an open_clip architecture, or "hf-hub:organisation/name"."""
    pretrained: str | None = None
    """The tag of the encoder's weights, which an architecture needs."""


@register_router("fixed")
def _fixed(experts: Sequence[RoutableExpert], options: Mapping[str, Any]) -> FixedRouter:
    return FixedRouter(read_options("fixed", FixedOptions, options).expert, experts)


@register_router("rules")
def _rules(experts: Sequence[RoutableExpert], options: Mapping[str, Any]) -> RulesRouter:
    return RulesRouter(experts, temperature=read_options("rules", RulesOptions, options).temperature)


@register_router("transformer")
def _transformer(experts: Sequence[RoutableExpert], options: Mapping[str, Any]) -> Router:
    chosen = read_options("transformer", TransformerOptions, options)
    with quick_imports():  # here: it imports torch and the encoder's library
        from careedit.routing.transformer import load_router

    return load_router(
        chosen.config, chosen.weights, experts=experts, encoder=chosen.encoder, pretrained=chosen.pretrained
    )
