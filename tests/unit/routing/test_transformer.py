"""The learned router: its network and its answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageDraw

from careedit.errors import AdapterError, ManifestError
from careedit.routing import Router, RoutingFeatures, build_router
from careedit.routing.transformer import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    RouterConfig,
    RouterModel,
    TransformerRouter,
    collate,
    save_router,
    top_k_weights,
)
from careedit_tiny.models.clip import save_clip, untrained_encoder

NAMES = ("erase", "compose", "style")
EXPERTS = [SimpleNamespace(name=name, competence=name, handles=()) for name in NAMES]
MASK = (0.1, 0.1, 0.5, 0.5)


def config(**changes) -> RouterConfig:
    shape = {"experts": NAMES, "encoder_width": 128, "visual_tokens": 64, "width": 32, "heads": 8}
    return RouterConfig(**(shape | changes))


def network(**changes) -> RouterModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return RouterModel(config(**changes))


@pytest.fixture(scope="module")
def encoder():
    return untrained_encoder()


@pytest.fixture(scope="module")
def picture():
    drawn = Image.new("RGB", (64, 64), "beige")
    ImageDraw.Draw(drawn).ellipse((10, 10, 30, 30), fill="red")
    return drawn


def test_the_network_is_the_stated_one():
    model = network(width=64)
    assert len(model.layers.layers) == 2
    assert {layer.self_attn.num_heads for layer in model.layers.layers} == {8}


def test_a_decision_is_whole_and_repeats(encoder, picture):
    router = TransformerRouter(network(), encoder, EXPERTS)
    features = RoutingFeatures("remove the red circle", picture)
    decision = router.route(features, top_k=2)

    assert isinstance(router, Router)
    assert decision == router.route(features, top_k=2)
    assert set(decision.probabilities) == set(NAMES)
    assert sum(decision.probabilities.values()) == pytest.approx(1)
    assert sum(decision.weights.values()) == pytest.approx(1)
    assert len(decision.weights) == 2
    assert decision.router == "transformer"
    assert 0 < decision.feasible < 1


def test_words_picture_mask_and_reference_each_reach_the_decision(encoder, picture):
    router = TransformerRouter(network(), encoder, EXPERTS)
    plain = RoutingFeatures("remove the red circle", picture)
    others = [
        RoutingFeatures("remove the red square", picture),
        RoutingFeatures("remove the red circle", Image.new("RGB", (64, 64), "navy")),
        RoutingFeatures("remove the red circle", picture, mask_area=0.2, mask_bbox=MASK),
        RoutingFeatures("remove the red circle", picture, mask_area=0.9, mask_bbox=MASK),
        RoutingFeatures("remove the red circle", picture, references=(picture,)),
    ]
    decided = [tuple(router.route(features, top_k=1).probabilities.values()) for features in (plain, *others)]
    assert len(set(decided)) == len(decided)


def test_a_neighbour_in_the_batch_changes_nothing(encoder, picture):
    model = network().eval()
    short = RoutingFeatures("remove it", picture).tokens(encoder)
    long = RoutingFeatures("make it look like an old sepia photo", picture, references=(picture,)).tokens(encoder)
    with torch.inference_mode():
        alone, together = model(collate([short])), model(collate([short, long]))
    torch.testing.assert_close(alone.experts[0], together.experts[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone.feasible[0], together.feasible[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("k", range(1, len(NAMES) + 1))
def test_the_router_has_a_gradient_for_every_k(encoder, picture, k):
    model = network()
    batch = collate([RoutingFeatures("remove the red circle", picture).tokens(encoder)])
    reward = torch.tensor([[0.0, 1.0, 0.3]])
    (top_k_weights(model(batch).experts, k) * reward).sum().backward()
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None}
    assert norms["experts.weight"] > 1e-6
    assert norms["project.weight"] > 1e-8


def test_an_instruction_that_does_not_apply_gets_the_base_and_the_reason(encoder, picture):
    router = TransformerRouter(network(feasible_threshold=1.0), encoder, EXPERTS)
    decision = router.route(RoutingFeatures("remove the red circle", picture), top_k=2)
    assert decision.weights == {"base": 1.0}
    assert decision.feasible < 1
    assert "does not seem to apply" in decision.reason


def test_low_confidence_falls_back_to_the_base_with_the_reason(encoder, picture):
    router = TransformerRouter(network(confidence_threshold=0.99), encoder, EXPERTS)
    decision = router.route(RoutingFeatures("remove the red circle", picture), top_k=1)
    assert decision.weights == {"base": 1.0}
    assert decision.reason.startswith("Low confidence: the likeliest expert is")


def test_temperature_softens_the_probabilities(encoder, picture):
    features = RoutingFeatures("remove the red circle", picture)
    sharp = TransformerRouter(network(temperature=0.2), encoder, EXPERTS).route(features, top_k=1)
    soft = TransformerRouter(network(temperature=5.0), encoder, EXPERTS).route(features, top_k=1)
    assert max(sharp.probabilities.values()) > max(soft.probabilities.values())
    assert sharp.entropy < soft.entropy


def test_an_unlikely_second_expert_is_not_paid_for(encoder, picture):
    router = TransformerRouter(network(temperature=0.05, least_share=1.0), encoder, EXPERTS)
    assert len(router.route(RoutingFeatures("remove it", picture), top_k=3).weights) == 1


def test_an_expert_that_the_set_lacks_is_never_chosen(encoder, picture):
    router = TransformerRouter(network(), encoder, [EXPERTS[2], SimpleNamespace(name="new", competence="", handles=())])
    decision = router.route(RoutingFeatures("remove the red circle", picture), top_k=3)
    assert decision.weights == {"style": 1.0}
    with pytest.raises(ManifestError, match="has none of them"):
        TransformerRouter(network(), encoder, [])


def test_another_encoder_is_refused(encoder, picture):
    with pytest.raises(ManifestError, match="width 64, its encoder gives 128"):
        TransformerRouter(network(encoder_width=64), encoder, EXPERTS)
    router = TransformerRouter(network(visual_tokens=256), encoder, EXPERTS)
    with pytest.raises(ManifestError, match="256 tokens per picture"):
        router.route(RoutingFeatures("remove it", picture), top_k=1)


def test_it_is_saved_and_built_from_a_sets_options(encoder, picture, tmp_path):
    save_clip(encoder.model, tmp_path / "clip")
    save_router(network(), tmp_path / "router")
    options = {
        "config": str(tmp_path / "router" / CONFIG_FILE),
        "weights": str(tmp_path / "router" / WEIGHTS_FILE),
        "encoder": str(tmp_path / "clip"),
    }
    features = RoutingFeatures("remove the red circle", picture)
    built = build_router("transformer", experts=EXPERTS, options=options).route(features, top_k=1)
    direct = TransformerRouter(network(), encoder, EXPERTS).route(features, top_k=1)
    assert built.probabilities == pytest.approx(direct.probabilities, abs=2e-2)

    (tmp_path / "router" / WEIGHTS_FILE).write_bytes(b"no")
    with pytest.raises(AdapterError, match=r"router\.safetensors cannot be read"):
        build_router("transformer", experts=EXPERTS, options=options)
    (tmp_path / "router" / CONFIG_FILE).write_text('{"experts": []}')
    with pytest.raises(ManifestError, match=r"router\.json does not accept \[\] for its field 'experts'"):
        build_router("transformer", experts=EXPERTS, options=options)


def test_missing_options_are_named():
    with pytest.raises(
        ManifestError, match="router 'transformer' cannot be used: TransformerOptions needs the field 'config'"
    ):
        build_router("transformer", experts=EXPERTS)
