"""The learned router: two transformer layers over the tokens of pictures, words and conditions. Needs torch."""

from careedit.routing.transformer.batch import RouterBatch, collate
from careedit.routing.transformer.calibration import (
    Bin,
    calibration_bins,
    calibration_error,
    fit_temperature,
    largest_threshold,
)
from careedit.routing.transformer.config import CONFIG_FILE, WEIGHTS_FILE, RouterConfig
from careedit.routing.transformer.losses import load_balance, top_k_weights
from careedit.routing.transformer.model import RouterLogits, RouterModel
from careedit.routing.transformer.router import TransformerRouter, load_router, save_router

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Bin",
    "RouterBatch",
    "RouterConfig",
    "RouterLogits",
    "RouterModel",
    "TransformerRouter",
    "calibration_bins",
    "calibration_error",
    "collate",
    "fit_temperature",
    "largest_threshold",
    "load_balance",
    "load_router",
    "save_router",
    "top_k_weights",
]
