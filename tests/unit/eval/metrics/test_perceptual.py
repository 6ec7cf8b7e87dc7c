"""PSNR, SSIM and LPIPS against plain references, one side of a mask, and another decoder."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision import models

from careedit.errors import InputError
from careedit_eval.errors import MetricError
from careedit_eval.metrics import load_metric
from careedit_eval.metrics.lpips import NETS, SCALE, SHIFT, read_tensors
from careedit_eval.metrics.official import weights_of_files, weights_of_model
from careedit_eval.metrics.pixels import EQUAL, SIGMA, WINDOW, ssim_of
from careedit_eval.metrics.views import DECODED, View


def value(metric, item):
    (found,) = metric.score([item])
    assert found.error is None, found.error
    return found.values[metric.spec.name]


def black(picture, keep):
    return np.asarray(picture, np.float64) / 255 * np.asarray(keep)[..., None]


@pytest.fixture
def pair(draw_picture):
    return draw_picture((40, 34), 3), draw_picture((40, 34), 5)


def windowed_ssim(one, other, mirrored):
    """Wang and others, 2004, equation 13: window by window, weight by weight."""
    side = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(side[:, None] ** 2 + side**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    found = []
    for channel in range(3):
        x, y = one[..., channel], other[..., channel]
        if mirrored:
            x, y = (np.pad(picture, WINDOW // 2, mode="reflect") for picture in (x, y))
        for top in range(x.shape[0] - WINDOW + 1):
            for left in range(x.shape[1] - WINDOW + 1):
                a, b = (picture[top : top + WINDOW, left : left + WINDOW] for picture in (x, y))
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                found.append(
                    (2 * mean_a * mean_b + 1e-4)
                    * (2 * both + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
                )
    return np.mean(found)


@pytest.mark.parametrize("borders", ["mirrored", "left out"])
def test_ssim_is_the_sum_over_windows(make_item, pair, borders):
    edited, target = pair
    by_hand = windowed_ssim(black(edited, 1), black(target, 1), borders == "mirrored")
    assert value(load_metric("ssim", borders=borders), make_item(target, edited, target=target)) == pytest.approx(
        by_hand
    )
    assert ssim_of(black(target, 1), black(target, 1)) == pytest.approx(1)


def test_psnr_is_in_decibels_and_equal_images_have_a_number(make_item, pair):
    edited, target = pair
    squared = ((np.asarray(edited, float) - np.asarray(target, float)) ** 2).mean()
    metric = load_metric("psnr")
    assert value(metric, make_item(target, edited, target=target)) == pytest.approx(10 * np.log10(255**2 / squared))
    (found,) = metric.score([make_item(target, target, target=target)])
    assert (found.values, found.notes) == ({"psnr": 100.0}, (EQUAL,))


@pytest.mark.parametrize("area", ["inside", "outside"])
def test_one_side_of_the_mask_is_measured_with_the_other_black(make_item, draw_mask, pair, area):
    """As PIE-Bench's script: both images times the mask, then the metric over all pixels."""
    edited, source = pair
    mask = draw_mask(source.size)
    inside = np.asarray(mask) > 0
    one, other = (black(picture, inside if area == "inside" else ~inside) for picture in (edited, source))
    item = make_item(source, edited, mask=mask)
    options = {"against": "source", "area": area}
    assert value(load_metric("l2", **options), item) == pytest.approx(((one - other) ** 2).mean())
    assert value(load_metric("ssim", **options), item) == pytest.approx(windowed_ssim(one, other, True))
    assert load_metric("psnr", **options).spec.name == f"psnr_source_{area}"
    everything = make_item(source, edited, mask=Image.new("L", source.size, 255))
    (found,) = load_metric("psnr", against="source", area="outside").score([everything])
    assert found.not_applicable == "The mask leaves no pixel outside it."


def test_an_image_smaller_than_a_window_is_an_error(make_item, draw_picture):
    small = draw_picture((40, 10))
    (found,) = load_metric("ssim").score([make_item(small, small, target=small)])
    assert found.error is not None and "40x10" in found.error


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A random squeezenet in torchvision's layout, and linear layers in LPIPS' layout."""
    folder = tmp_path_factory.mktemp("lpips")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        torch.save(models.squeezenet1_1().state_dict(), folder / "squeezenet1_1.pth")
        heads = {f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1) for i, n in enumerate(NETS["squeeze"].channels)}
    torch.save(heads, folder / "squeeze.pth")
    return {"net": "squeeze", "backbone": str(folder / "squeezenet1_1.pth"), "heads": str(folder / "squeeze.pth")}


def plain_lpips(one, other, files):
    """Zhang and others, equation 1, with the features caught by hooks on torchvision's own model."""
    model = models.squeezenet1_1().eval()
    model.load_state_dict(torch.load(files["backbone"], weights_only=True))
    heads = list(torch.load(files["heads"], weights_only=True).values())
    sides = []
    for picture in (one, other):
        caught = []
        ends = [model.features[last - 1] for last in NETS["squeeze"].ends]
        hooks = [layer.register_forward_hook(lambda _, __, out, to=caught: to.append(out.clone())) for layer in ends]
        values = torch.tensor(picture * 2 - 1, dtype=torch.float32)
        values = ((values - torch.tensor(SHIFT)) / torch.tensor(SCALE)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            model.features(values)
        for hook in hooks:
            hook.remove()
        sides.append(caught)
    total = 0.0
    for head, x, y in zip(heads, *sides, strict=True):
        x, y = (torch.nn.functional.normalize(side, dim=1) for side in (x, y))
        total += torch.nn.functional.conv2d((x - y) ** 2, head).mean().item()
    return total


def test_lpips_is_the_weighted_distance_of_unit_features(make_item, draw_mask, draw_picture, files):
    edited, source = draw_picture((64, 48), 3), draw_picture((64, 48), 5)
    by_hand = plain_lpips(black(edited, 1), black(source, 1), files)
    metric = load_metric("lpips", against="source", **files)
    assert value(metric, make_item(source, edited)) == pytest.approx(by_hand, abs=1e-6)
    assert value(metric, make_item(source, source)) == 0
    mask = draw_mask(source.size)
    outside = np.asarray(mask) == 0
    by_hand = plain_lpips(black(edited, outside), black(source, outside), files)
    metric = load_metric("lpips", against="source", area="outside", **files)
    assert value(metric, make_item(source, edited, mask=mask)) == pytest.approx(by_hand, abs=1e-6)
    assert metric.spec.key != load_metric("lpips", against="source", **files).spec.key


def test_files_that_are_not_those_of_lpips_are_refused_by_tensor(files, tmp_path: Path):
    heads = read_tensors(Path(files["heads"]))
    torch.save({**heads, "extra": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save({name: value[:, 1:] for name, value in heads.items()}, tmp_path / "shape.pth")
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    cases = {
        "more.pth": "unexpected 'extra'",
        "shape.pth": r"'lin0.model.1.weight' as \[1, 63, 1, 1\]",
        "damaged.pth": "cannot be read",
        "missing.pth": "cannot be read",
    }
    for name, message in cases.items():
        with pytest.raises(MetricError, match=message):
            load_metric("lpips", **{**files, "heads": str(tmp_path / name)})
    with pytest.raises(MetricError, match=r"squeeze.pth lacks 'classifier"):
        load_metric("lpips", **{**files, "backbone": files["heads"]})
    with pytest.raises(InputError, match="heads"):
        load_metric("lpips", net="squeeze", backbone=files["backbone"])


def test_weights_are_official_by_hash_or_source_only(files, tmp_path: Path, monkeypatch):
    assert load_metric("lpips", **files).spec.weights == "unknown"
    assert (
        weights_of_model(None, "openai")
        == weights_of_model("facebook/dino-vits16@abc", "facebook/dino-vits16")
        == "official"
    )
    assert weights_of_model(str(tmp_path), "openai") == "unknown"
    published = tmp_path / "weights.pt"
    published.write_bytes(b"weights")
    assert weights_of_files([published]) == "unknown"
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr("careedit_eval.metrics.official.KNOWN", (digest[:8],))
    assert weights_of_model(str(published), "openai") == "official"


def test_the_script_reads_without_profile_and_turn(make_item, draw_picture):
    """MagicBrush's `Image.open(path).convert("RGB")`; careedit applies both."""
    picture = draw_picture((48, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    stored = io.BytesIO()
    picture.save(
        stored, "PNG", exif=exif, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    item = make_item(picture, picture, target=stored.getvalue())
    managed, script = load_metric("l1"), load_metric("l1", colour="as-script")
    assert managed.spec.key != script.spec.key and managed.spec.settings == {}
    assert value(managed, item) > 0.01
    (found,) = script.score([item])
    assert (found.values, found.notes) == ({"l1": 0.0}, (DECODED,))
    plain = make_item(picture, picture, target=picture)
    assert script.score([plain])[0].notes == ()
    assert View(colour="as-script").reference(plain).tobytes() == picture.tobytes()
