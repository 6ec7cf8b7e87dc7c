"""The architecture of the tiny judge: Qwen2.5-VL's own classes, processor and chat template, small."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from careedit.loading import quiet_loading
from careedit.scoring.pairwise import BETTER
from careedit.scoring.vqa import CLEAN, FOLLOWED, LEAD, LEAD_REFERENCE, PRESERVED
from careedit.tabular import lines_of
from careedit_tiny.world.geometry import GEOMETRY

SIDE, PATCH, MERGE = GEOMETRY.side, GEOMETRY.token, 2
"""Pixels along a picture's and a patch's side, and patches along a token's: in the second edition a token per cell."""
CONTEXT = 256
"""Maximum tokens of a question, including images."""
ANSWERS = ("yes", "no")

VISION: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_heads": 4,
    "fullatt_block_indexes": [0, 1, 2],
}
TEXT: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 416,
    "num_hidden_layers": 6,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": CONTEXT,
    # Wavelengths of 6 to 25 tokens: at the original's base of 1,000,000 the four columns of a picture of 4 x 4 tokens would
    # turn by less than a degree.
    "rope_parameters": {"rope_type": "default", "rope_theta": 4.0, "mrope_section": [2, 7, 7]},
}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's, without videos and without its system message."""

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def build_processor(corpus: Iterable[str]) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor, its byte-pair merges learned on `corpus` and the judge's questions: a token per word."""
    size = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    patches: dict[str, Any] = {"patch_size": PATCH, "merge_size": MERGE, "size": size}
    return cast(Any, Qwen2_5_VLProcessor)(  # type: ignore[no-any-return]
        image_processor=cast(Any, Qwen2VLImageProcessor)(**patches),
        tokenizer=_tokenizer(corpus),
        video_processor=cast(Any, Qwen2VLVideoProcessor)(**patches),
        chat_template=CHAT_TEMPLATE,
    )


def build_judge(
    corpus: Iterable[str], *, seed: int = 0
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """An untrained judge of about 3M parameters, its weights drawn from `seed`, and its processor."""
    processor = build_processor(corpus)
    tokenizer: Any = processor.tokenizer
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL}
    config = cast(Any, Qwen2_5_VLConfig)(
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config=VISION
        | {
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "out_hidden_size": TEXT["hidden_size"],
            "window_size": SIDE,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cast(Any, Qwen2_5_VLForConditionalGeneration)(config)
    return model.eval(), processor


def save_judge(model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, folder: Path) -> None:
    """Write the model (in float16) and its processor in transformers' layout, for `careedit.scoring`."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_loading(), TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        cast(Any, copy.deepcopy(model)).half().save_pretrained(temporary)
        cast(Any, processor).save_pretrained(temporary)
        for path in Path(temporary).iterdir():
            os.replace(path, folder / path.name)


def _tokenizer(corpus: Iterable[str]) -> Qwen2Tokenizer:
    questions = (LEAD, LEAD_REFERENCE, FOLLOWED, PRESERVED, CLEAN, BETTER)
    texts = sorted({*corpus, *(question.replace("{instruction}", " ") for question in questions), *ANSWERS})
    # The blank one splits words exactly as the finished one will.
    splitter: Any = cast(Any, Qwen2Tokenizer)().backend_tokenizer
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = splitter.normalizer, splitter.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=8192, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    with TemporaryDirectory() as folder:
        vocab, merges = learner.model.save(folder)
        table = json.loads(Path(vocab).read_text("utf-8"))
        pairs = [line for line in lines_of(Path(merges).read_text("utf-8")) if line and not line.startswith("#version")]
    tokenizer: Qwen2Tokenizer = cast(Any, Qwen2Tokenizer)(
        vocab=table, merges=[tuple(pair.split()) for pair in pairs], extra_special_tokens=list(_SPECIAL[1:])
    )
    return tokenizer
