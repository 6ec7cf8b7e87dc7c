"""What several training tests load."""

import pytest

from careedit_tiny.models.family import build_pipeline
from careedit_tiny.recipes.base.items import corpus


@pytest.fixture(scope="session")
def corpus_pipeline():
    """An untrained pipeline whose tokenizers know the corpus; shared, so do not change its weights."""
    return build_pipeline(corpus())
