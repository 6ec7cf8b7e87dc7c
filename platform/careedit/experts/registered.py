"""Expert sets by another name than their place: `models:/tiny@champion` of a registry.

The library knows no registry. A distribution that does states in the entry-point group `careedit.expert_sets` a function that
turns such a name into a folder or address, under the name's scheme: `models = "package.module:function"`.
"""

from __future__ import annotations

from importlib import metadata

from careedit.errors import ExpertError

GROUP = "careedit.expert_sets"
"""The entry-point group."""


def resolve(ref: str) -> str:
    """Where the set is that `ref` names: its own text, unless its scheme ("models:/...") is a registry's.

    Raises `ExpertError` where the registry's package lacks something, and whatever sentence the registry has to say.
    """
    scheme, slash, _ = ref.partition(":/")
    entries = metadata.entry_points(group=GROUP, name=scheme) if slash else ()
    for entry in entries:
        try:
            look_up = entry.load()
        except ModuleNotFoundError as error:
            extras = f"; install it with: pip install 'careedit[{','.join(entry.extras)}]'" if entry.extras else ""
            raise ExpertError(
                f"{ref!r} cannot be looked up, the package {error.name!r} is missing{extras or '; install it'}."
            ) from error
        return str(look_up(ref))
    return ref
