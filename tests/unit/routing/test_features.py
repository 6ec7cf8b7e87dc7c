"""What a router sees of a request."""

import pytest
import torch
from PIL import Image, ImageDraw

from careedit.errors import InputError
from careedit.records import EditRequest
from careedit.routing import CONDITIONS, RoutingFeatures, features_of

SOURCE = Image.new("RGB", (40, 20), "red")
REFERENCE = Image.new("RGB", (8, 8), "blue")


class CountingEncoder:
    """Two visual tokens per picture, one per word; counts its calls."""

    width = 3

    def __init__(self):
        self.calls = []

    def visual_tokens(self, image):
        self.calls.append(image.size)
        return torch.full((2, 3), float(image.width))

    def text_tokens(self, text):
        self.calls.append(text)
        return torch.zeros(len(text.split()), 3)


@pytest.fixture
def masked_request():
    mask = Image.new("L", SOURCE.size, 0)
    ImageDraw.Draw(mask).rectangle((10, 5, 19, 14), fill=255)
    return EditRequest(image=SOURCE, instruction="Remove it, please!", mask=mask, references=(REFERENCE,))


def test_a_plain_request_has_no_conditions():
    features = features_of(EditRequest(image=SOURCE, instruction="remove the dog"))

    assert not features.has_mask and not features.has_reference
    assert (features.mask_area, features.mask_bbox, features.turn) == (0.0, None, 0)
    assert features.conditions == (0.0, 0.0, 0.0)


def test_words_mask_and_reference_are_seen(masked_request):
    features = features_of(masked_request, turn=2)

    assert features.words == ("remove", "it", "please")
    assert features.instruction == "Remove it, please!"
    assert features.has_mask and features.has_reference and features.turn == 2
    assert features.mask_area == pytest.approx(100 / 800)
    assert features.mask_bbox == (10 / 40, 5 / 20, 20 / 40, 15 / 20)
    assert dict(zip(CONDITIONS, features.conditions, strict=True)) == {
        "mask_present": 1.0,
        "mask_area": pytest.approx(0.125),
        "reference_present": 1.0,
    }


def test_tokens_are_made_only_when_asked_for(masked_request):
    encoder = CountingEncoder()
    features = features_of(masked_request)
    assert encoder.calls == []

    tokens = features.tokens(encoder)

    assert encoder.calls == [(40, 20), (8, 8), "Remove it, please!"]
    assert tokens.source.shape == tokens.reference.shape == (2, encoder.width)
    assert tokens.text.shape == (3, encoder.width)
    assert tokens.conditions == features.conditions


def test_without_a_reference_there_are_no_tokens_of_one():
    tokens = features_of(EditRequest(image=SOURCE, instruction="go")).tokens(CountingEncoder())

    assert tokens.reference is None


def test_features_without_a_source_cannot_be_encoded():
    with pytest.raises(InputError, match="features_of"):
        RoutingFeatures("remove the dog").tokens(CountingEncoder())


def test_features_are_frozen():
    with pytest.raises(AttributeError):
        RoutingFeatures("a").turn = 1
