"""What several training tests load."""

from __future__ import annotations

import pytest
from diffusers import FluxFillPipeline

from careedit_tiny.models.family import build_pipeline
from careedit_tiny.recipes.base.items import corpus


@pytest.fixture(scope="session")
def corpus_pipeline() -> FluxFillPipeline:
    """An untrained pipeline whose tokenizers know the corpus; shared, so do not change its weights."""
    return build_pipeline(corpus())
