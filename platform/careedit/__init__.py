"""careedit: instruction-based image editing with routed LoRA experts.

    from careedit import EditRequest, load_editor

    editor = load_editor("tiny")
    result = editor.edit(EditRequest(image="photo.png", instruction="remove the red circle"))
    result.save("edited.png")

Names are imported when they are first used, so `import careedit` is quick and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from careedit.editor import Editor, load_editor
    from careedit.errors import (
        AdapterError,
        BaseMismatchError,
        CancelledError,
        CareEditError,
        ExpertError,
        ImageError,
        InputError,
        ManifestError,
        MaskError,
        ReplayError,
        UnknownExpertError,
    )
    from careedit.experts import ExpertManifest, ExpertSet, load_expert_set
    from careedit.records import EarlyFilter, EditRequest, EditResult, EditTrace, RoutingDecision

__version__ = "0.1.0"

__all__ = [
    "AdapterError",
    "BaseMismatchError",
    "CancelledError",
    "CareEditError",
    "EarlyFilter",
    "EditRequest",
    "EditResult",
    "EditTrace",
    "Editor",
    "ExpertError",
    "ExpertManifest",
    "ExpertSet",
    "ImageError",
    "InputError",
    "ManifestError",
    "MaskError",
    "ReplayError",
    "RoutingDecision",
    "UnknownExpertError",
    "load_editor",
    "load_expert_set",
]

_MODULES = {
    "Editor": "editor",
    "load_editor": "editor",
    "ExpertManifest": "experts",
    "ExpertSet": "experts",
    "load_expert_set": "experts",
    "EarlyFilter": "records",
    "EditRequest": "records",
    "EditResult": "records",
    "EditTrace": "records",
    "RoutingDecision": "records",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'careedit' has no attribute {name!r}")
    return getattr(import_module(f"careedit.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
