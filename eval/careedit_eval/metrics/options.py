"""The options of careedit's own metrics, as suites write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from careedit.errors import InputError
from careedit.record import Record
from careedit_eval.metrics.views import Against, Area, Colour, View

Protocol = Literal["magicbrush-v1", "tiny-v1", "own"]
"""The backbone of a metric: MagicBrush's, the tiny one of the package, or the model that `model` names."""


class DeviceOptions(Record):
    """Options of every metric with a model."""

    device: str = "cpu"
    """The device that runs the model, such as cpu or cuda."""


class BackboneOptions(DeviceOptions):
    """Options of every metric with an image backbone."""

    protocol: Protocol = "magicbrush-v1"
    """The backbone and preprocessing. It is part of a metric's identity, so numbers of two protocols are never mixed."""
    model: str | None = None
    """With the protocol "own": an open_clip name or folder, or a transformers ViT. Otherwise a local copy of the weights."""


class ClipOptions(BackboneOptions):
    """Options of every metric with CLIP."""

    pretrained: str | None = None
    """With the protocol "own": the tag of the weights of an open_clip name."""


class AreaOptions(Record):
    """Options of every metric that can look at one side of the mask."""

    area: Area = "all"
    """The side of the sample's mask that is measured; the other side is black. "all" measures the whole image."""


class ReferenceOptions(AreaOptions):
    """Options of every metric that compares the edit with one other image."""

    against: Against = "target"
    """Whether the edit is compared with the target or the source."""
    colour: Colour = "managed"
    """How that image is decoded: as careedit does, or "as-script", by Pillow alone as in MagicBrush's script. Use the latter
    to reproduce a published table whose images have colour profiles, turns or transparency."""

    @property
    def view(self) -> View:
        """What the metric sees."""
        return View(self.against, self.area, self.colour)


class PixelOptions(ReferenceOptions):
    """Options of l1, l2 and psnr."""


class SsimOptions(ReferenceOptions):
    """Options of ssim."""

    borders: Literal["mirrored", "left out"] = "mirrored"
    """The windows near the border: "mirrored" as in torchmetrics and so in PIE-Bench, "left out" as in the paper of 2004."""


class ClipImageOptions(ClipOptions, ReferenceOptions):
    """Options of clip_i."""


class DinoOptions(BackboneOptions, ReferenceOptions):
    """Options of dino."""


class ClipTextOptions(ClipOptions, AreaOptions):
    """Options of clip_t."""

    text: str = "target_caption"
    """The text of a sample that describes the result: a name in `Sample.texts`, or "instruction"."""


class ClipDirectionOptions(ClipOptions):
    """Options of clip_direction."""

    text: str = "target_caption"
    """The text of a sample that describes the result."""
    before: str = "source_caption"
    """The text of a sample that describes the source."""


class LpipsOptions(DeviceOptions, ReferenceOptions):
    """Options of lpips. Both files are torch files or safetensors files."""

    net: Literal["alex", "vgg", "squeeze"] = "alex"
    """The backbone. PIE-Bench uses "squeeze", most other tables "alex"."""
    backbone: str
    """The file of the backbone's weights in torchvision's layout, such as alexnet-owt-7be5be79.pth."""
    heads: str
    """The file of LPIPS' linear layers, version 0.1, such as lpips/weights/v0.1/alex.pth of the package lpips."""


class IdentityOptions(BackboneOptions):
    """Options of identity."""

    against: Literal["target", "source", "reference"] = "source"
    """The image with the subject: the source, the target, or the sample's first reference image, which is seen whole."""
    kinds: tuple[str, ...] = ()
    """The kinds of edit that must keep the subject; to others the metric does not apply. Empty means all kinds."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.1
    """The margin around the mask's box on each side, as a share of its longer side."""


class NoOpOptions(Record):
    """Options of no_op."""

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The largest change of a pixel in any channel, from 0 to 1, that counts as none. 0 asks for equal pixels; use about 0.1 for
    editors that encode and decode the whole image."""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The largest share of pixels that may change by more than that in an unchanged image. Use about 0.001 with a tolerance, so
    that a few pixels at edges do not count as an edit."""


class RefusalOptions(Record):
    """Options of refusal."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """An edit is refused if the router's stated probability that it can be carried out is below this value."""


class VqaScoreOptions(Record):
    """Options of vqascore."""

    model: str
    """The image-text-to-text model of transformers that is asked: a folder, a hub id, or "tiny"."""
    revision: str | None = None
    """The revision of that model; None means the newest one."""
    device: str | None = None
    """The device that runs the model; None means a GPU if one is available."""
    text: str = "target_caption"
    """The text of a sample that describes the result: a name in `Sample.texts`. An instruction does not describe a result."""
    question: str = 'Does this figure show "{text}"? Please answer yes or no.'
    """The question, with {text} for that text. The default is that of the paper."""
    answer: str = "Yes"
    """The answer whose probability is the score. The model must write it as a single token."""

    @field_validator("question")
    @classmethod
    def _check_question(cls, question: str) -> str:
        if question.count("{text}") != 1:
            raise InputError(f"The question {question!r} must have {{text}} once, the place of the sample's text.")
        return question


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


class LocalJudge(Record):
    """A judge that writes and is run here: an image-text-to-text model of transformers."""

    model: str
    """The model: a folder, or a hub id with a commit."""
    revision: str | None = None
    """The revision of the model; None means the one in `model`."""
    adapter: str | None = None
    """The folder of a LoRA of peft that is added to the model, such as EditScore's or PVC-Judge's; None adds nothing."""
    device: str | None = None
    """The device that runs it; None means a GPU if one is available. On a GPU it computes in bfloat16, else in float32."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """The temperature of sampling; 0 takes the likeliest word each time. EditScore and PVC-Judge are published with 0.7."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The share of the likeliest words that are sampled from. Without a temperature it has no effect."""
    top_k: Annotated[int, Field(ge=1)] = 20
    """The number of the likeliest words that are sampled from. Without a temperature it has no effect."""
    seed: int = 42
    """The seed of sampling. Every message is answered with this seed, so an answer does not depend on others."""
    pixels: tuple[Annotated[int, Field(ge=784)], Annotated[int, Field(ge=784)]] | None = None
    """The smallest and largest number of pixels to which an image is resized first; None leaves images to the processor.
    PVC-Judge is published with 262144 and 1310720."""

    @model_validator(mode="after")
    def _check_pixels(self) -> LocalJudge:
        if self.pixels is not None and self.pixels[0] > self.pixels[1]:
            raise InputError(f"pixels are {self.pixels[0]} to {self.pixels[1]}; give the smaller number first.")
        return self


class PreferenceOptions(Record):
    """Options of pvc: the published prompt, and the judge that is asked."""

    prompts: str
    """The YAML file of a pairwise prompt of GEditBench v2, such as visual_consistency/pairwise/v1.yaml of its repository."""
    local: LocalJudge | None = None
    """A judge that is run here."""
    endpoint: Mapping[str, Any] | None = None
    """A judge behind an HTTP endpoint instead: the fields of `careedit.scoring.openai_http.EndpointConfig`."""


class RubricOptions(Record):
    """Options of rubric: what is asked, and the judge that is asked."""

    rubric: str
    """The name of a rubric of the package (gedit, imgedit, imgedit_uge, kris, rise, editscore,
    editscore_qwen3, vie), or the path of a YAML file."""
    prompts: str | None = None
    """The file with the published prompts, for a rubric that comes without them: .json, .yaml or .py."""
    endpoint: Mapping[str, Any] | None = None
    """The judge: the fields of `careedit.scoring.openai_http.EndpointConfig`. Without a judge the suite does not start."""
    local: LocalJudge | None = None
    """A judge that is run here instead."""
    passes: Annotated[int, Field(ge=1, le=64)] = 1
    """How often each question is asked, with one seed after another; the number of an edit is the mean. EditScore's best
    figures are means of 4."""


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
