"""Sets that a registry names: looked up through an entry point, which the library alone does not have."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from careedit import plugins
from careedit.errors import ExpertError, InputError
from careedit.experts import load_expert_set
from careedit.experts.set import resolve


def looked_up(name: str) -> str:
    """A registry that knows one set."""
    if name != "shelf:/mine@best":
        raise InputError(f"{name} does not exist; name another.")
    return "tiny"


@pytest.fixture
def shelf(monkeypatch):
    """An installation with such a registry."""

    def use(value: str) -> None:
        entry, found = EntryPoint("shelf", value, plugins.SET_SCHEMES), plugins.metadata.entry_points
        monkeypatch.setattr(
            plugins.metadata,
            "entry_points",
            lambda **wanted: [entry] if wanted.get("name") == "shelf" else found(**wanted),
        )

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return use


def test_a_registrys_name_gives_its_set(shelf):
    shelf(f"{Path(__file__).stem}:looked_up [eval]")
    assert load_expert_set("shelf:/mine@best").sha256 == load_expert_set("tiny").sha256
    with pytest.raises(InputError, match="shelf:/other does not exist; name another"):
        load_expert_set("shelf:/other")


@pytest.mark.parametrize("name", ["tiny", "/sets/mine", "s3://bucket/set", "memory://x"])
def test_any_other_name_stays_as_it_is(shelf, name):
    shelf("nowhere:nothing")
    assert resolve(name) == name


def test_what_a_registry_lacks_is_a_sentence(shelf):
    shelf("no_such_registry:find [eval]")
    with pytest.raises(
        ExpertError, match=r"needs the package 'no_such_registry', .* with: pip install 'careedit\[eval\]'"
    ):
        load_expert_set("shelf:/mine@best")


def test_an_installation_without_a_registry_says_that_it_is_not_a_set(monkeypatch):
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda **_: [])
    with pytest.raises(ExpertError, match="'models:/tiny@champion' is not an expert set"):
        load_expert_set("models:/tiny@champion")
