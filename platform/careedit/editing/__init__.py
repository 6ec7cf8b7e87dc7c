"""Editing: one denoising loop over diffusers' components, one explicit state per edit."""

from careedit.editing.base_model import EditorBase, load_base
from careedit.editing.cache import EncodingCache
from careedit.editing.engine import DEFAULT_GUIDANCE, Engine
from careedit.editing.state import EditJob, EditState, OnSteps, Start, Stepper, in_context_prompt

__all__ = [
    "DEFAULT_GUIDANCE",
    "EditJob",
    "EditState",
    "EditorBase",
    "EncodingCache",
    "Engine",
    "OnSteps",
    "Start",
    "Stepper",
    "in_context_prompt",
    "load_base",
]
