"""The files of `careedit edit` with a watermark (--watermark), Content Credentials (--credentials), or both."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from careedit.errors import InputError
from careedit.images.save import image_bytes
from careedit.provenance import Credit
from careedit.provenance.watermark import Marking, key_from_file, size_note
from careedit.records import EditResult, EditTrace

if TYPE_CHECKING:
    from careedit.experts import ExpertSet
    from careedit.provenance.signing import Signing


@dataclass(frozen=True)
class Marks:
    """What marks the results of one command."""

    edit: str
    """Id of the edit, which the Content Credentials name and from which the watermark's payload is made."""
    marking: Marking | None
    """Puts a watermark into the pixels; None: the results have none."""
    signing: Signing | None
    """Signs the files; None: they are not signed."""
    ingredient: bytes | None
    """The source with its Content Credentials, which signed files keep; None: the files are not signed."""

    @classmethod
    def open(cls, credentials: Path | None, watermark: Path | None, source: Path | bytes) -> Marks:
        """The marks of an edit's results, from a folder of credentials and a file with the watermark's key.

        Raises `InputError` for a certificate or key that cannot sign, for a file that cannot be read, and for a source whose
        Content Credentials cannot be read or are too large.
        """
        return cls.of(*open_marks(credentials, watermark), source)

    @classmethod
    def of(cls, marking: Marking | None, signing: Signing | None, source: Path | bytes) -> Marks:
        """The marks of an edit's results. Raises `InputError` and `ImageError` for a source that cannot be an ingredient."""
        ingredient = None if signing is None else _ingredient(source)
        return cls(f"edit_{secrets.token_hex(10)}", marking, signing, ingredient)

    @property
    def report(self) -> dict[str, Any]:
        """What the command's document says about the watermark; empty without one."""
        if self.marking is None:
            return {}
        return {"watermark": {"edit": self.edit, "payload": self.marking.payload(self.edit).hex()}}

    def notes(self, sizes: Sequence[tuple[int, int]]) -> list[str]:
        """Sentences about results of these sizes that are too small for a watermark."""
        if self.marking is None:
            return []
        found = (size_note(self.marking.method, size) for size in sizes)
        return [sentence for sentence in found if sentence is not None]

    def files(self, targets: Sequence[Path], result: EditResult, load: Callable[[], ExpertSet]) -> list[bytes]:
        """The file of each result, in the format of its target. Content Credentials name the set, which `load` gives."""
        marked = [self._marked(image) for image in result.images]
        files = [
            image_bytes(image, target.suffix, marked=self.signing is not None)
            for (image, _), target in zip(marked, targets, strict=True)
        ]
        if self.signing is None:
            return files
        loaded = load()
        return [
            self.signing.sign(file, self._credit(trace, loaded), self.ingredient, watermarked=watermarked)
            for file, trace, (_, watermarked) in zip(files, result.traces, marked, strict=True)
        ]

    def _marked(self, image: Image.Image) -> tuple[Image.Image, bool]:
        mark = None if self.marking is None else self.marking.of(self.edit, image.size)
        return (image, False) if mark is None else (mark.embed(image), True)

    def _credit(self, trace: EditTrace, loaded: ExpertSet) -> Credit:
        from careedit.experts.licence import base_licence

        weights = trace.routing.weights
        return Credit(
            edit=self.edit,
            model=loaded.base_name,
            model_licence=base_licence(loaded).licence,
            expert_set=trace.expert_set,
            expert_set_sha256=trace.expert_set_sha256,
            experts=weights,
            licences={name: loaded.manifests[name].licence for name in weights if name in loaded.manifests},
        )


def open_marks(credentials: Path | None, watermark: Path | None) -> tuple[Marking | None, Signing | None]:
    """What puts the watermark, and what signs. Raises `InputError` for a key or certificate that cannot be used."""
    marking = None if watermark is None else Marking(key_from_file(watermark))
    if credentials is None:
        return marking, None
    try:
        from careedit.provenance.certificates import from_folder
        from careedit.provenance.signing import Signing
    except ModuleNotFoundError as error:
        raise InputError(f"--credentials needs the package {error.name}; pip install 'careedit[provenance]'.") from None
    return marking, Signing(from_folder(credentials))


_opened = lru_cache(maxsize=1)(open_marks)
"""`open_marks`, once per process."""


def mark_files(
    credentials: Path | None,
    watermark: Path | None,
    targets: Sequence[Path],
    result: EditResult,
    source: bytes,
    loaded: ExpertSet,
) -> tuple[list[bytes], str, list[str]]:
    """The marked files of a row's results, the id that the marks name, and notes; see `careedit.batches.rows.Mark`."""
    marks = Marks.of(*_opened(credentials, watermark), source)
    return (
        marks.files(targets, result, lambda: loaded),
        marks.edit,
        marks.notes([image.size for image in result.images]),
    )


def _ingredient(source: Path | bytes) -> bytes:
    from careedit.provenance.signing import ingredient_of

    try:
        return ingredient_of(source if isinstance(source, bytes) else source.read_bytes())
    except OSError as error:
        raise InputError(f"The image {str(source)!r} cannot be read ({error.strerror}); check the path.") from None
