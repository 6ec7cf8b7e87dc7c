"""The options of careedit's own metrics, as suites write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from careedit.record import Record

Protocol = Literal["magicbrush-v1", "tiny-v1", "own"]
"""The backbone of a metric: MagicBrush's, the tiny one of the package, or the model that `model` names."""


class BackboneOptions(Record):
    """Options of clip_i, clip_t, clip_direction and dino."""

    protocol: Protocol = "magicbrush-v1"
    """The backbone and preprocessing. It is part of a metric's identity, so numbers of two protocols are never mixed."""
    model: str | None = None
    """With the protocol "own": an open_clip name or folder, or a transformers ViT. Otherwise a local copy of the weights."""
    pretrained: str | None = None
    """With the protocol "own": the tag of the weights of an open_clip name."""
    device: str = "cpu"
    """The device that runs the model, such as cpu or cuda."""
    against: Literal["target", "source"] = "target"
    """What clip_i and dino compare the edit with."""
    text: str = "target_caption"
    """The text of a sample that clip_t and clip_direction use."""
    before: str = "source_caption"
    """The text of the source that clip_direction uses."""


class PixelOptions(Record):
    """Options of l1 and l2."""

    against: Literal["target", "source"] = "target"
    """Whether the edit is compared with the target or the source."""


class JudgeOptions(Record):
    """Options of vqa, atomic, pairwise and viescore: a local judge or an endpoint."""

    judge: str = "tiny"
    """The local judge: a folder, a hub id, or "tiny". viescore ignores it, because it needs an endpoint."""
    revision: str | None = None
    """The revision of that judge; None means the newest one."""
    device: str | None = None
    """The device that runs that judge; None means a GPU if one is available."""
    endpoint: Mapping[str, Any] | None = None
    """A judge behind an HTTP endpoint instead: the fields of `careedit.scoring.openai_http.EndpointConfig`."""


class RubricOptions(Record):
    """Options of rubric: what is asked, and the judge that is asked."""

    rubric: str
    """The name of a rubric of the package (gedit, imgedit, imgedit_uge, kris, rise, vie), or the path of a YAML file."""
    prompts: str | None = None
    """The file with the published prompts, for a rubric that comes without them: .json, .yaml or .py."""
    endpoint: Mapping[str, Any] | None = None
    """The judge: the fields of `careedit.scoring.openai_http.EndpointConfig`. Without a judge the suite does not start."""


class RewardOptions(Record):
    """Options of editreward: the published checkpoint, its base, and its prompts."""

    weights: str
    """The checkpoint: model.safetensors or model.pth, or the folder that has it."""
    base: str
    """The model that it was trained from, for its configuration and processor: a folder, or a hub id with a commit."""
    prompts: str
    """The folder EditReward/dataset of the published repository, with its prompts. Nothing in it is executed."""
    revision: str | None = None
    """The revision of the base; None means the one in `base`."""
    device: str | None = None
    """The device that runs it; None means a GPU if one is available. On a GPU it computes in bfloat16, else in float32."""


class CostOptions(Record):
    """Options of cost."""

    per_gpu_hour: Annotated[float, Field(gt=0, lt=1e6)]
    """The price of one hour of the editor's device, in any currency."""


class NoOptions(Record):
    """Options of metrics without any."""
