"""Samples in a folder: `ID-source.png`, `ID-target.png`, where there are any `ID-mask.png` and `ID-reference.png`, and
`samples.jsonl` with one row per sample, which is written last: a folder that has it is whole.

A row is `{"version": 1, "size": 64, "files": {"source": NAME, ...}, "sample": Sample.to_dict()}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from careedit.errors import ImageError, InputError
from careedit.files import write_atomic
from careedit.images import decode_image, save_image
from careedit.tabular import lines_of
from careedit_tiny.oracle.verdict import MAX_SIDE, MIN_SIDE, Verdict, judge
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.operations import KINDS, OPERATIONS
from careedit_tiny.world.samples import SPLITS, Sample, Split, draw_chain, draw_sample, sample_from_dict

FORMAT_VERSION = 1
"""Version of the rows of `samples.jsonl`."""
LISTING = "samples.jsonl"
ROLES = ("source", "target", "mask", "reference")
"""What a file of a sample can be: `ID-ROLE.png`."""
DRAWABLE = (*KINDS, "infeasible", "chain")
"""Kinds that `draw_many` accepts, in addition to the names of `OPERATIONS`."""
SEED_STRIDE = 10_000
"""Samples per seed and kind: two seeds never draw the same sample."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Edited pictures that are found, in order of preference."""


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One row of a sample folder."""

    sample: Sample
    """The drawn sample of this row."""
    size: int
    """Side of its pictures, in pixels."""
    files: Mapping[str, str]
    """File name of each role."""

    @property
    def group(self) -> str:
        """The sample's kind, or "chain" for a turn of a multi-turn edit."""
        return "chain" if self.sample.id.startswith("chain-") else self.sample.kind


@dataclass(frozen=True, slots=True)
class Judged:
    """The result for one sample in a folder of edited images."""

    stored: StoredSample
    """The sample with its files."""
    file: str | None
    """Name of the edited picture; None if it is missing."""
    verdict: Verdict | None
    """The oracle's verdict; None where there was no picture to judge."""
    problem: str | None
    """Why the verdict is missing, as a sentence. None if it exists."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds from a comma list; "all" means every kind, "infeasible" and "chain".

    Raises `InputError` for an unknown one.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    kinds = dict.fromkeys(kind for name in names for kind in (DRAWABLE if name == "all" else (name,)))
    for kind in kinds:
        if kind not in DRAWABLE and kind not in OPERATIONS:
            raise InputError(
                f"{kind!r} is not a kind of edit; choose from all, {', '.join(DRAWABLE)}, or one operation such as "
                f"{next(iter(OPERATIONS))}."
            )
    if not kinds:
        raise InputError(f"No kind of edit is named; choose from all, {', '.join(DRAWABLE)}.")
    return tuple(kinds)


def draw_many(kinds: tuple[str, ...], count: int, *, seed: int = 0, split: Split = "test") -> list[Sample]:
    """`count` draws, the kinds in turn; a chain counts as one draw and gives three samples.

    Raises `InputError` for a count, seed or split that is out of range.
    """
    if split not in SPLITS:
        raise InputError(f"{split!r} is not a split; choose from {', '.join(SPLITS)}.")
    if count <= 0:
        raise InputError(f"n is {count}; draw at least one sample.")
    seeds, per_kind = len(SPLITS[split]) // SEED_STRIDE, -(-count // len(kinds))
    if per_kind > SEED_STRIDE:
        raise InputError(f"n is {count}; one seed draws at most {SEED_STRIDE:,} samples of each kind.")
    if not 0 <= seed < seeds:
        raise InputError(f"The seed is {seed}; the {split} split takes seeds of 0 to {seeds - 1}.")
    samples: list[Sample] = []
    for i in range(count):
        kind, index = kinds[i % len(kinds)], seed * SEED_STRIDE + i // len(kinds)
        samples += draw_chain(index, split) if kind == "chain" else (draw_sample(kind, index, split),)
    if len({sample.id for sample in samples}) < len(samples):
        raise InputError("A kind and an operation of that kind were named together; name only one of them.")
    return samples


def write_samples(
    samples: Iterable[Sample], folder: Path, *, size: int = GEOMETRY.side, force: bool = False
) -> Iterator[StoredSample]:
    """Draw samples into a folder, which is made; yields each one when its pictures are written.

    The listing follows when the iterator is exhausted. Raises `InputError` for a size that cannot be judged, or if the
    folder is not empty; with `force` the samples of an earlier listing there are replaced.
    """
    if not MIN_SIDE <= size <= MAX_SIDE:
        raise InputError(f"The size is {size}; it must lie between {MIN_SIDE} and {MAX_SIDE} pixels.")
    _prepare(folder, force)
    rows = []
    for sample in samples:
        pictures = _pictures(sample, size)
        stored = StoredSample(sample, size, {role: f"{sample.id}-{role}.png" for role in pictures})
        for role, name in stored.files.items():
            save_image(pictures[role], folder / name)
        row = {"version": FORMAT_VERSION, "size": size, "files": stored.files, "sample": sample.to_dict()}
        rows.append(json.dumps(row) + "\n")
        yield stored
    write_atomic(folder / LISTING, "".join(rows))


def read_samples(folder: Path) -> list[StoredSample]:
    """The samples of a folder. Raises `InputError` if it has no listing or the listing is damaged."""
    listing = folder / LISTING
    if not folder.is_dir():
        raise InputError(f"The folder {str(folder)!r} does not exist; draw one with `careedit scenes draw`.")
    try:
        lines = lines_of(listing.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{str(folder)!r} has no readable {LISTING}; draw a folder with `careedit scenes draw`."
        ) from None
    stored = [_row(line, number, listing) for number, line in enumerate(lines, 1)]
    if not stored:
        raise InputError(f"{str(listing)!r} lists no sample; draw a folder with `careedit scenes draw`.")
    if len({row.sample.id for row in stored}) < len(stored):
        raise InputError(f"{str(listing)!r} lists a sample twice; draw the folder again.")
    return stored


def judge_folder(stored: Iterable[StoredSample], edited: Path) -> Iterator[Judged]:
    """The verdict on each sample's edited picture: `ID.png` (or .jpg, .webp), or `ID-target.png`.

    Raises `InputError` if the folder does not exist.
    """
    if not edited.is_dir():
        raise InputError(f"The folder {str(edited)!r} of edited pictures does not exist; give one that holds ID.png.")
    for row in stored:
        name = next((name for name in _candidates(row.sample.id) if (edited / name).is_file()), None)
        if name is None:
            yield Judged(row, None, None, f"{row.sample.id}.png is missing.")
            continue
        try:
            yield Judged(row, name, judge(row.sample, decode_image(edited / name)), None)
        except (ImageError, InputError) as error:
            yield Judged(row, name, None, str(error))


def extra_files(stored: Iterable[StoredSample], edited: Path) -> list[str]:
    """Names of pictures in a folder of edited pictures that belong to no sample."""
    known: set[str] = set()
    for row in stored:
        known.update(_candidates(row.sample.id))
        known.update(f"{row.sample.id}-{role}.png" for role in ROLES)
    return sorted(path.name for path in edited.iterdir() if path.suffix.lower() in SUFFIXES and path.name not in known)


def _candidates(identity: str) -> tuple[str, ...]:
    return (*(identity + suffix for suffix in SUFFIXES), f"{identity}-target.png")


def _pictures(sample: Sample, size: int) -> dict[str, Image.Image]:
    drawn = {
        "source": sample.source_image(size),
        "target": sample.target_image(size),
        "mask": sample.mask_image(size),
        "reference": sample.reference_image(size),
    }
    return {role: image for role, image in drawn.items() if image is not None}


def _prepare(folder: Path, force: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"The folder {str(folder)!r} cannot be used ({reason}); choose another.") from None
    if not occupied:
        return
    if not force:
        raise InputError(
            f"The folder {str(folder)!r} is not empty; choose another, or replace its samples with --force."
        )
    with suppress(InputError):  # a listing that is missing or damaged names nothing to replace
        for row in read_samples(folder):
            for name in row.files.values():
                (folder / name).unlink(missing_ok=True)
    (folder / LISTING).unlink(missing_ok=True)


def _row(line: str, number: int, listing: Path) -> StoredSample:
    try:
        data: Any = json.loads(line)
        version = data["version"]
        if version == FORMAT_VERSION:
            sample, size, files = sample_from_dict(data["sample"]), int(data["size"]), dict(data["files"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"Line {number} of {str(listing)!r} is damaged; draw the folder again.") from None
    if version != FORMAT_VERSION:
        raise InputError(
            f"Line {number} of {str(listing)!r} is of format {version!r}, and this careedit reads format "
            f"{FORMAT_VERSION}; draw the folder again."
        )
    for name in (sample.id, *files.values()):
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(
                f"Line {number} of {str(listing)!r} names a file outside its folder; draw the folder again."
            )
    return StoredSample(sample, size, files)
