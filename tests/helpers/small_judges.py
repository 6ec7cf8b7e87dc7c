"""Small random Qwen-VL models, judges in their published layouts, and their prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from careedit_tiny.models.judge import CHAT_TEMPLATE, build_processor

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
TEMPLATE = f"{{% if messages[0]['role'] != 'system' %}}{SYSTEM}{{% endif %}}{CHAT_TEMPLATE}"
"""As Qwen2.5-VL's own template begins."""
WIDTH = 32
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 4096,
}  # fmt: skip


def small_base(folder: Path, kind: str = "qwen2_5_vl") -> tuple[Any, Any]:
    """A random model of a few thousand weights and its processor, in a folder of transformers' layout."""
    words = [
        "Rate how well it follows: make the sky red",
        "Image A is better",
        "winner score reasoning Tie",
        "<img1>: <img2>:",
    ]
    tokenizer = build_processor(words).tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    ends = {"eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>")}
    ends["pad_token_id"] = ends["bos_token_id"] = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    shared = {
        "image_token_id": ids["image_pad"], "video_token_id": ids["video_pad"],
        "vision_start_token_id": ids["vision_start"], "tie_word_embeddings": False,
    }  # fmt: skip
    # As Qwen2.5-VL, whose embeddings have more rows than its tokenizer has words.
    text = {**TEXT, **ends, "vocab_size": len(tokenizer) + 7}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        if kind == "qwen2_5_vl":
            vision = {
                "depth": 2,
                "hidden_size": WIDTH,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": WIDTH,
            }
            text["rope_parameters"] = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3]}
            config: Any = Qwen2_5_VLConfig(
                text_config=text, vision_config={**vision, "fullatt_block_indexes": [1], "window_size": 112}, **shared
            )
            model: Any = Qwen2_5_VLForConditionalGeneration(config)
            size = {"shortest_edge": 56 * 56, "longest_edge": 14 * 14 * 4 * 1280}
            reads = {"patch_size": 14, "merge_size": 2, "size": size}
            processor: Any = Qwen2_5_VLProcessor(
                Qwen2VLImageProcessor(**reads), tokenizer, Qwen2VLVideoProcessor(**reads), chat_template=TEMPLATE
            )
        else:
            text |= {
                "head_dim": 16,
                "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3]},
            }
            vision = {
                "depth": 2, "hidden_size": WIDTH, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": WIDTH,
                "deepstack_visual_indexes": [0], "num_position_embeddings": 64,
            }  # fmt: skip
            model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **shared))
            reads = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 64 * 64, "longest_edge": 256 * 256}}
            processor = Qwen3VLProcessor(
                Qwen2VLImageProcessor(**reads), tokenizer, Qwen3VLVideoProcessor(**reads), chat_template=CHAT_TEMPLATE
            )
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.generation_config.eos_token_id = ends["eos_token_id"]
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def reward_heads(width: int = WIDTH) -> nn.ModuleDict:
    """The heads of EditReward, as its class names them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layers = [(nn.Linear(width, 1024), nn.Linear(1024, 16), nn.Linear(16, 2)) for _ in range(2)]
    return nn.ModuleDict(
        {
            f"head_{number}": nn.Sequential(first, nn.ReLU(), nn.Dropout(0.05), second, nn.ReLU(), third)
            for number, (first, second, third) in enumerate(layers)
        }
    )


def reward_prompts(folder: Path) -> Path:
    """The two published files with texts: names as published, other words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.py").write_text(
        'INSTRUCTION_EDIT_FOLLOWING = """\nRate how well it follows: {text_prompt}\n"""\n'
        'INSTRUCTION_EDIT_QUALITY = """\nRate the look of: {text_prompt}\n"""\n'
    )
    (folder / "data_collator_qwen_edit.py").write_text(
        'import os\nraise SystemExit\nprompt_with_special_token = """\nRating: <|Reward|>\n\nEND\n"""\n'
    )
    return folder


def lora_of(
    model: Any, folder: Path, targets: tuple[str, ...] = ("q_proj", "v_proj"), *, named_as: str = "new"
) -> dict[str, Any]:
    """A random adapter of a model in peft's layout, with tensors named as by newer or "older" releases of transformers."""
    from safetensors.torch import save_file

    rank, tensors = 4, {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and "language_model" in name and name.endswith(targets):
                short = name.replace("model.language_model.", "model.") if named_as == "older" else name
                stem = f"base_model.model.{short}"
                tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, module.in_features) * 0.3
                tensors[f"{stem}.lora_B.weight"] = torch.randn(module.out_features, rank) * 0.3
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    settings |= {"target_modules": list(targets), "base_model_name_or_path": "/somewhere/else", "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return tensors
