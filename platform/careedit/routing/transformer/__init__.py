"""The learned router: two transformer layers over the tokens of pictures, words and conditions. Needs torch."""

from careedit.routing.transformer.model import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    RouterBatch,
    RouterConfig,
    RouterLogits,
    RouterModel,
    collate,
    pad_texts,
)
from careedit.routing.transformer.router import TransformerRouter, load_model, load_router, save_router
from careedit.routing.transformer.training import (
    Bin,
    calibration_bins,
    calibration_error,
    fit_temperature,
    largest_threshold,
    load_balance,
    top_k_weights,
)

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
    "load_model",
    "load_router",
    "pad_texts",
    "save_router",
    "top_k_weights",
]
