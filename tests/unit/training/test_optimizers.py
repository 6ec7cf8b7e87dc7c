"""Which weights Muon moves, and that it resumes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from careedit.finetune.optimizers import Optimizers, hidden_matrices
from careedit_tiny.models.family import build_transformer


def test_hidden_matrices_are_projections_and_neither_embeddings_nor_modulations() -> None:
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


def test_frozen_weights_are_no_hidden_matrices() -> None:
    assert hidden_matrices(nn.Linear(4, 4).requires_grad_(False)) == []


def steps(layer: nn.Linear, optimizer: Optimizers, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        layer(torch.eye(4)).square().sum().backward()
        optimizer.step(0.01)


def test_both_optimizers_move_their_weights_and_resume_alike() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    parameters = list(layer.parameters())
    optimizer = Optimizers(parameters, [layer.weight], betas=(0.9, 0.98), weight_decay=0.0)
    before = [parameter.detach().clone() for parameter in parameters]
    steps(layer, optimizer, 3)
    assert not any(torch.equal(old, new) for old, new in zip(before, parameters, strict=True))

    halfway = [parameter.detach().clone() for parameter in parameters]
    state = copy.deepcopy(optimizer.state_dict())
    twin = nn.Linear(4, 4)
    for parameter, value in zip(twin.parameters(), halfway, strict=True):
        parameter.data.copy_(value)
    resumed = Optimizers(list(twin.parameters()), [twin.weight], betas=(0.9, 0.98), weight_decay=0.0)
    resumed.load_state_dict(state)
    steps(twin, resumed, 2)
    steps(layer, optimizer, 2)
    assert torch.equal(twin.weight, layer.weight)
    assert torch.equal(twin.bias, layer.bias)
