"""Scores per second of the metrics, over a script that measures one image at a time as MagicBrush's does."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms.functional import to_tensor

from careedit.bench.timing import Comparison, compare
from careedit.editing.base_model import use_threads
from careedit.encoders import OpenClipEncoder, load_encoder
from careedit.files import png_bytes
from careedit_eval.errors import RunError
from careedit_eval.metrics import ScoreItem, backbones, load_metric
from careedit_eval.metrics.similarity import cosine
from careedit_eval.records import EditRow, Metric, Sample
from careedit_eval.suite import Workers

NEAR = 2e-3
"""The largest difference between the two ways in any mean; both must give the same number."""

Means = Mapping[str, float]


def metric_speedup(samples: Sequence[Sample], *, sets: int, repeats: int, threads: int = 1) -> Comparison:
    """Seconds of the script over those of the metrics, for `sets` edits of every sample by CLIP-I, CLIP-T, L1 and L2.

    CLIP-T also measures the target itself. MagicBrush's script measures one set, so it runs once per set. Here each target and
    caption is embedded once for all metrics. Raises `RunError` if the two ways give different means.
    """
    edits = [[_edited(sample, shift) for sample in samples] for shift in range(sets)]
    encoder = load_encoder(str(backbones.packaged("tiny_clip")), device="cpu", cache_entries=0)
    means: dict[str, Means] = {}

    def by_script() -> None:
        means["script"] = _script(encoder, samples, edits)

    def by_metrics() -> None:
        means["metrics"] = _measure(samples, edits)

    with use_threads(threads):
        found = compare("script", by_script, "metrics", by_metrics, repeats=repeats, device=torch.device("cpu"))
    _check(means["metrics"], means["script"])
    return found


def _edited(sample: Sample, shift: int) -> bytes:
    """An image that an editor might have made: the source, with every set a little brighter than the one before."""
    source = Image.open(io.BytesIO(sample.source.read())).convert("RGB")
    return png_bytes(source.point([min(255, value + 3 * shift + 1) for value in range(256)] * 3))


def _measure(samples: Sequence[Sample], edits: Sequence[Sequence[bytes]]) -> Means:
    """By the metrics, with nothing cached, in batches of the pipeline's size."""
    text, image = (load_metric(name, protocol="tiny-v1") for name in ("clip_t", "clip_i"))
    metrics = [image, text, load_metric("l1"), load_metric("l2")]
    backbone = backbones.clip_backbone(None, None, "cpu")
    backbone.images.forget()
    backbone.texts.forget()
    kept: dict[str, list[float]] = {}
    for arm, made in enumerate(edits):
        _score(metrics, samples, made, str(arm), kept, "")
    _score([text], samples, [sample.target.read() for sample in samples if sample.target], "truth", kept, "_oracle")
    return {name: float(np.mean(values)) for name, values in kept.items()}


def _score(
    metrics: Sequence[Metric],
    samples: Sequence[Sample],
    made: Sequence[bytes],
    arm: str,
    kept: dict[str, list[float]],
    suffix: str,
) -> None:
    size = Workers().score_batch
    for first in range(0, len(samples), size):
        pairs = zip(samples[first : first + size], made[first : first + size], strict=True)
        items = [ScoreItem(sample, _row(sample, arm), data) for sample, data in pairs]
        for metric in metrics:
            for one in metric.score(items):
                for name, value in one.values.items():
                    kept.setdefault(name + suffix, []).append(value)


def _row(sample: Sample, arm: str) -> EditRow:
    return EditRow(
        edit_key=f"{arm} {sample.id}",
        sample_id=sample.id,
        kind=sample.kind,
        group=sample.group,
        arm=arm,
        seed=0,
        picture="-",
        picture_sha256="0" * 64,
    )


def _script(encoder: OpenClipEncoder, samples: Sequence[Sample], edits: Sequence[Sequence[bytes]]) -> Means:
    """MagicBrush's `evaluation/image_eval.py` with this CLIP: every metric opens its own images and embeds them one by one."""
    kept: dict[str, list[float]] = {name: [] for name in ("l1", "l2", "clip_i", "clip_t", "clip_t_oracle")}
    losses = {"l1": functional.l1_loss, "l2": functional.mse_loss}

    def embedded(picture: Image.Image) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return encoder.image_embeddings([picture])[0].double().numpy()

    for made in edits:
        for name, loss in losses.items():
            for edit, target in _opened(samples, made):
                resized = edit.resize(target.size)
                kept[name].append(float(loss(to_tensor(resized), to_tensor(target))))
        for edit, target in _opened(samples, made):
            kept["clip_i"].append(cosine(embedded(edit), embedded(target)))
        for sample, (edit, target) in zip(samples, _opened(samples, made), strict=True):
            words = encoder.text_embeddings([sample.texts["target_caption"]])[0].double().numpy()
            kept["clip_t"].append(cosine(embedded(edit), words))
            kept["clip_t_oracle"].append(cosine(embedded(target), words))
    return {name: float(np.mean(values)) for name, values in kept.items()}


def _opened(samples: Sequence[Sample], made: Sequence[bytes]) -> Iterator[tuple[Image.Image, Image.Image]]:
    """The edit and the target of every sample, decoded again."""
    for sample, data in zip(samples, made, strict=True):
        if sample.target is not None:
            edit, target = (Image.open(io.BytesIO(one)).convert("RGB") for one in (data, sample.target.read()))
            yield edit, target


def _check(found: Means, theirs: Means) -> None:
    for name, value in theirs.items():
        if abs(found[name] - value) > NEAR:
            raise RunError(f"The metrics say {name} = {found[name]:.4f}, the script {value:.4f}; one of them is wrong.")
