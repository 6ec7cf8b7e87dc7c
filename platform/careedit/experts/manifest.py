"""The files that users write: an expert's manifest (`expert.yaml`) and a set's own file (`expert_set.yaml`)."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from careedit.errors import AdapterError, BaseMismatchError, ManifestError
from careedit.files import check_relative
from careedit.record import YamlRecord
from careedit.records import BASE

MANIFEST_FILE = "expert.yaml"
"""Name of a manifest inside its expert's folder."""

SET_FILE = "expert_set.yaml"
"""Name of the file that makes a folder an expert set."""

Application = Literal["merged", "shared"]
"""How adapters are applied: merged into the base's weights, or kept separate and chosen per row of a batch."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def check_name(name: str) -> str:
    """Returns `name` if it can name an expert or a set; otherwise raises `ManifestError`."""
    if not _NAME.fullmatch(name):
        raise ManifestError(
            f"The name {name[:80]!r} cannot be used; take 1 to 64 of a-z, 0-9, _ and -, starting with a letter or digit."
        )
    if name in {BASE, "auto"}:
        raise ManifestError(f"The name {name!r} is taken by careedit itself; choose another.")
    return name


def _check_file(name: str) -> str:
    check_relative(name)
    if not name.endswith(".safetensors"):
        raise AdapterError(f"The adapter file {name[:120]!r} is not a .safetensors file; other formats can run code.")
    return name


Name = Annotated[str, AfterValidator(check_name)]
"""A name that is safe in paths, URLs, labels and module names."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 digest in lower-case hexadecimal."""

Sentence = Annotated[str, Field(min_length=1, max_length=500)]
"""A text of up to 500 characters that is shown to people."""


class BaseReference(YamlRecord):
    """The base that an expert was trained on."""

    name: Sentence
    """Name of the base. It is only shown to people."""
    fingerprint: Sha256
    """`BaseShapes.fingerprint` of the base: shapes, family and variant. An expert fits a base with the same fingerprint."""


class ExpertManifest(YamlRecord):
    """One expert: a LoRA adapter and what is known about it."""

    format_version: Literal[1] = 1
    """Version of the format of this file."""
    name: Name
    """Name of the expert, unique within an expert set."""
    competence: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_ -]{0,63}$")]
    """What the expert is for, in one word: erase, compose, style, identity, reference, or your own word."""
    description: Sentence
    """What the expert does, in one sentence."""
    handles: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")], ...]
    """Kinds of edits and conditions that the expert is for, e.g. "remove", "mask", "reference". The rules router uses them."""
    file: Annotated[str, AfterValidator(_check_file)]
    """Name of the adapter file, relative to the manifest's folder."""
    sha256: Sha256
    """sha256 of the adapter file, in hexadecimal."""
    rank: Annotated[int, Field(ge=1)]
    """Largest rank of the modules that the file changes."""
    alpha: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False)]
    """LoRA's alpha: the update B @ A is scaled by alpha / rank. The most common one, where modules differ."""
    alpha_source: Annotated[Literal["file", "manifest"], Field(exclude_if=lambda value: value == "file")] = "file"
    """Where alpha comes from. "file": the file's keys or header, or else alpha equals the rank. "manifest": the file states no
    alpha, so the alpha here is used for every layer (`--alpha`). A file in peft's format always takes the manifest's."""
    format: Literal["diffusers", "peft", "icedit"]
    """Which program wrote the file: diffusers (`save_lora_weights`), peft (`save_pretrained`) or ICEdit's training."""
    base: BaseReference
    """The base that the expert fits."""
    licence: Sentence
    """Licence of the weights, as an SPDX expression if one exists."""
    provenance: Sentence
    """Where the weights come from: recipe and data, or an address."""

    @property
    def states_alpha(self) -> bool:
        """Whether the file is read with the manifest's alpha."""
        return self.format == "peft" or self.alpha_source == "manifest"


def check_base(manifest: ExpertManifest, fingerprint: str, label: str | None = None) -> None:
    """Raises `BaseMismatchError` if the manifest names another base; opens no file. `label` names the base in the error."""
    if manifest.base.fingerprint != fingerprint:
        this = fingerprint[:12] if label is None else f"{label} ({fingerprint[:12]})"
        raise BaseMismatchError(
            f"The expert {manifest.name!r} does not fit this base: it was made for {manifest.base.name!r} "
            f"({manifest.base.fingerprint[:12]}), this base is {this}; use the base it was made for."
        )


class BaseLora(YamlRecord):
    """A LoRA that is part of the base, such as one that distils it to a few steps. It is on for every edit and expert."""

    file: Annotated[str, AfterValidator(_check_file)]
    """Name of the LoRA file, relative to the set's folder. Every layout that an expert may have is accepted."""
    sha256: Sha256
    """sha256 of the LoRA file, in hexadecimal."""
    alpha: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False)] | None = None
    """LoRA's alpha, for a file that does not state it. Default: the file's own, or else its rank."""


class BaseTransformer(YamlRecord):
    """A single file of quantised weights that replaces the base's own transformer, in Black Forest Labs' formats."""

    file: Annotated[str, AfterValidator(_check_file)]
    """Name of the safetensors file, relative to the set's folder."""
    sha256: Sha256
    """sha256 of the file, in hexadecimal."""


def _is_none(value: object) -> bool:
    return value is None


class SchedulerSettings(YamlRecord):
    """Settings of the noise schedule that replace the base's own, under diffusers' names."""

    use_dynamic_shifting: Annotated[bool | None, Field(exclude_if=_is_none)] = None
    """Whether the shift depends on the size of the picture. Default: the base's own setting."""
    shift: Annotated[float | None, Field(gt=0, le=100, exclude_if=_is_none)] = None
    """The fixed shift of the sigmas. It has no effect under dynamic shifting. Default: the base's own setting."""
    base_shift: Annotated[float | None, Field(ge=0, le=100, exclude_if=_is_none)] = None
    """Dynamic shift of a picture of `base_image_seq_len` tokens. Default: the base's own setting."""
    max_shift: Annotated[float | None, Field(ge=0, le=100, exclude_if=_is_none)] = None
    """Dynamic shift of a picture of `max_image_seq_len` tokens. Default: the base's own setting."""
    base_image_seq_len: Annotated[int | None, Field(ge=1, exclude_if=_is_none)] = None
    """Number of tokens at which the dynamic shift is `base_shift`. Default: the base's own setting."""
    max_image_seq_len: Annotated[int | None, Field(ge=1, exclude_if=_is_none)] = None
    """Number of tokens at which the dynamic shift is `max_shift`. Default: the base's own setting."""
    shift_terminal: Annotated[float | None, Field(ge=0, lt=1, exclude_if=_is_none)] = None
    """The last sigma before 0, to which the schedule is stretched; 0 switches that off. Default: the base's own setting."""
    time_shift_type: Annotated[Literal["exponential", "linear"] | None, Field(exclude_if=_is_none)] = None
    """The formula of the dynamic shift. Default: the base's own setting."""


class BaseSpec(YamlRecord):
    """The frozen base model of a set."""

    path: Annotated[str, Field(min_length=1, max_length=1000)]
    """A folder inside the set ("./base"), an absolute path, an fsspec address, or a hub id ("organisation/name")."""
    revision: str | None = None
    """Git revision of a hub id; None means the newest. Set it, so that the base cannot change."""
    max_sequence_length: Annotated[int, Field(ge=1, le=1024)] = 512
    """Number of text tokens per prompt, 512 by default, which is FLUX's maximum; Qwen's is 1024. Longer prompts are cut."""
    fingerprint: Sha256
    """`BaseShapes.fingerprint` of the base's transformer."""
    sha256: Sha256 | None = None
    """`folder_digest` of the base's folder. It detects other weights of the same shapes; None if it is unknown."""
    transformer: Annotated[BaseTransformer | None, Field(exclude_if=_is_none)] = None
    """A file of fp8 or nvfp4 weights in place of the transformer in `path`. Default: the transformer in `path`."""
    lora: Annotated[BaseLora | None, Field(exclude_if=_is_none)] = None
    """A LoRA that is merged into the base when it is loaded. Experts are applied on top of it. Default: no LoRA."""
    scheduler: Annotated[SchedulerSettings | None, Field(exclude_if=_is_none)] = None
    """Settings of the noise schedule, e.g. those that a few-step LoRA was trained for. Default: all are the base's own."""
    licence: Annotated[Sentence | None, Field(exclude_if=_is_none)] = None
    """Licence of the base, as an SPDX expression if one exists. Default: what is known of a hub id, or the README.md says."""
    commercial: Annotated[bool | None, Field(exclude_if=_is_none)] = None
    """Whether the licence allows commercial use. Default: by the licence's name, where it is known. True needs `licence`."""

    @model_validator(mode="after")
    def _check_lora(self) -> Self:
        if self.transformer is not None and self.lora is not None:
            raise ValueError(
                "a base has a LoRA or a file of quantised weights, into which no LoRA can be merged; remove lora or "
                "transformer"
            )
        return self

    @model_validator(mode="after")
    def _check_licence(self) -> Self:
        if self.commercial and self.licence is None:
            raise ValueError("commercial is true but no licence is named; give licence, which says why")
        return self

    @property
    def is_hub_id(self) -> bool:
        """Whether `path` names a repository on the Hugging Face hub."""
        return "://" not in self.path and not self.path.startswith((".", "/")) and bool(_HUB_ID.fullmatch(self.path))


class PanelSpec(YamlRecord):
    """How an image is fitted to a panel of the canvas."""

    size: Annotated[int, Field(ge=16, le=4096)]
    """Length of a panel's side, in pixels."""
    fit: Literal["letterbox", "resize", "bucket"] = "letterbox"
    """How an image of another shape fits the panel: "letterbox" pads it to a square, "bucket" pads it to
    one of a few shapes, "resize" distorts it (`careedit.images.fit_panel`)."""
    multiple: Annotated[int, Field(ge=1, le=256)] = 16
    """The sides of a panel are multiples of this many pixels, 16 by default."""


class Defaults(YamlRecord):
    """What an edit uses when its request does not say."""

    steps: Annotated[int, Field(ge=1, le=200)]
    """Number of denoising steps of an edit."""
    guidance: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    """Guidance scale; None for a base that takes no guidance."""
    top_k: Annotated[int, Field(ge=1, le=16)] = 1
    """Maximum number of experts that the router may mix in one edit."""
    start: Literal["noise", "source"] = "noise"
    """What denoising starts from: "noise" for FLUX.1-Fill and similar bases; "source", the source with noise added, for a
    base that was trained that way."""
    noise_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Standard deviation of the initial noise. A value below 1, which is what training uses, makes seeds differ less; it helps a
    small base that mistakes structure in the noise for content."""


class RouterSpec(YamlRecord):
    """The router that chooses the experts."""

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")] = "rules"
    """Name of the router: "rules", "fixed", "transformer" or another registered one."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the router. A file or folder among them is a mapping with its name and sha256 (`router_options`)."""


class ExpertSetFile(YamlRecord):
    """The content of `expert_set.yaml`."""

    format_version: Literal[1] = 1
    """Version of the format of this file."""
    name: Name
    """Name of the expert set."""
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]
    """Version of the set, as its makers number it."""
    description: Sentence | None = None
    """What the set is for, in one sentence."""
    base: BaseSpec
    """The base model that all experts fit."""
    panel: PanelSpec
    """Size of a panel, and how images are fitted to it."""
    defaults: Defaults
    """Settings of an edit whose request does not give them."""
    router: RouterSpec = RouterSpec()
    """The router that chooses the experts of an edit."""
    application: Application = "merged"
    """How experts are applied unless the caller chooses. It changes speed and memory, not the edit."""
    experts: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = ()
    """Folders of the experts: inside the set ("experts/erase"), absolute, or fsspec addresses."""

    @model_validator(mode="after")
    def _check_unique(self) -> ExpertSetFile:
        if len(set(self.experts)) != len(self.experts):
            raise ManifestError(f"The expert set {self.name!r} lists an expert twice; remove one of them.")
        return self


class FileOption(YamlRecord):
    """An option of a router that is a file of the set."""

    file: str = Field(min_length=1, max_length=1000)
    """Name of the file, relative to the set's folder."""
    sha256: Sha256
    """sha256 of the file, in hexadecimal."""


class FolderOption(YamlRecord):
    """An option of a router that is a folder of the set, such as its encoder."""

    folder: str = Field(min_length=1, max_length=1000)
    """Name of the folder, relative to the set's folder."""
    sha256: Sha256
    """Hash of the folder, computed by `folder_digest`."""
