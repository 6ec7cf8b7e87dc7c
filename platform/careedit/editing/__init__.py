"""Editing: one denoising loop over diffusers' components, one explicit state per edit."""

from careedit.editing.base_model import load_base
from careedit.editing.cache import EncodingCache
from careedit.editing.engine import Engine
from careedit.editing.families import FAMILIES, Family, FluxFill, in_context_prompt
from careedit.editing.job import EditJob, Start
from careedit.editing.state import EditState, OnSteps, Stepper
from careedit.editing.warm_up import warm_up

__all__ = [
    "FAMILIES",
    "EditJob",
    "EditState",
    "EncodingCache",
    "Engine",
    "Family",
    "FluxFill",
    "OnSteps",
    "Start",
    "Stepper",
    "in_context_prompt",
    "load_base",
    "warm_up",
]
