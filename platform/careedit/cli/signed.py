"""The signed files of `careedit edit --credentials`; needs the extra `provenance`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from careedit.experts import ExpertSet
from careedit.experts.licence import base_licence
from careedit.images.save import image_bytes
from careedit.provenance import Credit
from careedit.provenance.certificates import from_folder
from careedit.provenance.signing import Signing, ingredient_of
from careedit.records import EditResult


def open_signing(folder: Path) -> Signing:
    """The signer in a folder. Raises `InputError` for a certificate or key that cannot sign."""
    return Signing(from_folder(folder))


_opened = lru_cache(maxsize=1)(open_signing)


def sign_files(
    folder: Path, targets: Sequence[Path], result: EditResult, source: bytes, expert_set: ExpertSet
) -> list[bytes]:
    """`signed_files` with the certificate and key in `folder`, which each process opens once."""
    return signed_files(_opened(folder), targets, result, source, expert_set)


def signed_files(
    signing: Signing, targets: Sequence[Path], result: EditResult, source: bytes, expert_set: ExpertSet
) -> list[bytes]:
    """The file of each result, in the format of its target. It keeps the Content Credentials of the file `source`.

    Raises `ImageError` if those cannot be read or are too large.
    """
    ingredient = ingredient_of(source)
    identity = f"edit_{secrets.token_hex(10)}"
    files = []
    for target, image, trace in zip(targets, result.images, result.traces, strict=True):
        weights = trace.routing.weights
        credit = Credit(
            edit=identity,
            model=expert_set.base_name,
            model_licence=base_licence(expert_set).licence,
            expert_set=trace.expert_set,
            expert_set_sha256=trace.expert_set_sha256,
            experts=weights,
            licences={name: expert_set.manifests[name].licence for name in weights if name in expert_set.manifests},
        )
        files.append(signing.sign(image_bytes(image, target.suffix, marked=True), credit, ingredient))
    return files
