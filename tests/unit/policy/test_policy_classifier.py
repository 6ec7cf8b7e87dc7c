import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from careedit.errors import InputError
from careedit_deployments.policy.classifier import image_classifier
from careedit_deployments.policy.contract import PolicyInput, PolicyPicture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real, small classifier with random weights; its bias prefers the second label."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(image_size=32, patch_size=8, **sizes, id2label={0: "normal", 1: "nsfw"})
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 4.0]))
    path = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return str(path)


def about(role):
    pictures = (PolicyPicture(role=role, picture=Image.new("RGB", (50, 40), "blue")),)
    return PolicyInput(stage="output", level="auto", instruction="x", pictures=pictures, edit="edit_1", tenant="t")


def test_a_picture_is_refused_if_a_label_reaches_its_limit(folder):
    assert image_classifier(folder, {"nsfw": 0.5})(about("result")).verdict == "refuse"
    assert image_classifier(folder, {"nsfw": 0.5}, verdict="mark")(about("source")).verdict == "mark"
    assert image_classifier(folder, {"normal": 0.5})(about("result")).verdict == "allow"
    assert image_classifier(folder, {"nsfw": 0.5})(about("mask")).verdict == "allow", "a mask is not a picture"


@pytest.mark.parametrize(
    ("labels", "words"), [({"gore": 0.5}, "normal, nsfw"), ({"nsfw": 1.5}, "above 0 to 1"), ({}, "No label")]
)
def test_a_label_that_the_model_does_not_have_is_refused(folder, labels, words):
    with pytest.raises(InputError, match=words):
        image_classifier(folder, labels)


def test_a_folder_without_a_classifier_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        image_classifier(str(tmp_path), {"nsfw": 0.5})
