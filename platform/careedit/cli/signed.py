"""The files of `careedit edit` with a watermark (--watermark), Content Credentials (--credentials), or both."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
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
        marking = None if watermark is None else Marking(key_from_file(watermark))
        signing, ingredient = (None, None) if credentials is None else (signer(credentials), _ingredient(source))
        return cls(_new_id(), marking, signing, ingredient)

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
        return [f"note: {sentence}" for sentence in found if sentence is not None]

    def files(self, targets: Sequence[Path], result: EditResult, loaded: ExpertSet) -> list[bytes]:
        """The file of each result, in the format of its target."""
        marked = [self._marked(image) for image in result.images]
        files = [
            image_bytes(image, target.suffix, marked=self.signing is not None)
            for (image, _), target in zip(marked, targets, strict=True)
        ]
        if self.signing is None:
            return files
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


def signer(folder: Path) -> Signing:
    """The signer in a folder. Raises `InputError` for a certificate or key that cannot sign."""
    try:
        from careedit.provenance.certificates import from_folder
        from careedit.provenance.signing import Signing
    except ModuleNotFoundError as error:
        raise InputError(f"--credentials needs the package {error.name}; pip install 'careedit[provenance]'.") from None
    return Signing(from_folder(folder))


def _ingredient(source: Path | bytes) -> bytes:
    from careedit.provenance.signing import ingredient_of

    try:
        return ingredient_of(source if isinstance(source, bytes) else source.read_bytes())
    except OSError as error:
        raise InputError(f"The image {str(source)!r} cannot be read ({error.strerror}); check the path.") from None


_opened = lru_cache(maxsize=1)(signer)


def sign_files(
    folder: Path, targets: Sequence[Path], result: EditResult, source: bytes, loaded: ExpertSet
) -> list[bytes]:
    """The signed file of each result of a row, with the certificate and key in `folder`, which a process opens once."""
    return Marks(_new_id(), None, _opened(folder), _ingredient(source)).files(targets, result, loaded)


def _new_id() -> str:
    return f"edit_{secrets.token_hex(10)}"
