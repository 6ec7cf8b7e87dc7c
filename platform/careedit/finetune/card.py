"""Model cards: what a model is, how it was made and how good it is, as Markdown next to its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from careedit.files import write_atomic
from careedit.finetune.curve import draw_curve
from careedit.finetune.loop import TrainReport

CURVE = "loss.png"
"""File name of the loss curve next to a card."""


@dataclass(frozen=True, slots=True)
class Card:
    """The parts of a card that do not come from the training run."""

    title: str
    """Name of the model, the card's heading."""
    summary: str
    """What the model is and what it is for."""
    recipe: str
    """The command that trained the model."""
    data: str
    """What the model was trained on."""
    quality: Mapping[str, str]
    """Measured figures, by what they measure."""
    limits: Sequence[str]
    """What the model cannot do, one sentence each."""
    history: Sequence[str] = ()
    """How these weights differ from what the recipe makes now, one line each. Default: not at all."""
    compute: str | None = None
    """What the training cost. Default: its minutes on shared CPU cores."""
    curve: str | None = None
    """File name of the loss curve next to the card. Default: no curve is shown."""


def write_card(folder: Path, card: Card, report: TrainReport, *, licence: str) -> None:
    """Write `folder/README.md`, and next to it the loss curve that it shows."""
    draw_curve(report, folder / CURVE)
    text = render(replace(card, curve=CURVE), report, licence=licence)
    write_atomic(folder / "README.md", text.encode("utf-8"))


def render(card: Card, report: TrainReport, *, licence: str) -> str:
    """The card as Markdown, with front matter for model hubs."""
    config = report.config
    stride = max(1, len(report.curve) // 10)
    points = [*report.curve[:-1:stride], report.curve[-1]]
    lines = [
        "---",
        f"license: {licence.lower()}",
        "library_name: careedit",
        "---",
        "",
        f"# {card.title}",
        "",
        card.summary,
        "",
        "## How it was made",
        "",
        f"- Recipe: `{card.recipe}`",
        f"- Data: {card.data}",
        f"- Trained parameters: {report.parameters:,}",
        f"- Steps: {config.steps:,}; seed {config.seed}",
        f"- Peak learning rate {config.learning_rate:g}, moving average of weights {config.ema:g}",
        f"- Compute: {card.compute or _shared_cores(report)}, {_products(report)}",
        *(f"- {line}" for line in card.history),
        "",
        *([f"![Loss over steps]({card.curve})", ""] if card.curve else []),
        "| step | loss |",
        "|---:|---:|",
        *(f"| {step:,} | {loss:.4f} |" for step, loss in points),
        "",
        "## How good it is",
        "",
        *(f"- {what}: {value}" for what, value in card.quality.items()),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in card.limits),
    ]
    return "\n".join(lines) + "\n"


def _products(report: TrainReport) -> str:
    """The number format of a run. Reports from before it was recorded are all of one format."""
    return "bfloat16 autocast" if report.number_format is None else f"products in {report.number_format}"


def _shared_cores(report: TrainReport) -> str:
    return f"{report.seconds / 60:.0f} minutes on CPU cores shared with other work"
