"""What a learned router is, apart from its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from careedit.errors import ManifestError
from careedit.files import write_atomic
from careedit.record import BaseRecord, error_sentence

CONFIG_FILE, WEIGHTS_FILE = "router.json", "router.safetensors"
"""The two files of a learned router, side by side in one folder."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RouterConfig(BaseRecord):
    """Shape, labels and calibration of a learned router; the content of `router.json`."""

    format_version: Literal[1] = 1
    """Version of this file's format."""
    experts: Annotated[tuple[str, ...], Field(min_length=1)]
    """The experts it tells apart, in the order of its logits."""
    encoder_width: Annotated[int, Field(ge=1)]
    """Width of the encoder's tokens."""
    visual_tokens: Annotated[int, Field(ge=1)]
    """Visual tokens per picture."""
    text_tokens: Annotated[int, Field(ge=2)] = 77
    """Text tokens it has positions for; later ones are dropped."""
    width: Annotated[int, Field(ge=8)] = 128
    """Its own width."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Transformer layers."""
    heads: Annotated[int, Field(ge=1)] = 8
    """Attention heads per layer."""
    temperature: Positive = 1.0
    """Divides the expert logits (fitted on validation edits)."""
    feasible_temperature: Positive = 1.0
    """Divides the feasibility logit (fitted likewise)."""
    feasible_threshold: Share = 0.0
    """An instruction less feasible than this is answered as one that does not apply to the picture."""
    confidence_threshold: Share = 0.0
    """Where the best expert is less probable than this, the base edits alone."""
    least_share: Share = 0.05
    """What an expert weighs at least in a mixture, as a share of the first: each costs an evaluation per step."""

    def save(self, path: Path) -> None:
        """Write as JSON, through a temporary name."""
        write_atomic(path, f"{self.model_dump_json(indent=1)}\n".encode())

    @classmethod
    def load(cls, path: Path) -> RouterConfig:
        """Read what `save` wrote; raises `ManifestError`."""
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except OSError as error:
            raise ManifestError(f"The router's {path.name} cannot be read ({error.strerror}); restore it.") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ManifestError(f"The router's {path.name} is not JSON; restore it.") from error
        except ValidationError as error:
            raise ManifestError(error_sentence(error, f"The router's {path.name}")) from error
