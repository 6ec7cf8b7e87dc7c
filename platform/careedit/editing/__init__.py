"""Editing: one denoising loop over diffusers' components, one explicit state per edit."""

from careedit.editing.base_model import load_base, load_prompt_encoder
from careedit.editing.cache import EncodingCache
from careedit.editing.engine import Engine
from careedit.editing.families import FAMILIES, Family, FluxFill, Prompt, PromptEncoder, in_context_prompt
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
    "Prompt",
    "PromptEncoder",
    "Start",
    "Stepper",
    "in_context_prompt",
    "load_base",
    "load_prompt_encoder",
    "warm_up",
]
