"""How good the members of a family are on test scenes, and the model cards that say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from careedit.editing.families import as_fill
from careedit.editor import Editor
from careedit.experts import UNIFIED_FOLDER, baseline_set, has_baseline
from careedit.finetune.card import Card, write_card
from careedit.finetune.loop import TrainReport
from careedit.records import BASE
from careedit.tabular import lines_of
from careedit_tiny.models.family import PANEL
from careedit_tiny.recipes.base.items import EXPERT_KINDS
from careedit_tiny.recipes.experts import UNIFIED
from careedit_tiny.recipes.family import BASELINE, COMPETENCES, LICENCE
from careedit_tiny.recipes.vae import TEST_SEED, draw_panels, psnr
from careedit_tiny.report.showcase import edit_samples
from careedit_tiny.world.samples import draw_sample

HISTORY = "HISTORY.txt"
"""A file in the runs folder: one line per way in which the weights differ from today's recipe."""
SEED = 7
"""Seed of the noise that quality is measured with."""
OWN, ALONE, TOGETHER = "this expert", "base alone", "unified LoRA"
"""Who edits: an expert, the base without it, and one LoRA for all kinds."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Shares of test edits, 0 to 1, that the oracle accepts."""

    count: int
    """Number of edits that were judged."""
    compliant: float
    """Share of edits that are followed and preserved."""
    followed: float
    """Share in which the instruction was carried out."""
    preserved: float
    """Share in which the rest is unchanged."""

    def __str__(self) -> str:
        return (
            f"{self.compliant:.0%} right (followed {self.followed:.0%}, rest preserved {self.preserved:.0%}; "
            f"{self.count} test edits)"
        )


def measure(editor: Editor, competence: str, expert: str, count: int) -> Quality:
    """Test edits of a competence, made by one expert ("base": by none)."""
    operations = tuple(dict.fromkeys(EXPERT_KINDS[competence]))
    samples = [draw_sample(operations[i % len(operations)], i // len(operations), "test") for i in range(count)]
    verdicts = [edit.verdict for edit in edit_samples(editor, samples, seed=SEED, expert=expert)]
    return Quality(
        count=count,
        compliant=sum(verdict.compliant for verdict in verdicts) / count,
        followed=sum(verdict.followed for verdict in verdicts) / count,
        preserved=sum(verdict.preserved for verdict in verdicts) / count,
    )


def sides_of(editor: Editor) -> Mapping[str, tuple[Editor, str | None]]:
    """Who is measured on each expert's edits: an editor and the expert it uses, None being the expert itself."""
    sides: dict[str, tuple[Editor, str | None]] = {OWN: (editor, None), ALONE: (editor, BASE)}
    if has_baseline(editor.expert_set):
        sides[TOGETHER] = (Editor(baseline_set(editor.expert_set)), UNIFIED)
    return sides


def write_cards(
    runs: Path,
    folder: Path,
    sides: Mapping[str, tuple[Editor, str | None]],
    count: int,
    *,
    done: Callable[[], None] = lambda: None,
) -> Mapping[str, Mapping[str, Quality]]:
    """Measure the set in `folder` (`sides_of` its editor) on test edits of every expert; write the cards next to the weights.

    `runs` holds the training reports. Returns what was measured, by expert and side.
    """
    editor, _ = sides[OWN]
    figures: dict[str, dict[str, Quality]] = {}
    for name in editor.expert_set.names:
        figures[name] = {}
        for side, (who, expert) in sides.items():
            figures[name][side] = measure(who, name, expert or name, count)
            done()
        card = Card(
            title=f"careedit tiny expert: {name}",
            summary=f"{COMPETENCES[name].description} A LoRA on the careedit tiny base, for drawn scenes of {PANEL} x {PANEL} pixels.",
            recipe=f"careedit train expert {name}",
            data=f"The tiny world's training split, operations {', '.join(dict.fromkeys(EXPERT_KINDS[name]))}.",
            quality={"This expert": str(figures[name][OWN]), "The base alone": str(figures[name][ALONE])},
            limits=("Edits drawn scenes of the tiny world, not photographs.", "Knows the words of its training only."),
        )
        write_card(folder / "experts" / name, card, _report(runs, f"expert-{name}"), licence=LICENCE)
    if TOGETHER in sides:
        card = Card(
            title="careedit tiny baseline: the unified LoRA",
            summary=f"{BASELINE.description} On the careedit tiny base, for drawn scenes of {PANEL} x {PANEL} pixels.",
            recipe=f"careedit train expert {UNIFIED}",
            data="The pools of all experts, in the shares of their steps.",
            quality={f"Edits for {name}": str(found[TOGETHER]) for name, found in figures.items()},
            limits=("Edits drawn scenes of the tiny world, not photographs.", "Nothing is ever routed to it."),
        )
        write_card(folder / UNIFIED_FOLDER, card, _report(runs, f"expert-{UNIFIED}"), licence=LICENCE)
    panels = draw_panels(TEST_SEED, 256)
    notes = runs / HISTORY
    pipeline = as_fill(editor.engine.base)
    parts = (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    # Experts that are loaded on the base are not part of it.
    size = sum(p.numel() for part in parts for name, p in part.named_parameters() if "lora_" not in name)
    base = Card(
        title="careedit tiny base",
        summary=f"A FluxFillPipeline of {size / 1e6:.1f}M parameters for drawn scenes: the frozen base of the tiny experts.",
        recipe="careedit train vae; careedit train decoder; careedit train words; careedit train base",
        data="Fill tasks and edits of the tiny world's training split (careedit_tiny.recipes.base.train.MIXTURE).",
        quality={
            "VAE": f"{psnr(pipeline.vae, panels):.1f} dB PSNR on 256 test panels",
            **{f"Edits for {name}": str(found[ALONE]) for name, found in figures.items()},
        },
        limits=(
            "Edits drawn scenes of the tiny world, not photographs.",
            "Reads 24 tokens of a prompt and the words of its training only.",
        ),
        history=tuple(lines_of(notes.read_text("utf-8"))) if notes.exists() else (),
    )
    write_card(folder, base, _report(runs, "base"), licence=LICENCE)
    return figures


def _report(runs: Path, name: str) -> TrainReport:
    return TrainReport.load(runs / f"{name}.json")
