from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from careedit.errors import ExpertError, UnknownExpertError
from careedit.experts import (
    BaseShapes,
    ExpertApplier,
    LoraModule,
    LoraState,
    MemoryLibrary,
    MergedApplier,
    SharedApplier,
    make_applier,
    shapes_of,
)
from careedit.experts.appliers import RoutedLinear

Inputs = Callable[[int], dict[str, Any]]
Lora = Callable[..., LoraState]


@pytest.fixture(scope="module")
def library(lora: Lora, shapes: BaseShapes) -> MemoryLibrary:
    """Three experts of different ranks, scales and targets."""
    return MemoryLibrary(
        {
            "erase": lora(1, rank=16, alpha=16.0),
            "style": lora(2, rank=8, alpha=16.0),
            "type": lora(3, rank=12, alpha=6.0, targets=r".*(attn\.to_q|norm1\.linear|proj_mlp)|x_embedder|proj_out"),
        },
        shapes,
    )


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def base_velocity(transformer: nn.Module, inputs: dict[str, Any]) -> Tensor:
    output: Tensor = transformer(**inputs, return_dict=False)[0]
    return output


def row(inputs: dict[str, Any], index: int) -> dict[str, Any]:
    shared = {"img_ids", "txt_ids", "guidance"}
    return {key: value if key in shared else value[index : index + 1] for key, value in inputs.items()}


@contextmanager
def peft_rows(transformer: nn.Module, rows: list[str]) -> Iterator[None]:
    """Gives every LoRA layer peft's `adapter_names`, as `PeftModel` does: the reference of the shared applier."""

    def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"adapter_names": rows}

    layers = [module for module in transformer.modules() if isinstance(module, RoutedLinear)]
    handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
    yield
    for handle in handles:
        handle.remove()


ROWS = ["style", "base", "erase", "type", "style", "base"]


@pytest.mark.parametrize("kind", ["merged", "shared"])
def test_each_row_of_a_mixed_batch_is_what_it_is_alone(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs, kind: Any
) -> None:
    applier = make_applier(transformer, library, kind)
    batch = inputs(len(ROWS))
    with applier.lease(ROWS):
        together = applier.velocity(ROWS, batch)
        for index, name in enumerate(ROWS):
            alone = applier.velocity([name], row(batch, index))
            torch.testing.assert_close(together[index : index + 1], alone, rtol=0.0, atol=1e-4)
    assert together.shape == (len(ROWS), 32, 32)


def test_merged_and_shared_give_the_same(pristine: nn.Module, library: MemoryLibrary, inputs: Inputs) -> None:
    import copy

    merged = MergedApplier(copy.deepcopy(pristine), library)
    shared = SharedApplier(copy.deepcopy(pristine), library)
    batch = inputs(len(ROWS))
    one, other = merged.velocity(ROWS, batch), shared.velocity(ROWS, batch)
    torch.testing.assert_close(one, other, rtol=0.0, atol=1e-4)
    plain = base_velocity(pristine, batch)
    moved = (one - plain).abs().amax((1, 2))
    assert [bool(distance > 1e-3) for distance in moved] == [name != "base" for name in ROWS]


@pytest.mark.parametrize(
    "rows",
    [ROWS, ["erase"] * 3, ["base"] * 2, ["erase", "style", "erase", "style"], ["base", "type"]],
    ids=lambda rows: "-".join(rows),
)
def test_shared_is_peft_s_mixed_batch(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs, rows: list[str]
) -> None:
    applier = SharedApplier(transformer, library)
    batch = inputs(len(rows))
    with applier.lease(library.names):
        ours = applier.velocity(rows, batch)
        with peft_rows(transformer, [f"expert-{name}" if name != "base" else "__base__" for name in rows]):
            reference = base_velocity(transformer, batch)
    torch.testing.assert_close(ours, reference, rtol=0.0, atol=1e-4)


def test_merging_a_then_b_then_a_gives_the_same_bits(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs
) -> None:
    applier = MergedApplier(transformer, library)
    batch = inputs(2)
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    plain = base_velocity(transformer, batch)
    first = applier.velocity(["erase"] * 2, batch)
    weights = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    applier.velocity(["type"] * 2, batch)
    applier.velocity(["style"] * 2, batch)
    assert torch.equal(applier.velocity(["erase"] * 2, batch), first)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in transformer.state_dict().items())
    assert torch.equal(applier.velocity(["base"] * 2, batch), plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in transformer.state_dict().items())


def test_a_bfloat16_base_is_merged_in_float32_and_restored_bit_for_bit(
    transformer: nn.Module, library: MemoryLibrary
) -> None:
    transformer.to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    applier = MergedApplier(transformer, library)
    name = "transformer_blocks.0.attn.to_q"
    with applier.lease(["erase"]):
        applier.merge("erase")
        module = library.load("erase").modules[name]
        exact = before[f"{name}.weight"].float() + module.scale * module.up @ module.down
        assert torch.equal(transformer.state_dict()[f"{name}.weight"], exact.bfloat16())
    applier.merge("base")
    assert all(torch.equal(tensor, before[key]) for key, tensor in transformer.state_dict().items())


def test_a_merge_that_fails_half_way_is_repaired_by_the_next(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs, shapes: BaseShapes
) -> None:
    batch = inputs(1)
    plain = base_velocity(transformer, batch)
    good = library.load("erase").modules
    last = list(good)[-1]
    broken = LoraState(dict(good) | {last: LoraModule(torch.zeros(3, 5), torch.zeros(7, 3), 8.0)})
    own = MemoryLibrary({"erase": library.load("erase")}, shapes)
    own._adapters["broken"] = broken
    applier = MergedApplier(transformer, own)
    with pytest.raises(RuntimeError):
        applier.velocity(["broken"], batch)
    assert torch.equal(applier.velocity(["base"], batch), plain)


def test_merged_runs_one_pass_per_expert_and_starts_with_the_one_that_is_merged(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    applier = MergedApplier(transformer, library)
    applier.velocity(["style"], inputs(1))
    passes: list[tuple[str, int]] = []
    transformer.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append((applier.active, len(kwargs["hidden_states"]))), with_kwargs=True
    )
    applier.velocity(["erase", "style", "erase", "base", "style"], inputs(5))
    assert passes == [("style", 2), ("erase", 2), ("base", 1)]


def test_shared_runs_one_pass(transformer: nn.Module, library: MemoryLibrary, inputs: Inputs) -> None:
    applier = SharedApplier(transformer, library)
    passes: list[int] = []
    transformer.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    applier.velocity(ROWS, inputs(6))
    assert passes == [6]


def test_outside_the_applier_a_shared_transformer_is_the_plain_base(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs, shapes: BaseShapes
) -> None:
    batch = inputs(2)
    plain = base_velocity(transformer, batch)
    applier = SharedApplier(transformer, library)
    applier.velocity(["erase", "style"], batch)
    assert torch.equal(base_velocity(transformer, batch), plain)
    assert torch.equal(applier.velocity(["base", "base"], batch), plain)
    assert shapes_of(transformer).fingerprint == shapes.fingerprint


def test_an_error_in_the_transformer_leaves_no_route_behind(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs
) -> None:
    applier = SharedApplier(transformer, library)
    batch = inputs(1)
    plain = base_velocity(transformer, batch)
    with pytest.raises(RuntimeError):
        applier.velocity(["erase"], batch | {"hidden_states": torch.zeros(1, 32, 5)})
    assert torch.equal(base_velocity(transformer, batch), plain)


@pytest.mark.parametrize("kind", ["merged", "shared"])
def test_an_unknown_expert_is_refused_with_the_names_that_there_are(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs, kind: Any
) -> None:
    applier = make_applier(transformer, library, kind)
    assert isinstance(applier, ExpertApplier)
    assert applier.kind == kind
    with pytest.raises(
        UnknownExpertError, match="expert 'blur' does not exist; the experts are erase, style, type and 'base'"
    ):
        applier.velocity(["blur"], inputs(1))
    with pytest.raises(UnknownExpertError), applier.lease(["blur"]):
        pytest.fail("it was leased")


@pytest.mark.parametrize("kind", [MergedApplier, SharedApplier])
def test_experts_come_and_go_under_a_byte_budget(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs, kind: type[MergedApplier | SharedApplier]
) -> None:
    sizes = {name: library.parameters(name) * 4 for name in library.names}
    applier = kind(transformer, library, byte_budget=sizes["erase"] + sizes["type"])
    batch = inputs(1)
    expected = {name: applier.velocity([name], batch) for name in library.names}
    assert applier.resident_bytes <= sizes["erase"] + sizes["type"]
    with applier.lease(["erase"]):
        for name in ("style", "type", "erase"):
            if sizes[name] <= sizes["type"]:
                applier.velocity([name], batch)
        assert "erase" in applier.resident
        with pytest.raises(ExpertError, match="budget"), applier.lease(["style", "type"]):
            pytest.fail("the budget was exceeded")
        with pytest.raises(ExpertError, match="in use"):
            applier.evict("erase")
    for name in (*library.names, *reversed(library.names)):
        torch.testing.assert_close(applier.velocity([name], batch), expected[name], rtol=0.0, atol=1e-4)
        assert applier.resident_bytes <= sizes["erase"] + sizes["type"]


def test_an_evicted_adapter_frees_its_weights(transformer: nn.Module, library: MemoryLibrary, inputs: Inputs) -> None:
    applier = SharedApplier(transformer, library)

    def held() -> int:
        return sum(p.numel() for name, p in transformer.named_parameters() if ".lora_" in name)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        applier.velocity(["erase", "style"], inputs(2))
        assert held() * 4 == applier.resident_bytes
        assert held() == library.parameters("erase") + library.parameters("style")
        applier.evict("erase")
        applier.evict("style")
    assert held() == 0
    assert applier.resident == ()


def test_a_replaced_expert_is_used_after_forget(
    transformer: nn.Module, library: MemoryLibrary, inputs: Inputs, lora: Lora, shapes: BaseShapes
) -> None:
    own = MemoryLibrary({"erase": lora(1)}, shapes)
    applier = SharedApplier(transformer, own)
    batch = inputs(1)
    old = applier.velocity(["erase"], batch)
    own.add("erase", lora(9))
    applier.evict("erase")
    assert not torch.allclose(applier.velocity(["erase"], batch), old, atol=1e-3)
    own.remove("erase")
    with pytest.raises(UnknownExpertError):
        applier.velocity(["erase"], batch)


def test_guidance_is_taken_per_row(library: MemoryLibrary, inputs: Inputs, lora: Lora) -> None:
    from careedit_tiny.models.family import build_transformer

    with torch.inference_mode(False):
        guided = cast(nn.Module, build_transformer(guidance_embeds=True)).eval()
    own = MemoryLibrary({"a": lora(1), "b": lora(2)}, shapes_of(guided))
    applier = SharedApplier(guided, own)
    batch = inputs(3) | {"guidance": torch.tensor([1.0, 30.0, 50.0])}
    together = applier.velocity(["a", "b", "a"], batch)
    for index, name in enumerate(["a", "b", "a"]):
        alone = row(batch, index) | {"guidance": batch["guidance"][index : index + 1]}
        torch.testing.assert_close(together[index : index + 1], applier.velocity([name], alone), rtol=0.0, atol=1e-4)
