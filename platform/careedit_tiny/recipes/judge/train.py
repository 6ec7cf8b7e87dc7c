"""Recipe of the tiny judge: is the instruction followed, the rest preserved, the picture clean, and which edit is better?

The loss is the cross entropy of yes against no at the answer position, through the prompts and the spellings of answers
that the finished judge is asked by. Alone it teaches slowly, one bit at a time, so small heads that are thrown away learn
from the states of picture tokens what the drawn world knows: which object each patch shows, which one the truth has there,
where two pictures differ, where the instruction wants a change, and where the edit is not the truth. The vision tower
learns the first of these alone before all else, when a step costs little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.optimizers import hidden_matrices
from careedit.finetune.precision import products, training_device
from careedit.scoring.pairwise import BETTER
from careedit.scoring.vlm import TransformersAsker
from careedit.scoring.vqa import CLEAN, FOLLOWED, PRESERVED, lead_of
from careedit_tiny.models.judge import build_judge
from careedit_tiny.recipes.base.items import corpus as base_corpus
from careedit_tiny.recipes.clip.data import OTHER, UNLABELLED
from careedit_tiny.recipes.judge.data import FIRST, UNKNOWN, JudgePool, drawn_pool
from careedit_tiny.recipes.judge.prompts import GRID, TOKENS, Packed, Patches, Prompts, pack
from careedit_tiny.recipes.router.words import in_other_words
from careedit_tiny.world.scene import COLOURS, SHAPES

DEFAULT = TrainConfig(steps=4800, learning_rate=2e-3, warmup=60, weight_decay=0.02, betas=(0.9, 0.98), ema=0.995)
EYES = replace(DEFAULT, steps=600, ema=0.0)
"""The vision tower's own stage; never more steps than the judge's."""
EYES_BATCH = 64
"""Pictures per step of it."""
SAMPLES = 12_288
"""Drawn samples in the pool, each with three to four pictures."""
EDITS = 2560
"""Samples that an editor edits. With a thousand, and a third of the drawn ones, the judge memorised them."""
PAIRS = 16
"""Samples per step; of each, two edits are shown."""
COMPARED = 0.5
"""Share of pairs that are compared as well."""
EDITED_SHARE = 0.5
"""Share of samples from the editor's own edits, where there are some."""
REPHRASED = 0.5
"""Share of instructions said in other words."""
NOISE = 0.02
"""Largest standard deviation of the noise on pictures, of a full scale of 1: no judge should need exact pixels."""
SCENE_WEIGHT, TRUTH_WEIGHT, CHANGE_WEIGHT, MAP_WEIGHT, ORDER_WEIGHT = 0.2, 0.2, 0.3, 1.0, 0.02
READ_AT = -3
"""Whose states the heads read, counted from the last layer's: what they say is still to be used by those after."""
KINDS_PER_TOKEN = 4 * (len(SHAPES) + 1 + len(COLOURS) + 1)
"""Logits for the shapes and colours of a token's four patches."""


class _Extras(nn.Module):
    """What only training needs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scene = nn.Linear(width, KINDS_PER_TOKEN)
        self.norm = nn.LayerNorm(width)
        self.truth = nn.Linear(width, KINDS_PER_TOKEN)
        self.change = nn.Linear(width, 1)
        self.maps = nn.Linear(width, 2)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step is about: pairs of edits of one source, one after the other."""

    edits: Tensor
    """Rows of the pool, [B], B even."""
    pictures: Tensor
    """The distinct pictures, rows of `JudgePool.pictures`, [U]."""
    packed: Packed
    """Their questions: followed, preserved, clean, better."""
    answers: Tensor
    """1, 0 or `UNKNOWN`, [B, 4]."""
    shown: Tensor
    """Source and edited picture as positions in `pictures`, [B, 2]."""

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def make_batch(pool: JudgePool, chosen: Sequence[tuple[int, int]], prompts: Prompts, rng: Random) -> Batch:
    """The questions about pairs of edits (rows of the pool, of the same source)."""
    questions: list[list[list[int] | None]] = []
    answers: list[list[int]] = []
    place: dict[int, int] = {}
    shown = []
    for pair in chosen:
        text = pool.instructions[pair[0]]
        if rng.random() < REPHRASED:
            text = in_other_words(text, pool.operations[pair[0]], rng)
        compared = rng.random() < COMPARED
        for one, other in (pair, pair[::-1]):
            rows = [pool.rows[i].tolist() for i in (one, other)]
            source, edited, reference = (place.setdefault(p, len(place)) if p >= 0 else -1 for p in rows[0])
            rival = place.setdefault(rows[1][1], len(place))
            given = [] if reference < 0 else [reference]
            lead = lead_of(text, given)
            seen = [*given, source, edited]
            asked = [(seen, FOLLOWED), (seen, PRESERVED), (seen, CLEAN), ([*seen, rival], BETTER)]
            codes: list[list[int] | None] = [
                prompts.codes(lead, pictures, words) for pictures, words in (asked if compared else asked[:3])
            ]
            questions.append(codes if compared else [*codes, None])
            answers.append([*pool.labels[one].tolist(), _better(pool, other, one) if compared else UNKNOWN])
            shown.append((source, edited))
    edits = torch.tensor([i for pair in chosen for i in pair])
    return Batch(edits, torch.tensor([*place]), pack(questions), torch.tensor(answers), torch.tensor(shown))


def _better(pool: JudgePool, one: int, other: int) -> int:
    """Whether an edit is better than another; `UNKNOWN` where they are alike, or not known to be."""
    worth = [int(pool.labels[i][0]) * 2 + int(pool.labels[i][1]) + int(pool.labels[i][2] != 0) for i in (one, other)]
    return UNKNOWN if worth[0] == worth[1] else int(worth[0] > worth[1])


def read(model: Any, packed: Packed, pixels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pictures' features [U, 16, d], and the states of all tokens [B, L, d] at `READ_AT` and after the last layer."""
    features = see(model, pixels, grid)
    table = torch.cat([model.get_input_embeddings().weight, features.float()])
    words = len(table) - len(features)
    embedded = functional.embedding(torch.where(packed.codes < 0, words - 1 - packed.codes, packed.codes), table)
    out = model.model.language_model(
        inputs_embeds=embedded,
        position_ids=packed.positions,
        attention_mask={"full_attention": packed.mask},
        use_cache=False,
        output_hidden_states=True,
    )
    return features.view(-1, TOKENS, features.shape[-1]), out.hidden_states[READ_AT], out.last_hidden_state


def see(model: Any, pixels: Tensor, grid: Tensor) -> Tensor:
    """The pictures' features, [U * 16, d]."""
    features: Tensor = model.model.visual(pixels, grid_thw=grid).pooler_output
    return features


def train_judge(
    folder: Path,
    config: TrainConfig = DEFAULT,
    *,
    samples: int = SAMPLES,
    edited: JudgePool | None = None,
    corpus: Sequence[str] | None = None,
) -> tuple[TransformersAsker, TrainReport]:
    """Train on drawn pictures, and on an editor's own where they are given (`judge_edits.edited_pool`).

    `corpus` are the texts that the tokenizer knows word by word; default: those of the tiny base.
    """
    drawn = drawn_pool(folder / "judge-pool", "train", samples, first=FIRST)
    pools = [drawn] if edited is None else [drawn, edited]
    model, processor = build_judge(base_corpus() if corpus is None else corpus, seed=config.seed)
    network: Any = model
    asker = TransformersAsker(model, processor, name="judge", revision="training")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        extras = _Extras(network.config.get_text_config().hidden_size)
    network.requires_grad_(True).train().to(training_device())
    extras.to(training_device())
    prompts, patches = Prompts(processor), Patches(processor)
    eyes = replace(EYES, steps=min(EYES.steps, config.steps), seed=config.seed, batches=config.batches)
    _train_eyes(network, extras, patches, pools, eyes, folder)
    members, pairs = [_by_source(pool) for pool in pools], PAIRS * config.batches

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        rng = Random(int(torch.randint(2**62, (1,), generator=generator)))
        parts = [(pools[-1], members[-1], round(pairs * EDITED_SHARE))] if len(pools) > 1 else []
        parts.append((pools[0], members[0], pairs - sum(count for _, _, count in parts)))
        losses: dict[str, Tensor] = {}
        for pool, sources, count in parts:
            chosen = [tuple(rng.sample(rng.choice(sources), 2)) for _ in range(count)]
            batch = make_batch(pool, [(a, b) for a, b in chosen], prompts, rng)
            for name, value in _losses(asker, extras, patches, pool, batch, generator).items():
                part = value * (count / pairs)
                losses[name] = losses[name] + part if name in losses else part
        return losses

    trained = [p for p in network.parameters()]
    report = train(
        "judge", [*trained, *extras.parameters()], loss, config, folder, matrices=hidden_matrices(network.model)
    )
    network.eval().requires_grad_(False).cpu()
    return asker, report


def _train_eyes(
    network: Any,
    extras: _Extras,
    patches: Patches,
    pools: Sequence[JudgePool],
    config: TrainConfig,
    folder: Path,
) -> None:
    """The vision tower and its head alone, on what the drawn scenes of the pools show."""
    known = [(pool.scenes > UNLABELLED).any(dim=2).any(dim=1) for pool in pools]
    pictures = torch.cat([pool.pictures[rows] for pool, rows in zip(pools, known, strict=True)])
    scenes = torch.cat([pool.scenes[rows] for pool, rows in zip(pools, known, strict=True)])

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        chosen = torch.randint(len(pictures), (EYES_BATCH * config.batches,), generator=generator)
        device = network.device
        pixels = patches(pictures[chosen], _noise(pictures[chosen], generator)).to(device)
        with products(device):
            features = see(network, pixels, patches.grid(len(chosen)).to(device))
        return {"loss": _scene_loss(extras.scene, features.float(), scenes[chosen].to(device))}

    tower = network.model.visual
    train(
        "eyes",
        [*tower.parameters(), *extras.scene.parameters()],
        loss,
        config,
        folder,
        matrices=hidden_matrices(tower),
    )


def _noise(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of another strength for each picture, [U, 3, SIDE, SIDE]."""
    strength = NOISE * torch.rand(len(pictures), 1, 1, 1, generator=generator)
    return strength * torch.randn(len(pictures), 3, *pictures.shape[1:3], generator=generator)


def _losses(
    asker: TransformersAsker,
    extras: _Extras,
    patches: Patches,
    pool: JudgePool,
    batch: Batch,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    pictures = pool.pictures[batch.pictures]
    device = asker.network.device
    pixels, grid = patches(pictures, _noise(pictures, generator)).to(device), patches.grid(len(pictures)).to(device)
    scenes, wanted, maps = (
        part.to(device) for part in (pool.scenes[batch.pictures], pool.wanted[batch.edits], pool.maps[batch.edits])
    )
    before, after = (pictures[batch.shown[:, i]].to(device) for i in (0, 1))
    batch = batch.to(device)
    with products(device):
        features, early, states = read(asker.network, batch.packed, pixels, grid)
    features, states = features.float(), states.float()
    ends = states[torch.arange(len(states), device=device)[:, None], batch.packed.ends]
    logits = asker.answer_logits(asker.network.lm_head(ends.flatten(0, 1))).view(*batch.answers.shape, 2)
    answered = functional.cross_entropy(logits.flatten(0, 1), batch.answers.flatten(), ignore_index=UNKNOWN)
    own = extras.norm(_edited(early, batch).float())
    mapped = functional.binary_cross_entropy_with_logits(extras.maps(own).mT, maps.float())
    return {
        "loss": answered
        + MAP_WEIGHT * mapped
        + SCENE_WEIGHT * _scene_loss(extras.scene, features, scenes)
        + TRUTH_WEIGHT * _scene_loss(extras.truth, own, wanted)
        + CHANGE_WEIGHT * _change_loss(extras.change(own).squeeze(-1), before, after)
        + ORDER_WEIGHT * _order_loss(logits[:, 3, 1] - logits[:, 3, 0], batch.packed.ends[:, 3] > 0),
        "answers": answered,
        "maps": mapped,
    }


def _edited(states: Tensor, batch: Batch) -> Tensor:
    """States [B, L, d] of the edited picture's tokens, [B, 16, d]."""
    first = (batch.packed.codes == (-1 - TOKENS * batch.shown[:, 1])[:, None]).int().argmax(dim=1)
    rows = torch.arange(len(states), device=states.device)[:, None]
    return states[rows, first[:, None] + torch.arange(TOKENS, device=states.device)]


def _scene_loss(head: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """Which shape and colour each of a token's four patches shows or should show, [U, 2, patches], read from `features`."""
    blocks = labels.view(-1, 2, GRID, 2, GRID, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, TOKENS, 2, 4).long()
    heads = head(features).split((4 * (len(SHAPES) + 1), 4 * (len(COLOURS) + 1)), dim=-1)
    total = features.sum() * 0
    for logits, wanted, count in zip(heads, blocks.unbind(2), (len(SHAPES), len(COLOURS)), strict=True):
        target = torch.where(wanted == OTHER, count, wanted)
        target = torch.where(wanted == UNLABELLED, -100, target)
        if (target >= 0).any():
            total = total + functional.cross_entropy(logits.reshape(-1, count + 1), target.flatten(), ignore_index=-100)
    return total


def _change_loss(changed: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Whether each patch of the edited picture differs from the source's; logits [B, 16] of its own tokens.

    Source and edited pictures are bytes [B, SIDE, SIDE, 3].
    """
    before, after = before.float() / 255, after.float() / 255
    side = before.shape[1] // GRID
    gap = (before - after).abs().mean(dim=3).view(-1, GRID, side, GRID, side).mean(dim=(2, 4)).flatten(1)
    return functional.binary_cross_entropy_with_logits(changed, (gap > 0.03).float())


def _order_loss(better: Tensor, asked: Tensor) -> Tensor:
    """A comparison's log odds should change their sign with the order: pairs stand one after the other."""
    both = better.view(-1, 2).sum(dim=1)[asked.view(-1, 2).all(dim=1)]
    return both.square().mean() if len(both) else better.sum() * 0


def _by_source(pool: JudgePool) -> list[list[int]]:
    """Edits of each source that has at least two."""
    found: dict[int, list[int]] = {}
    for i, source in enumerate(pool.rows[:, 0].tolist()):
        found.setdefault(source, []).append(i)
    return [edits for edits in found.values() if len(edits) > 1]
