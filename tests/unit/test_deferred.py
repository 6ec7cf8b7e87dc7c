"""Deferred modules: an import loads nothing, the first use loads them whole."""

from __future__ import annotations

import importlib
import sys

import pytest

from careedit import deferred


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """The names of what was executed of a deferred package and its submodule."""
    folder = tmp_path / "afterwards"
    folder.mkdir()
    note = "from what_was_loaded import LOADED\nLOADED.append(__name__)\n"
    (tmp_path / "what_was_loaded.py").write_text("LOADED = []\n")
    (folder / "__init__.py").write_text(note + "from . import part\nvalue = 7\n")
    (folder / "part.py").write_text(note + "value = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(deferred, "NAMES", ("afterwards",))
    yield importlib.import_module("what_was_loaded").LOADED
    for name in ("afterwards", "afterwards.part", "what_was_loaded"):
        sys.modules.pop(name, None)


def test_an_import_loads_nothing_and_the_first_use_loads_it_once(loaded):
    module = importlib.import_module("afterwards")
    assert importlib.util.find_spec("afterwards") is module.__spec__
    assert loaded == []
    assert (module.value, module.part.value) == (7, 8)
    assert importlib.import_module("afterwards") is module
    assert loaded == ["afterwards", "afterwards.part"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_the_import_of_a_part_loads_the_whole(loaded):
    importlib.import_module("afterwards")
    assert importlib.import_module("afterwards.part").value == 8
    assert loaded == ["afterwards", "afterwards.part"]


def test_a_module_that_cannot_be_loaded_says_so_at_each_use(loaded, tmp_path):
    (tmp_path / "afterwards/part.py").write_text("raise RuntimeError('no library')\n")
    module = importlib.import_module("afterwards")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no library"):
            _ = module.value
