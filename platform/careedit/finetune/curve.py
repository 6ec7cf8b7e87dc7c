"""The loss curve of a finished run as an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from careedit.errors import CareEditError
from careedit.files import atomic_path
from careedit.finetune.loop import TrainReport

CURVE_SUFFIX = ".png"
"""Suffix of the curve next to a report: NAME.json has NAME.png."""


def draw_curve(report: TrainReport, path: Path) -> None:
    """Write the loss over the steps as a PNG. Each point is the mean since the point before.

    Raises `CareEditError` if matplotlib is missing or the file cannot be written.
    """
    figure_class = _figure()
    figure = figure_class(figsize=(6.4, 3.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    steps, losses = zip(*report.curve, strict=True) if report.curve else ((), ())
    axes.plot(steps, losses, linewidth=1.4, marker="o" if len(steps) < 12 else None, markersize=3)
    if losses and min(losses) > 0 and max(losses) > 20 * min(losses):
        axes.set_yscale("log")
    axes.set(title=report.name, xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    try:
        with atomic_path(path) as temporary:
            # Without date and version in its metadata, the same curve gives the same file.
            figure.savefig(temporary, format="png", metadata={"Software": None})
    except OSError as error:
        raise CareEditError(f"The loss curve {path} cannot be written ({error}); free some space and rerun.") from error


def save_report(report: TrainReport, path: Path) -> Path:
    """Write a report, and next to it its loss curve. Returns the curve's path."""
    try:
        report.save(path)
    except OSError as error:
        raise CareEditError(f"The report {path} cannot be written ({error}); free some space and rerun.") from error
    curve = path.with_suffix(CURVE_SUFFIX)
    draw_curve(report, curve)
    return curve


def check_curve() -> None:
    """Raises `CareEditError` if matplotlib is missing. Call it before a training of hours."""
    _figure()


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: F401 - Figure.savefig uses it
        from matplotlib.figure import Figure
    except ImportError:
        raise CareEditError(
            "The loss curve needs matplotlib; install it with: pip install 'careedit[train]'."
        ) from None
    return Figure
