"""Finds metrics by the names that suites use. The module of a metric, with its models, is imported only when it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from careedit import plugins
from careedit.errors import InputError
from careedit.record import Record
from careedit_eval.errors import MetricError
from careedit_eval.metrics import options
from careedit_eval.records import Metric

Build = Callable[[Any], Metric]
"""Builds a metric from its options record."""

METRICS: Mapping[str, tuple[type[Record], str]] = {
    "clip_i": (options.ClipImageOptions, "similarity:clip_i"),
    "clip_t": (options.ClipTextOptions, "similarity:clip_t"),
    "clip_direction": (options.ClipDirectionOptions, "similarity:clip_direction"),
    "dino": (options.DinoOptions, "similarity:dino"),
    "l1": (options.PixelOptions, "pixels:l1"),
    "l2": (options.PixelOptions, "pixels:l2"),
    "psnr": (options.PixelOptions, "pixels:psnr"),
    "ssim": (options.SsimOptions, "pixels:ssim"),
    "lpips": (options.LpipsOptions, "lpips:lpips"),
    "identity": (options.IdentityOptions, "identity:identity"),
    "preservation": (options.NoOptions, "pixels:preservation"),
    "vqa": (options.JudgeOptions, "judged:vqa"),
    "atomic": (options.JudgeOptions, "judged:atomic"),
    "pairwise": (options.JudgeOptions, "judged:pairwise"),
    "viescore": (options.JudgeOptions, "marking:viescore"),
    "pvc": (options.PreferenceOptions, "preferred:pvc"),
    "editreward": (options.RewardOptions, "reward:editreward"),
    "rubric": (options.RubricOptions, "marking:rubric"),
    "vqascore": (options.VqaScoreOptions, "vqascore:vqascore"),
    "no_op": (options.NoOpOptions, "restraint:no_op"),
    "refusal": (options.RefusalOptions, "restraint:refusal"),
    "latency": (options.NoOptions, "counted:latency"),
    "nfe": (options.NoOptions, "counted:nfe"),
    "cost": (options.CostOptions, "counted:cost"),
}
"""careedit's own metrics: the record of the options, and "module:function" that builds the metric from it."""


def metric_names() -> tuple[str, ...]:
    """The names that a suite may use: careedit's metrics and those of installed packages."""
    return (*METRICS, *plugins.names(plugins.METRICS))


def find_metric(name: str) -> tuple[type[Record], Build]:
    """The options record and the builder of a metric. Raises `InputError` for an unknown name."""
    if name in METRICS:
        config, place = METRICS[name]
        module, _, function = place.partition(":")
        return config, getattr(import_module(f"careedit_eval.metrics.{module}"), function)
    found: tuple[type[Record], Build] | None = plugins.load(plugins.METRICS, name, error=MetricError)
    if found is None:
        raise InputError(f"The metric {name!r} does not exist; choose from {', '.join(metric_names())}.")
    return found


def load_metric(name: str, /, **options: Any) -> Metric:
    """A metric by its name and options, its model loaded; models are shared. Raises `InputError` or `MetricError`."""
    config, build = find_metric(name)
    return build(config(**options))
