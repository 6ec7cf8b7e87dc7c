"""What a router is, what it needs to know of experts, and the registry that builds one by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from careedit.errors import CareEditError, InputError, ManifestError
from careedit.record import Record
from careedit.records import RoutingDecision
from careedit.routing.features import RoutingFeatures


class RoutableExpert(Protocol):
    """What a router needs to know of an expert; `ExpertManifest` has it."""

    @property
    def name(self) -> str:
        """Unique within the expert set."""
        ...

    @property
    def competence(self) -> str:
        """What it is for, in a word: erase, compose, style, identity, reference, or one of your own."""
        ...

    @property
    def handles(self) -> Sequence[str]:
        """Edit kinds and conditions that it is for, e.g. "remove", "mask"."""
        ...


@runtime_checkable
class Router(Protocol):
    """Chooses the experts of an edit. The same features give the same decision."""

    @property
    def name(self) -> str:
        """The kind it was registered as; `RoutingDecision.router`."""
        ...

    def route(self, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """The experts for one edit, at most `top_k` of them and the weights summing to 1, and why."""
        ...


RouterFactory = Callable[[Sequence[RoutableExpert], Mapping[str, Any]], Router]
"""Makes a router for the experts of a set from the options in the set's file."""

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
        raise ManifestError(f"There is no router {kind!r}; the known ones are {', '.join(router_kinds())}.")
    return _FACTORIES[kind](experts, options or {})


OptionsT = TypeVar("OptionsT", bound=Record)


def read_options(kind: str, record: type[OptionsT], options: Mapping[str, Any]) -> OptionsT:
    """`options` as `record`. Raises `ManifestError` for options that the record does not accept."""
    try:
        return record(**options)
    except InputError as error:
        raise ManifestError(f"The options of the router {kind!r} cannot be used: {error}") from None
