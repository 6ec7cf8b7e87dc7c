"""Recipe of the tiny CLIP: pictures against captions, with captions that are wrong by one word, and words against patches.

Three losses: CLIP's own (Radford et al. 2021) with the one-word-off captions of all pictures among a picture's wrong
answers (NegCLIP, Yuksekgonul et al. 2023); for every object that a text names, the patches of the batch that show it
against all others (MIL-NCE, Miech et al. 2020), which is what lets a router see whether "the red circle" is there; and,
with a small weight, each token's own word from its projected state, so that words which name no object survive too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from careedit.encoders import OpenClipEncoder
from careedit.finetune.card import Card, write_card
from careedit.finetune.curve import check_curve, save_report
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.precision import products, training_device
from careedit_tiny.models.clip import build_clip, save_clip, tokenizer
from careedit_tiny.recipes.base.items import with_unknown_words
from careedit_tiny.recipes.clip.captions import caption_of, one_word_off
from careedit_tiny.recipes.clip.data import (
    OTHER,
    SIDE,
    UNLABELLED,
    CompactTokenizer,
    Texts,
    patch_labels,
    pictures,
    scene_at,
    scenes_of,
    to_pixels,
)
from careedit_tiny.recipes.family import LICENCE
from careedit_tiny.world.samples import Split

DEFAULT = TrainConfig(steps=2000, learning_rate=2e-3, warmup=150, weight_decay=0.02, betas=(0.9, 0.98), ema=0.997)
BATCH = 64
"""Number of scenes per step."""
POOL = 12_000
"""Scenes drawn once and shown with changing words."""
NEGATIVES = 1
"""One-word-off captions per scene and step."""
NAMED = 256
"""Objects in texts that are compared with patches, per step, at most."""
GROUNDING_WEIGHT, WORD_WEIGHT = 0.5, 0.1
UNKNOWN_SHARE = 0.08
"""Share of an instruction's words that are replaced by an unknown one."""


class _Extras(nn.Module):
    """What only training needs: the grounding loss's temperature, and the head that names each token's word."""

    def __init__(self, width: int, words: int) -> None:
        super().__init__()
        self.patch_scale = nn.Parameter(torch.tensor(2.3))
        self.words = nn.Linear(width, words)


def text_states(model: open_clip.CLIP, ids: Tensor) -> Tensor:
    """Projected token states [B, L, d]; row 0 of the table stays zero."""
    length = ids.shape[1]
    states = F.embedding(ids, model.token_embedding.weight, padding_idx=0) + model.positional_embedding[:length]
    states = model.transformer(states, attn_mask=model.attn_mask[:length, :length])
    projected: Tensor = model.ln_final(states) @ model.text_projection
    return projected


def image_states(model: open_clip.CLIP, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(pooled [B, d], patches [B, Nv, d]), projected."""
    visual = model.visual
    states = visual.ln_post(visual.transformer(visual._embeds(pixels))) @ visual.proj
    return states[:, 0], states[:, 1:]


def grounding_loss(words: Tensor, named: Tensor, patches: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """-log of the share of exp(scale x cosine) that falls on patches which show the named object.

    `words` [M, d] are the states of the naming words, `named` [M, 2] their shape and colour, `patches` [P, d], `labels`
    [2, P]. Objects that no patch shows are left out.
    """
    logits = scale * F.normalize(words, dim=-1) @ F.normalize(patches, dim=-1).T
    logits = logits.masked_fill(labels[0] == UNLABELLED, float("-inf"))
    shown = (named[:, :1] == labels[:1]) & ((named[:, 1:] == labels[1:]) | (named[:, 1:] == OTHER))
    logits, shown = logits[shown.any(dim=1)], shown[shown.any(dim=1)]
    if not len(logits):
        return words.sum() * 0
    return (logits.logsumexp(dim=1) - logits.masked_fill(~shown, float("-inf")).logsumexp(dim=1)).mean()


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss over pictures [B, d] and texts [B + N, d], of which the first B are right and the rest are decoys."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    right = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits[:, : len(images)].T, right)) / 2


def train_clip(folder: Path, config: TrainConfig = DEFAULT, *, pool: int = POOL) -> tuple[open_clip.CLIP, TrainReport]:
    """Train; returns the model with open_clip's full token table."""
    tokenize = CompactTokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_clip(vocab_size=tokenize.size)
        extras = _Extras(model.text_projection.shape[1], tokenize.size)
    with torch.no_grad():
        model.token_embedding.weight[0] = 0
    device, batch = training_device(), BATCH * config.batches
    model.to(device)
    extras.to(device)
    seen = [scene_at(index) for index in range(pool)]
    drawn = pictures([scene for scene, _ in seen], folder / "clip-scenes.npy")
    labels = torch.from_numpy(np.stack([patch_labels(scene) for scene, _ in seen]))

    def texts_of(chosen: list[int], rng: Random) -> Texts:
        scenes = [seen[i][0] for i in chosen]
        captions = [caption_of(scene, rng) for scene in scenes]
        wrong = [one_word_off(c, s, rng) for c, s in zip(captions, scenes, strict=True) for _ in range(NEGATIVES)]
        orders = [order for i in chosen if (order := seen[i][1]) is not None]
        heard = [with_unknown_words(order, rng, UNKNOWN_SHARE) for order in orders]
        return tokenize([*map(str, captions), *map(str, wrong), *heard])

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        chosen = torch.randint(pool, (batch,), generator=generator)
        texts = texts_of(chosen.tolist(), Random(int(torch.randint(2**62, (1,), generator=generator))))
        pixels = to_pixels(drawn[chosen.numpy()])
        pixels = pixels + 0.06 * torch.randn(pixels.shape, generator=generator)
        named = texts.named[torch.randperm(len(texts.named), generator=generator)[: NAMED * config.batches]].to(device)
        ids, ends = texts.ids.to(device), texts.ends.to(device)
        with products(device):
            pooled, patches = image_states(model, pixels.to(device))
            states = text_states(model, ids)
        pooled, patches, states = pooled.float(), patches.float(), states.float()
        whole_texts = states[torch.arange(len(states), device=device), ends]
        count = batch * (1 + NEGATIVES)
        whole = contrastive_loss(pooled, whole_texts[:count], model.logit_scale.exp().clamp(max=100))
        grounding = grounding_loss(
            states[named[:, 0], named[:, 1]],
            named[:, 2:],
            patches.flatten(0, 1),
            labels[chosen].to(device).permute(1, 0, 2).flatten(1),
            extras.patch_scale.exp().clamp(max=100),
        )
        spoken = ids > 0
        words = F.cross_entropy(extras.words(states[spoken]), ids[spoken])
        return {
            "loss": whole + GROUNDING_WEIGHT * grounding + WORD_WEIGHT * words,
            "contrastive": whole,
            "grounding": grounding,
            "words": words,
        }

    model.train()
    report = train("clip", [*model.parameters(), *extras.parameters()], loss, config, folder)
    return widened(model.cpu(), tokenize), report


def widened(model: open_clip.CLIP, tokenize: CompactTokenizer) -> open_clip.CLIP:
    """The model with open_clip's full token table: trained rows in their places, zero everywhere else."""
    full = build_clip()
    state = model.state_dict()
    rows = state.pop("token_embedding.weight")
    table = torch.zeros_like(full.token_embedding.weight)
    table[list(tokenize.used)] = rows[1:]
    full.load_state_dict({**state, "token_embedding.weight": table})
    return full.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How well pictures find their captions among `count`, and the reverse; shares, 0 to 1."""

    count: int
    """Number of pictures and captions that are compared."""
    image_to_text_1: float
    """Share of pictures whose own caption comes first."""
    image_to_text_5: float
    """Share of pictures whose own caption is among the first five."""
    text_to_image_1: float
    """Share of captions whose own picture comes first."""
    text_to_image_5: float
    """Share of captions whose own picture is among the first five."""
    hard: float
    """Share of pictures that prefer their caption to the same caption with one word changed."""


def measure(encoder: OpenClipEncoder, count: int = 500, *, split: Split = "test") -> Retrieval:
    """Retrieval on scenes of a split; each caption names every object with its place, and the background."""
    scenes = scenes_of(split, count)
    captions = [caption_of(scene, Random(i), whole=True) for i, scene in enumerate(scenes)]
    wrong = [one_word_off(c, s, Random(f"off:{i}")) for i, (c, s) in enumerate(zip(captions, scenes, strict=True))]
    with torch.inference_mode():
        chunks = torch.split(to_pixels(pictures(scenes)), 100)
        images = torch.cat([encoder.model.encode_image(chunk, normalize=True) for chunk in chunks])
    texts = encoder.text_embeddings([str(caption) for caption in captions])
    decoys = encoder.text_embeddings([str(caption) for caption in wrong])
    similar = images @ texts.T
    right = similar.diagonal()

    def recall(scores: Tensor, k: int) -> float:
        return float(((scores > right[:, None]).sum(dim=1) < k).float().mean())

    return Retrieval(
        count,
        recall(similar, 1),
        recall(similar, 5),
        recall(similar.T, 1),
        recall(similar.T, 5),
        float((right > (images * decoys).sum(dim=1)).float().mean()),
    )


def make_clip(
    folder: Path, config: TrainConfig = DEFAULT, *, pool: int = POOL, count: int = 500
) -> tuple[TrainReport, Retrieval]:
    """Train, measure on `count` test scenes, and write `folder/clip` with its card."""
    check_curve()
    model, report = train_clip(folder, config, pool=pool)
    figures = measure(OpenClipEncoder(model, tokenizer()), count)
    save(model, report, folder, figures)
    return report, figures


def save(model: open_clip.CLIP, report: TrainReport, folder: Path, figures: Retrieval) -> None:
    """Write the model in open_clip's hub layout to `folder/clip`, with its card, and the report to `folder`."""
    save_clip(model, folder / "clip")
    save_report(report, folder / "clip.json")
    n = f"{figures.count} test scenes"
    card = Card(
        title="careedit tiny CLIP",
        summary=f"An open_clip model for drawn scenes of {SIDE} x {SIDE} pixels: the learned router's encoder in the tiny set.",
        recipe="careedit train clip",
        data=f"{POOL:,} drawn scenes with captions in changing words, captions wrong by one word, and instructions of the "
        "tiny world's training split.",
        quality={
            f"Picture to caption, recall at 1 and 5 ({n})": f"{figures.image_to_text_1:.1%}, {figures.image_to_text_5:.1%}",
            f"Caption to picture, recall at 1 and 5 ({n})": f"{figures.text_to_image_1:.1%}, {figures.text_to_image_5:.1%}",
            f"Right caption over one with one word changed ({n})": f"{figures.hard:.1%}",
        },
        limits=(
            "Knows drawn scenes of the tiny world, not photographs.",
            "Knows the words of its training only: every other row of its token table is zero.",
        ),
    )
    write_card(folder / "clip", card, report, licence=LICENCE)
