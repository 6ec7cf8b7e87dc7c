"""An expert's manifest: what it can do, which file holds it and which base it fits."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from careedit.errors import AdapterError, ManifestError
from careedit.record import YamlRecord
from careedit.records import BASE

MANIFEST_FILE = "expert.yaml"
"""Name of a manifest inside its expert's folder."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def check_name(name: str) -> str:
    """Returns `name` if it can name an expert or a set; otherwise raises `ManifestError`."""
    if not _NAME.fullmatch(name):
        raise ManifestError(
            f"The name {name[:80]!r} cannot be used; take 1 to 64 of a-z, 0-9, _ and -, starting with a letter or digit."
        )
    if name in {BASE, "auto"}:
        raise ManifestError(f"The name {name!r} is taken by careedit itself; choose another.")
    return name


def check_relative(name: str) -> str:
    """Returns `name` if it stays inside its folder; otherwise raises `AdapterError`."""
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name
    if unsafe or not path.parts:
        raise AdapterError(f"The file name {name[:120]!r} leads out of its folder; give a plain relative name.")
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
"""Text for a person."""


class BaseReference(YamlRecord):
    """The base that an expert was trained on."""

    name: Sentence
    """Its name, for a person."""
    fingerprint: Sha256
    """`BaseShapes.fingerprint` of its transformer."""


class ExpertManifest(YamlRecord):
    """One expert: a LoRA adapter and what is known about it."""

    format_version: Literal[1] = 1
    """Version of this file's format."""
    name: Name
    """Unique within an expert set."""
    competence: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_ -]{0,63}$")]
    """What it is for, in a word: erase, compose, style, identity, reference, or one of your own."""
    description: Sentence
    """What it does, in a sentence."""
    handles: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")], ...]
    """Edit kinds and conditions that it is for, e.g. "remove", "mask", "reference"; the rules router reads them."""
    file: Annotated[str, AfterValidator(_check_file)]
    """The adapter's file name, relative to the manifest's folder."""
    sha256: Sha256
    """Hash of that file."""
    rank: Annotated[int, Field(ge=1)]
    """Largest rank of the modules that the file changes."""
    alpha: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False)]
    """LoRA's alpha: the update B @ A is scaled by alpha / rank. The most common one, where modules differ."""
    alpha_source: Annotated[Literal["file", "manifest"], Field(exclude_if=lambda value: value == "file")] = "file"
    """Who states alpha. "file": its keys or header, or it is the rank. "manifest": the file states none, and the alpha here
    holds for every layer (`--alpha`). Left out where it is "file"; a file of peft's format always takes the manifest's."""
    format: Literal["diffusers", "peft", "icedit"]
    """Who wrote the file: diffusers (`save_lora_weights`), peft (`save_pretrained`) or ICEdit's training."""
    base: BaseReference
    """The base that it fits."""
    licence: Sentence
    """Licence of the weights, an SPDX expression where there is one."""
    provenance: Sentence
    """Where the weights come from: recipe and data, or an address."""

    @property
    def states_alpha(self) -> bool:
        """Whether the file is to be read with the manifest's alpha."""
        return self.format == "peft" or self.alpha_source == "manifest"
