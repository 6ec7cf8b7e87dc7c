"""Metrics by their names, as suites write them. Models are imported when a metric that needs one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from careedit import plugins
from careedit.errors import InputError
from careedit.record import Record
from careedit_eval.errors import MetricError
from careedit_eval.records import Metric

Protocol = Literal["magicbrush-v1", "tiny-v1", "own"]
"""Whose backbone: MagicBrush's, the tiny one of the package, or the one that `model` names."""


class BackboneOptions(Record):
    """Options of clip_i, clip_t, clip_direction and dino."""

    protocol: Protocol = "magicbrush-v1"
    """The rules; their numbers never mix, as the protocol is part of a metric's identity."""
    model: str | None = None
    """With "own": an open_clip name or folder, or a transformers ViT. With the others: a local copy of their weights."""
    pretrained: str | None = None
    """With "own": the tag of an open_clip name's weights."""
    device: str = "cpu"
    """The device that runs the model, such as cpu or cuda."""
    against: Literal["target", "source"] = "target"
    """clip_i and dino: what the edit is compared with."""
    text: str = "target_caption"
    """clip_t and clip_direction: which text of a sample."""
    before: str = "source_caption"
    """clip_direction: the text of the source."""


class PixelOptions(Record):
    """Options of l1 and l2."""

    against: Literal["target", "source"] = "target"
    """What the edit is compared with."""


class JudgeOptions(Record):
    """Options of vqa, atomic, pairwise and viescore: a local judge or an endpoint."""

    judge: str = "tiny"
    """A folder, a hub id, or "tiny"; not for viescore, which needs an endpoint."""
    revision: str | None = None
    """The revision of that judge; None means the newest one."""
    device: str | None = None
    """The device that runs that judge; None means a GPU if one is available."""
    endpoint: Mapping[str, Any] | None = None
    """Fields of `careedit.scoring.openai_http.EndpointConfig`, instead of a local judge."""


class CostOptions(Record):
    """Options of cost."""

    per_gpu_hour: Annotated[float, Field(gt=0, lt=1e6)]
    """What an hour of the editor's device costs, in any currency."""


class NoOptions(Record):
    """Options of metrics without any."""


def _clip_i(o: BackboneOptions) -> Metric:
    from careedit_eval.metrics.similarity import ImageSimilarity, image_spec

    backbone = _clip(o)
    return ImageSimilarity(image_spec("clip_i", o.protocol, o.against, backbone), backbone.images, o.against)


def _clip_t(o: BackboneOptions) -> Metric:
    from careedit_eval.metrics.similarity import ClipText

    return ClipText(o.protocol, _clip(o), o.text)


def _clip_direction(o: BackboneOptions) -> Metric:
    from careedit_eval.metrics.similarity import ClipDirection

    return ClipDirection(o.protocol, _clip(o), o.before, o.text)


def _dino(o: BackboneOptions) -> Metric:
    from careedit_eval.metrics.backbones import MAGICBRUSH_DINO, check_dino_vits16, vit_backbone
    from careedit_eval.metrics.similarity import ImageSimilarity, image_spec

    magicbrush = o.protocol == "magicbrush-v1"
    model = (o.model or MAGICBRUSH_DINO) if magicbrush else _own(o)
    if magicbrush:
        check_dino_vits16(str(model))
    backbone = vit_backbone(model, magicbrush, o.device)
    return ImageSimilarity(image_spec("dino", o.protocol, o.against, backbone), backbone.images, o.against)


def _clip(o: BackboneOptions) -> Any:
    from careedit_eval.metrics.backbones import MAGICBRUSH_CLIP, clip_backbone

    if o.protocol == "magicbrush-v1":
        name, tag = MAGICBRUSH_CLIP
        return clip_backbone(name, o.model or tag, o.device)
    return clip_backbone(_own(o), o.pretrained, o.device)


def _own(o: BackboneOptions) -> str | None:
    if o.protocol == "own" and o.model is None:
        raise MetricError('The protocol "own" needs a model; name it by folder or hub id.')
    return o.model


def _pixels(power: Literal[1, 2]) -> Callable[[PixelOptions], Metric]:
    def build(o: PixelOptions) -> Metric:
        from careedit_eval.metrics.pixels import PixelDistance

        return PixelDistance(power, o.against)

    return build


def _preservation(_: NoOptions) -> Metric:
    from careedit_eval.metrics.pixels import Preservation

    return Preservation()


def _judge(o: JudgeOptions) -> Any:
    """The asker."""
    if o.endpoint is not None:
        from careedit.scoring.openai import EndpointAsker
        from careedit.scoring.openai_http import EndpointConfig

        config = EndpointConfig(**o.endpoint)
        if config.answers == "auto":  # settled by the first answer, and with it the metric's identity
            raise MetricError(
                'An endpoint that measures must say how it answers; set `answers` to "logprobs" or "json".'
            )
        return EndpointAsker(config)
    from careedit.scoring.vlm import load_judge

    return load_judge(o.judge, revision=o.revision, device=o.device).asker


def _vqa(o: JudgeOptions) -> Metric:
    from careedit.scoring import VqaScorer
    from careedit_eval.metrics.judged import VqaMetric

    return VqaMetric(VqaScorer(_judge(o)))


def _atomic(o: JudgeOptions) -> Metric:
    from careedit.scoring import AtomicScorer
    from careedit_eval.metrics.judged import VqaMetric

    return VqaMetric(AtomicScorer(_judge(o)), name="atomic")


def _pairwise(o: JudgeOptions) -> Metric:
    from careedit_eval.metrics.judged import PairwiseWin

    return PairwiseWin(_judge(o))


def _viescore(o: JudgeOptions) -> Metric:
    from careedit.scoring.openai_http import EndpointConfig
    from careedit_eval.metrics.endpoint_writer import EndpointWriter
    from careedit_eval.metrics.vie import VieScore

    if o.endpoint is None:
        raise MetricError("viescore needs a judge that writes; give the fields of an endpoint under `endpoint`.")
    return VieScore(EndpointWriter(EndpointConfig(**o.endpoint)))


def _counted(name: Literal["latency", "nfe"]) -> Callable[[NoOptions], Metric]:
    def build(_: NoOptions) -> Metric:
        from careedit_eval.metrics import counted

        return counted.latency() if name == "latency" else counted.nfe()

    return build


def _cost(o: CostOptions) -> Metric:
    from careedit_eval.metrics.counted import cost

    return cost(o.per_gpu_hour)


Options = TypeVar("Options", bound=Record)

METRICS: Mapping[str, tuple[type[Record], Callable[[Any], Metric]]] = {
    "clip_i": (BackboneOptions, _clip_i),
    "clip_t": (BackboneOptions, _clip_t),
    "clip_direction": (BackboneOptions, _clip_direction),
    "dino": (BackboneOptions, _dino),
    "l1": (PixelOptions, _pixels(1)),
    "l2": (PixelOptions, _pixels(2)),
    "preservation": (NoOptions, _preservation),
    "vqa": (JudgeOptions, _vqa),
    "atomic": (JudgeOptions, _atomic),
    "pairwise": (JudgeOptions, _pairwise),
    "viescore": (JudgeOptions, _viescore),
    "latency": (NoOptions, _counted("latency")),
    "nfe": (NoOptions, _counted("nfe")),
    "cost": (CostOptions, _cost),
}
"""careedit's own metrics: the record of its options, and what is built from it."""


def metric_names() -> tuple[str, ...]:
    """The names that a suite may use: careedit's metrics and those of installed packages."""
    return (*METRICS, *plugins.names(plugins.METRICS))


def find_metric(name: str) -> tuple[type[Record], Callable[[Any], Metric]]:
    """The options record and the builder of a metric. Raises `InputError` for an unknown name."""
    found: tuple[type[Record], Callable[[Any], Metric]] | None = METRICS.get(name) or plugins.load(
        plugins.METRICS, name, error=MetricError
    )
    if found is None:
        raise InputError(f"The metric {name!r} does not exist; choose from {', '.join(metric_names())}.")
    return found


def load_metric(name: str, /, **options: Any) -> Metric:
    """A metric by its name and options, its model loaded; models are shared. Raises `InputError` or `MetricError`."""
    config, build = find_metric(name)
    return build(config(**options))
