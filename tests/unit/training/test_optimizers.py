"""Which weights Muon moves, and that it resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from careedit.finetune.loop import TrainConfig, train
from careedit.finetune.optimizers import hidden_matrices
from careedit_tiny.models.family import build_transformer


def test_hidden_matrices_are_projections_and_neither_embeddings_nor_modulations():
    transformer = build_transformer()
    chosen = {id(parameter) for parameter in hidden_matrices(transformer)}
    names = {name for name, parameter in transformer.named_parameters() if id(parameter) in chosen}
    assert "transformer_blocks.0.attn.to_q.weight" in names
    assert "single_transformer_blocks.3.proj_mlp.weight" in names
    for outer in (
        "x_embedder.weight",
        "proj_out.weight",
        "norm_out.linear.weight",
        "transformer_blocks.0.norm1.linear.weight",
    ):
        assert outer not in names
    assert all(name.endswith(".weight") for name in names)


def test_frozen_weights_are_no_hidden_matrices():
    assert hidden_matrices(nn.Linear(4, 4).requires_grad_(False)) == []


def test_a_killed_run_with_both_optimizers_resumes_to_the_same_weights(tmp_path):
    config = TrainConfig(steps=100, learning_rate=0.01, warmup=5, ema=0.9, checkpoint_seconds=0.0)

    def run(folder: Path, killed_at: int | None = None) -> nn.Linear:
        torch.manual_seed(0)
        layer = nn.Linear(4, 4)

        def loss(step: int, _: torch.Generator) -> dict[str, torch.Tensor]:
            if step == killed_at:
                raise KeyboardInterrupt
            return {"loss": layer(torch.eye(4)).square().sum()}

        train("layer", list(layer.parameters()), loss, config, folder, matrices=[layer.weight])
        return layer

    torch.manual_seed(0)
    before = nn.Linear(4, 4)
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", killed_at=60)
    resumed = run(tmp_path / "killed")
    for name, value in whole.state_dict().items():
        assert not torch.equal(value, before.state_dict()[name])
        assert torch.equal(value, resumed.state_dict()[name])
