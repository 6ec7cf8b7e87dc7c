"""LPIPS (Zhang and others, CVPR 2018), version 0.1: the distance of deep features, weighted by published linear layers.

The weights come from two files of the user: a backbone in torchvision's layout, and the linear layers as the authors publish
them. They are read by name, and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from careedit_eval.errors import MetricError, reason_of
from careedit_eval.metrics.backbones import hash_tensors
from careedit_eval.metrics.base import ScoreItem, one_by_one, resized, size_of
from careedit_eval.metrics.official import weights_of_files
from careedit_eval.metrics.options import LpipsOptions
from careedit_eval.metrics.pixels import PIE_BENCH, RESIZED
from careedit_eval.records import Measurement, Metric, MetricSpec, Output

SMALLEST = 32
"""The minimum side of an image, in pixels: below it a backbone has no pixel left in its last layer."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""How the authors normalise each channel of an image from -1 to 1."""


class Net(NamedTuple):
    """One of the three backbones."""

    build: Callable[[], nn.Module]
    """Makes torchvision's model without weights."""
    ends: tuple[int, ...]
    """The layers of `features` at which a tap ends; the next one starts there."""
    channels: tuple[int, ...]
    """The number of channels of each tap."""


NETS: Mapping[str, Net] = {
    "alex": Net(models.alexnet, (2, 5, 8, 10, 12), (64, 192, 384, 256, 256)),
    "vgg": Net(models.vgg16, (4, 9, 16, 23, 30), (64, 128, 256, 512, 512)),
    "squeeze": Net(models.squeezenet1_1, (2, 5, 8, 10, 11, 12, 13), (64, 128, 256, 384, 384, 512, 512)),
}
"""The backbones by the name that LPIPS gives them."""


class Distance:
    """The distance of two images by one backbone and its linear layers."""

    def __init__(self, net: str, backbone: Path, heads: Path, device: str) -> None:
        """Reads both files. Raises `MetricError`, which names what is missing, unexpected or of another shape."""
        made = NETS[net]
        with torch.device("meta"):
            model: Any = made.build()
        found = read_tensors(backbone)
        _check(found, {name: value.shape for name, value in model.state_dict().items()}, backbone, f"LPIPS's {net}")
        linear = read_tensors(heads)
        wanted = {f"lin{i}.model.1.weight": torch.Size((1, n, 1, 1)) for i, n in enumerate(made.channels)}
        _check(linear, wanted, heads, f"the linear layers of LPIPS's {net}")
        features = {name.removeprefix("features."): value for name, value in found.items() if name[:9] == "features."}
        model.features.load_state_dict(features, assign=True)
        layers: nn.Sequential = model.features.float().eval().requires_grad_(False)
        self._taps = [layers[first:last].to(device) for first, last in pairwise((0, *made.ends))]
        self._heads = [linear[name].float().to(device) for name in wanted]
        self._shift, self._scale = (torch.tensor(one, device=device).view(1, 3, 1, 1) for one in (SHIFT, SCALE))
        self._device = device
        self.revision = hash_tensors({**features, **linear})

    @torch.inference_mode()
    def __call__(self, one: Image.Image, other: Image.Image) -> float:
        """The distance of two RGB images of one size, from 0. Raises `MetricError` for a smaller size than `SMALLEST`."""
        if min(one.size) < SMALLEST:
            raise MetricError(
                f"The image is {size_of(one)}, and LPIPS needs {SMALLEST} pixels on each side; give larger images."
            )
        sides = [self._pixels(image) for image in (one, other)]
        total = 0.0
        for tap, head in zip(self._taps, self._heads, strict=True):
            sides = [tap(side) for side in sides]
            first, second = (side / (side.square().sum(1, keepdim=True).sqrt() + 1e-10) for side in sides)
            total += float(((first - second).square() * head).sum(1).mean())
        return total

    def _pixels(self, image: Image.Image) -> Tensor:
        values = torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        return (values.to(self._device) - self._shift) / self._scale


class Lpips:
    """LPIPS between the edit and the target or the source; each pair is measured alone."""

    def __init__(self, options: LpipsOptions) -> None:
        files = [Path(name).expanduser().resolve() for name in (options.backbone, options.heads)]
        view = options.view
        self.view, self.needs = view, view.needs
        self._distance = _distance(options.net, *files, options.device)
        name = view.name("lpips")
        self.spec = MetricSpec(
            name=name,
            outputs=(Output(name=name, better="lower"),),
            protocol=view.protocol(PIE_BENCH),
            backbone=f"lpips 0.1 {options.net}",
            revision=self._distance.revision,
            weights=weights_of_files(files),
            preprocessing=view.preprocessing(f"{RESIZED.replace('from 0', 'from -1')}"),
            reference=view.against,
            dtype="float32",
            settings=view.settings,
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def measure(item: ScoreItem) -> Measurement:
            edited, reference = self.view.pair(item)
            value = self._distance(resized(edited, reference.size), reference)
            notes = (*item.resizing(reference.size), *self.view.decoded(item))
            return Measurement(values={self.spec.name: value}, notes=notes)

        return one_by_one(batch, measure)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, by name, on the CPU. Raises `MetricError`."""
    try:
        found: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch raises an error of its own per kind of damage
        raise MetricError(
            f"The weights {str(path)!r} cannot be read ({reason_of(error)}); get the file again."
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise MetricError(f"{str(path)!r} is not a file of named tensors; give the published file.")
    return {str(name): value for name, value in found.items()}


def _check(found: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], path: Path, what: str) -> None:
    """Raise `MetricError` unless a file has exactly the wanted tensors."""
    for names, word in ((wanted.keys() - found, "lacks"), (found.keys() - wanted, "has the unexpected")):
        if names:
            first = min(names)
            raise MetricError(f"{path.name} {word} {first!r} and is not the file of {what}; give the published one.")
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise MetricError(
                f"{path.name} has {name!r} as {list(found[name].shape)}, {what} has {list(shape)}; give the published file."
            )


@lru_cache(maxsize=4)
def _distance(net: str, backbone: Path, heads: Path, device: str) -> Distance:
    return Distance(net, backbone, heads, device)


def lpips(options: LpipsOptions) -> Metric:
    """LPIPS from its options."""
    return Lpips(options)
