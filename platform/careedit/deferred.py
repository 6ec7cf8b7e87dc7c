"""Packages that diffusers imports when they are installed, whether they are used or not, are loaded when they are used.

bitsandbytes and scipy.stats take a third of the time in which a process imports diffusers, and few edits need them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

NAMES = ("bitsandbytes", "scipy.stats")
"""The deferred modules; an import of one of them makes an empty module."""
_LOADING = threading.RLock()


class _Deferred(ModuleType):
    """A module that is loaded when an attribute is used. The standard library's `LazyLoader` loads it for `__spec__` too,
    at which peft and each further import look."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None
        with _LOADING:  # other threads wait for the whole module
            if isinstance(deferred := spec.loader, _DeferredLoader):
                self.__loader__ = spec.loader = deferred.loader
                if spec.submodule_search_locations is not None:
                    self.__path__ = spec.submodule_search_locations
                try:
                    deferred.loader.exec_module(self)
                except BaseException:
                    spec.loader = deferred  # the next use says again why it cannot be loaded
                    raise
                object.__setattr__(self, "__class__", ModuleType)
        return ModuleType.__getattribute__(self, name)


class _DeferredLoader(Loader):
    """Makes a `_Deferred` of a module that `loader` can load."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Deferred
        vars(module).pop("__path__", None)  # so that the import of a submodule loads it


class _Kept(Loader):
    """Gives a submodule that its package has loaded. An import of `bitsandbytes.nn` loads bitsandbytes when it looks for the
    package's path, and would then execute the submodule again."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _Finder(MetaPathFinder):
    """Finds the modules of `NAMES`, and their submodules once these are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in NAMES:
            found = PathFinder.find_spec(fullname, path, target)
            if found is not None and found.loader is not None:
                found.loader = _DeferredLoader(found.loader)
            return found
        kept = sys.modules.get(fullname) if target is None and fullname.rpartition(".")[0] in NAMES else None
        return None if kept is None else ModuleSpec(fullname, _Kept(kept))


def defer_imports() -> None:
    """Defer the modules of `NAMES` from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
