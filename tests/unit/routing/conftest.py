"""Experts as routers see them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Expert:
    """The three fields of a manifest that routing reads."""

    name: str
    competence: str
    handles: tuple[str, ...] = ()


@pytest.fixture(scope="session")
def make_expert():
    return Expert


@pytest.fixture(scope="session")
def experts():
    """One expert per competence."""
    return [Expert(name, name) for name in ("erase", "compose", "style", "identity", "reference")]
