"""One training row: read, decoded, checked, and put on its canvas."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from careedit.editing import EditJob, Family
from careedit.editing.families import in_context_prompt
from careedit.errors import CareEditError, InputError, MaskError
from careedit.experts import PanelSpec
from careedit.finetune.pool import Item
from careedit.images import Fit, canvas_mask, decode_image, decode_mask, fit_panel, turn_note
from careedit.tabular import BrokenRowError, Columns, Table, is_missing, picture_of

Align = Literal["refuse", "stretch", "crop"]
"""What to do with a target whose shape differs from its source's."""
MAX_INSTRUCTION = 2000
"""Maximum characters of an instruction, as in an edit request."""
_GREYS = 0.1
"""Maximum share of grey pixels in a mask without transparency. A photo has more."""


class BadRowError(InputError):
    """A row that cannot be trained on."""

    def __init__(self, kind: str, file: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.file, self.reason = kind, file, reason


@dataclass(frozen=True, slots=True)
class RowRules:
    """How rows become canvases."""

    panel: PanelSpec
    """Panel size and fitting, as in the expert set."""
    align: Align = "refuse"
    """If the target's shape differs from the source's: refuse the row (default), stretch the target, or crop the source."""
    masks: bool = True
    """Whether the mask column is used. Default: yes."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row with its images decoded."""

    source: Image.Image
    """The source image, in mode RGB."""
    target: Image.Image
    """The target image, in mode RGB. It has the source's aspect ratio, but may have another size."""
    mask: Image.Image | None
    """The mask, mode "L", 255 where to edit, with the source's aspect ratio. None: no mask."""
    reference: Image.Image | None
    """The reference image, RGB. None: no reference."""
    instruction: str
    """The text that says what to change."""
    digest: str
    """Hash of the source's file. Rows with the same source share it."""


def read_row(table: Table, index: int, columns: Columns, rules: RowRules) -> Row:
    """Row `index` of a table. Raises `BadRowError`, which says what is wrong with which file."""
    try:
        cells = table.cells(index)
        values = {role: cells.get(name) for role, name in columns.given().items()}
    except BrokenRowError as error:
        raise BadRowError("unreadable row", "", str(error)) from None
    instruction = values["instruction"]
    if not isinstance(instruction, str) or not instruction.strip():
        raise BadRowError("empty instruction", "", f"the column {columns.instruction!r} is empty")
    if len(instruction) > MAX_INSTRUCTION:
        raise BadRowError(
            "long instruction", "", f"the instruction has {len(instruction):,} characters; the limit is 2,000"
        )
    source, name = _picture(table, values, "source")
    target, _ = _picture(table, values, "target")
    images = {"source": _decode(source, name), "target": _decode(target, _name(values["target"]))}
    mask = reference = None
    if rules.masks and not is_missing(values.get("mask")):
        mask = _mask(*_picture(table, values, "mask"))
    if not is_missing(values.get("reference")):
        data, file = _picture(table, values, "reference")
        reference = _decode(data, file)
    content = source if isinstance(source, bytes) else source.read_bytes()
    return Row(
        *_aligned(images["source"], images["target"], mask, rules.align, _name(values["target"])),
        reference=reference,
        instruction=instruction.strip(),
        digest=hashlib.sha256(content).hexdigest(),
    )


def row_item(row: Row, rules: RowRules) -> Item:
    """The training canvas of a row: [source | target] or [reference | source | target]."""
    spec = rules.panel
    fit = fit_panel(row.source.size, spec.size, spec.fit, spec.multiple)
    panels = [fit.to_panel(row.source), _fit_of(row.target, fit).to_panel(row.target)]
    if row.reference is not None:
        own = fit_panel(row.reference.size, spec.size, spec.fit, spec.multiple)
        letterbox = spec.fit == "letterbox"
        panels.insert(0, own.to_panel(row.reference) if letterbox else row.reference.resize(fit.panel))
    mask = None if row.mask is None else _fit_of(row.mask, fit).to_panel_mask(row.mask)
    prompt = in_context_prompt(row.instruction, references=len(panels) - 2)
    return Item.of_panels(panels, canvas_mask(len(panels), fit.panel, mask), prompt)


def row_job(row: Row, rules: RowRules, base: Family) -> tuple[EditJob, Image.Image]:
    """A row as an edit by a base that reads pictures as tokens, without guidance branches, and the target's panel."""
    spec = rules.panel
    fit = fit_panel(row.source.size, spec.size, spec.fit, spec.multiple)
    job = EditJob(
        source=fit.to_panel(row.source),
        instruction=row.instruction,
        seed=0,
        steps=2,  # training has noise levels of its own; Qwen's schedule has at least two steps
        mask=None if row.mask is None else _fit_of(row.mask, fit).to_panel_mask(row.mask),
        references=() if row.reference is None else (reference_fit(row.reference, spec).to_panel(row.reference),),
        guidance=None if base.guidance == "none" else 1.0,
    )
    return job, _fit_of(row.target, fit).to_panel(row.target)


def reference_fit(reference: Image.Image, spec: PanelSpec) -> Fit:
    """How a reference fits a panel of its own, as in an edit."""
    return fit_panel(reference.size, spec.size, spec.fit, spec.multiple)


def _fit_of(image: Image.Image, fit: Fit) -> Fit:
    """The same position on the panel, for an image of another size."""
    return Fit(image.size, fit.panel, fit.box)


def _name(value: Any) -> str:
    path = value.get("path") if isinstance(value, Mapping) else value
    return path if isinstance(path, str) else ""


def _picture(table: Table, values: Mapping[str, Any], role: str) -> tuple[bytes | Path, str]:
    """The bytes or the path of an image, and its name for messages."""
    value = values.get(role)
    if is_missing(value):
        raise BadRowError("no picture", "", f"the row has no {role} picture")
    name = _name(value)
    try:
        return picture_of(table.root, value, role), name
    except InputError as error:
        raise BadRowError("missing file" if name else "no picture", name, str(error)) from None


def _decode(data: bytes | Path, name: str) -> Image.Image:
    try:
        return decode_image(data)
    except CareEditError as error:
        raise BadRowError("unreadable picture", name, str(error)) from None


def _mask(data: bytes | Path, name: str) -> Image.Image:
    try:
        try:
            mask = decode_mask(data, white_is_edit=False)
        except MaskError:  # without transparency, white marks the edit, if this is a mask at all
            mask = decode_mask(data)
            values = np.asarray(decode_image(data).convert("L"))
            if ((values > 32) & (values < 224)).mean() > _GREYS:
                reason = "the mask is a picture without transparency; give a black-and-white one, or use --no-masks"
                raise BadRowError("bad mask", name, reason) from None
    except BadRowError:
        raise
    except CareEditError as error:
        raise BadRowError("bad mask", name, str(error)) from None
    if mask.getextrema() == (0, 0):
        raise BadRowError("bad mask", name, "the mask marks nothing; mark the edit white or transparent")
    return mask


def _aligned(
    source: Image.Image, target: Image.Image, mask: Image.Image | None, align: Align, name: str
) -> tuple[Image.Image, Image.Image, Image.Image | None]:
    """Source, target and mask with one aspect ratio. Raises `BadRowError`."""
    if not _same_shape(source.size, target.size) and align == "refuse":
        raise BadRowError(
            "sizes differ",
            name,
            f"the source is {_size(source)} and the target {_size(target)}, another shape; give pictures of one "
            "shape, or use --align stretch or --align crop",
        )
    if align == "crop" and not _same_shape(source.size, target.size):
        if mask is not None and mask.size == source.size:
            mask = _cropped(mask, target.size)
        source = _cropped(source, target.size)
    if mask is not None and not (_same_shape(mask.size, source.size) or _same_shape(mask.size, target.size)):
        raise BadRowError("bad mask", name, f"the mask is {_size(mask)} and the source {_size(source)}, another shape")
    return source, target, mask


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether both have one aspect ratio, up to a pixel of rounding along one side of the smaller one."""
    (width, height), (larger_width, larger_height) = sorted((one, other), key=lambda size: size[0] * size[1])
    return (
        abs(larger_height * width / larger_width - height) <= 1
        or abs(larger_width * height / larger_height - width) <= 1
    )


def _cropped(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """The largest centred part of `image` that has the aspect ratio of `shape`."""
    scale = min(image.width / shape[0], image.height / shape[1])
    width, height = (max(1, min(side, round(scale * s))) for side, s in zip(image.size, shape, strict=True))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}{turn_note(image)}"
