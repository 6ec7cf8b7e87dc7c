"""The architecture of the tiny base: the production classes with small configurations.

`build_pipeline` makes a `diffusers.FluxFillPipeline` with untrained weights, small enough for a unit test (about 6M
parameters). The training recipes start from it, and the packaged base is this architecture, trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxFillPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from careedit.editing.families.fill import DIPTYCH, TRIPTYCH
from careedit.tabular import lines_of
from careedit_tiny.world.geometry import GEOMETRY

PANEL = GEOMETRY.side
"""Side of one square panel, in pixels."""
VAE_CHANNELS = (16, 32, 64) if GEOMETRY.edition == 1 else (16, 16, 32, 64)
"""Channels per level of the VAE; each level after the first halves the side."""
LATENT_CHANNELS = 8 if GEOMETRY.edition == 1 else 16
"""Channels of the latents."""
HEADS, DOUBLE, SINGLE = (3, 2, 4) if GEOMETRY.edition == 1 else (2, 1, 3)
"""Attention heads of 64 channels, double blocks and single blocks. In equal time the smaller net learns more
(docs/notebook.md)."""

MAX_SEQUENCE_LENGTH = 24
"""T5 tokens per prompt. The in-context frame is one token, an instruction of the drawn world 4 to 20."""

_CHARACTERS = ".,!?'-:;\"()"


def build_vae(*, half: bool = False) -> AutoencoderKL:
    """A VAE that makes a 2 x 2 patch of latents of every token; `half` leaves out the outermost level, for pictures half as wide."""
    channels = VAE_CHANNELS[1:] if half else VAE_CHANNELS
    vae: AutoencoderKL = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=PANEL // 2 if half else PANEL,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    return vae


def build_transformer(*, guidance_embeds: bool = False) -> FluxTransformer2DModel:
    """A FLUX.1-Fill transformer: `DOUBLE` double and `SINGLE` single blocks of `HEADS` x 64."""
    latents, mask = LATENT_CHANNELS * 4, GEOMETRY.token**2
    transformer: FluxTransformer2DModel = FluxTransformer2DModel(
        patch_size=1,
        in_channels=2 * latents + mask,
        out_channels=latents,
        num_layers=DOUBLE,
        num_single_layers=SINGLE,
        attention_head_dim=64,
        num_attention_heads=HEADS,
        joint_attention_dim=128,
        pooled_projection_dim=64,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(8, 28, 28),
    )
    return transformer


def build_t5_tokenizer(corpus: Iterable[str]) -> T5Tokenizer:
    """One token per word of the corpus and per in-context frame; any other word is two: a space and an unknown one.

    Spelling an unknown word out would fill the prompt with characters that training has never shown.
    """
    words = sorted({word for text in corpus for word in re.findall(r"\S+", text)})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -6.0)]
    pieces += [(character, -8.0) for character in _CHARACTERS]
    pieces += [(f"\u2581{word}", -1.0) for word in words]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    tokenizer.add_tokens([DIPTYCH, TRIPTYCH])
    return tokenizer


def build_clip_tokenizer(corpus: Iterable[str]) -> CLIPTokenizer:
    """A byte-pair tokenizer of CLIP's class, its merges learned on the corpus."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [re.sub(r"\s+", " ", text.lower()).replace(" ", "\n") for text in corpus]
    words = [word for text in texts for word in text.split("\n")]
    # The trainer numbers the last letters of words in an order that changes from one tokenizer to the next. Stated first,
    # they keep theirs: the ids in a pool are those of every tokenizer of this corpus.
    last = {piece[-1] for word in set(words) for piece, _ in splitter.pre_tokenize_str(word)}
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=["<|startoftext|>", "<|endoftext|>", *sorted(f"{letter}</w>" for letter in last)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(words, trainer)
    with TemporaryDirectory() as folder:
        vocab, merges = learner.model.save(folder)
        pairs = [line.split() for line in lines_of(Path(merges).read_text("utf-8")) if line and line[0] != "#"]
        table = json.loads(Path(vocab).read_text("utf-8"))
    tokenizer = CLIPTokenizer(vocab=table, merges=cast(Any, [(a, b) for a, b in pairs]), model_max_length=77)
    # Spelled out, the frame would push the instruction beyond the 77 tokens.
    tokenizer.add_tokens([AddedToken(frame, normalized=False) for frame in (DIPTYCH, TRIPTYCH)])
    return tokenizer


def build_pipeline(corpus: Iterable[str], *, seed: int = 0, guidance_embeds: bool = False) -> FluxFillPipeline:
    """An untrained `FluxFillPipeline` of the tiny architecture, its weights drawn from `seed`."""
    texts = sorted(set(corpus))
    t5_tokenizer, clip_tokenizer = build_t5_tokenizer(texts), build_clip_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip_tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=clip_tokenizer.bos_token_id,
                eos_token_id=clip_tokenizer.eos_token_id,
                pad_token_id=clip_tokenizer.pad_token_id,
            )
        )
        t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(t5_tokenizer),
                d_model=128,
                d_kv=32,
                d_ff=256,
                num_layers=2,
                num_heads=4,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
            )
        )
        vae, transformer = build_vae(), build_transformer(guidance_embeds=guidance_embeds)
    return cast(Any, FluxFillPipeline)(  # type: ignore[no-any-return]
        scheduler=cast(Any, FlowMatchEulerDiscreteScheduler)(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )
