"""Examples of edits for a router, read from JSON lines: instruction, image, expert, and optionally mask and reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from careedit.encoders import OpenClipEncoder
from careedit.errors import CareEditError, InputError
from careedit.finetune.router.pool import RouterPool, labelled_pool
from careedit.images import decode_image, decode_mask
from careedit.records import EditRequest
from careedit.routing import RoutingFeatures, features_of
from careedit.tabular import find_file, is_missing, lines_of

FIELDS = ("instruction", "image", "expert", "mask", "reference", "feasible")
"""Fields of a line. The first three are required; `feasible: false` marks an instruction that does not apply."""


@dataclass(frozen=True, eq=False)
class Example:
    """One edit and the expert that it is for."""

    features: RoutingFeatures
    """What the router sees of the edit."""
    expert: str
    """Name of the right expert."""
    feasible: bool = True
    """Whether the instruction applies to the image; default: yes."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be used."""

    line: int
    """Number of the line, counted from 1."""
    reason: str
    """One sentence that says why."""


def read_examples(path: Path, *, skip_bad: bool = False) -> tuple[list[Example], list[BadLine]]:
    """The examples in a JSON-lines file; paths in it are relative to its folder.

    Raises `InputError` for a file without one usable line, and for the first bad line unless `skip_bad`.
    """
    try:
        lines = lines_of(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The examples {path} cannot be read; give a file of JSON lines.") from error
    found: list[Example] = []
    bad: list[BadLine] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(_example(line, path.parent))
        except CareEditError as error:
            bad.append(BadLine(number, str(error)))
    if bad and not skip_bad:
        first = bad[0]
        raise InputError(
            f"{len(bad)} of {len(bad) + len(found)} examples in {path.name} cannot be used; the first is line "
            f"{first.line}: {first.reason} Correct them, or leave them out with --skip-bad."
        )
    if not found:
        raise InputError(f"{path} has no usable example; a line has instruction, image and expert.")
    return found, bad


def _example(line: str, folder: Path) -> Example:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise InputError("It is not JSON.") from error
    if not isinstance(fields, dict):
        raise InputError("It is not an object with fields.")
    for name in FIELDS[:3]:
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise InputError(f"The field {name!r} is missing or empty.")
    for name in fields:
        if name not in FIELDS:
            raise InputError(f"The field {name!r} is unknown; the fields are {', '.join(FIELDS)}.")
    mask, reference = (
        None if is_missing(fields.get(name)) else find_file(folder, fields[name], name)
        for name in ("mask", "reference")
    )
    feasible = fields.get("feasible")
    request = EditRequest(
        image=decode_image(find_file(folder, fields["image"], "image")),
        instruction=fields["instruction"],
        mask=None if mask is None else decode_mask(mask),
        references=() if reference is None else (decode_image(reference),),
    )
    return Example(features_of(request), fields["expert"], is_missing(feasible) or bool(feasible))


def example_pool(examples: Sequence[Example], encoder: OpenClipEncoder, experts: Sequence[str]) -> RouterPool:
    """The examples, encoded and grouped by expert. Examples of an expert that is not in `experts` are left out."""
    kept = [example for example in examples if example.expert in experts]
    seen = [example.features for example in kept]
    return labelled_pool(
        experts,
        [example.expert for example in kept],
        [encoder.visual_tokens(features.picture) for features in seen],
        [encoder.visual_tokens(features.references[0]) if features.references else None for features in seen],
        conditions=torch.tensor([features.conditions for features in seen]),
        feasible=torch.tensor([float(example.feasible) for example in kept]),
        texts=tuple(example.features.instruction for example in kept),
        operations=(None,) * len(kept),
        groups=tuple(example.expert for example in kept),
        held_out=(False,) * len(kept),
    )
