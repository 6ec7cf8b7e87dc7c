"""How good a router is on edits that it was not trained on, and the folder and card that a trained router becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from careedit.encoders import OpenClipEncoder
from careedit.finetune.card import Card, write_card
from careedit.finetune.loop import TrainReport
from careedit.finetune.router.fit import predict
from careedit.finetune.router.pool import RouterPool
from careedit.routing.transformer import RouterModel, calibration_error, save_router


@dataclass(frozen=True, slots=True)
class RouterQuality:
    """Quality of a router on a pool. All figures but the count are between 0 and 1."""

    count: int
    """Number of feasible edits in the pool."""
    accuracy_seen: float
    """Share of edits for which the right expert is the most probable one, for phrasings as in training."""
    accuracy_held_out: float
    """The same share for phrasings that training never used."""
    calibration: float
    """Expected calibration error of the most probable expert's probability."""
    infeasible_recall: float
    """Share of infeasible instructions that are recognised."""
    false_alarms: float
    """Share of feasible instructions that are taken for infeasible."""

    def __str__(self) -> str:
        return (
            f"{self.accuracy_seen:.1%} on seen and {self.accuracy_held_out:.1%} on held-out phrasings, calibration error "
            f"{self.calibration:.3f}, infeasible recall {self.infeasible_recall:.1%} at {self.false_alarms:.1%} false "
            f"alarms ({self.count} edits)"
        )


def _share(hits: torch.Tensor) -> float:
    return float(hits.double().mean()) if len(hits) else 1.0


def evaluate(model: RouterModel, encoder: OpenClipEncoder, pool: RouterPool) -> RouterQuality:
    """The router's quality on a pool, with its own temperatures and threshold."""
    logits, config = predict(model, encoder, pool), model.config
    possible = pool.feasible > 0.5
    confidence, chosen = (logits.experts.double() / config.temperature).softmax(dim=-1).max(dim=-1)
    right = chosen == pool.targets.argmax(dim=-1)
    held_out = torch.tensor(pool.held_out)
    alarm = torch.sigmoid(logits.feasible.double() / config.feasible_temperature) < config.feasible_threshold
    return RouterQuality(
        count=int(possible.sum()),
        accuracy_seen=_share(right[possible & ~held_out]),
        accuracy_held_out=_share(right[possible & held_out]),
        calibration=calibration_error(confidence[possible], right[possible]),
        infeasible_recall=_share(alarm[~possible]),
        false_alarms=_share(alarm[possible]),
    )


def by_group(model: RouterModel, encoder: OpenClipEncoder, pool: RouterPool) -> dict[str, float]:
    """Accuracy per group of a pool, by name."""
    right = predict(model, encoder, pool).experts.argmax(dim=-1) == pool.targets.argmax(dim=-1)
    names = sorted(set(pool.groups))
    return {name: _share(right[torch.tensor([group == name for group in pool.groups])]) for name in names}


def save(
    model: RouterModel,
    report: TrainReport,
    folder: Path,
    quality: RouterQuality,
    *,
    licence: str,
    recipe: str,
    data: str,
    extra: dict[str, str] | None = None,
) -> None:
    """Write the router's files and its card to `folder`. `extra` are more figures for the card."""
    save_router(model, folder)
    config = model.config
    card = Card(
        title="careedit router",
        summary=f"Chooses among {', '.join(config.experts)} from picture, words and conditions: {config.layers} layers of "
        f"{config.heads} heads over an encoder's tokens.",
        recipe=recipe,
        data=data,
        quality={
            "Expert of the edit's kind, seen phrasings": f"{quality.accuracy_seen:.1%}",
            "Expert of the edit's kind, held-out phrasings": f"{quality.accuracy_held_out:.1%}",
            "Expected calibration error": f"{quality.calibration:.3f}",
            "Infeasible instructions recognised": f"{quality.infeasible_recall:.1%} at {quality.false_alarms:.1%} false "
            "alarms",
            "Temperature": f"{config.temperature:.3f} for experts, {config.feasible_temperature:.3f} for feasibility",
            "Thresholds": f"feasible {config.feasible_threshold:.3f}, confidence {config.confidence_threshold:.2f}",
            "Test edits": f"{quality.count} feasible ones, from the test split",
            **(extra or {}),
        },
        limits=(
            "Routes edits of the kinds that it was trained on; an expert that it was not taught is never chosen.",
            "Knows the words that its encoder knows.",
        ),
    )
    write_card(folder, card, report, licence=licence)
