"""The signed files of `careedit edit --credentials`; needs the extra `provenance`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from careedit.experts import load_expert_set
from careedit.experts.licence import base_licence
from careedit.images.save import image_bytes
from careedit.provenance import Credit
from careedit.provenance.certificates import from_folder
from careedit.provenance.signing import Signing, ingredient_of
from careedit.records import EditResult


def open_signing(folder: Path) -> Signing:
    """The signer in a folder. Raises `InputError` for a certificate or key that cannot sign."""
    return Signing(from_folder(folder))


def signed_files(
    signing: Signing, targets: Sequence[Path], result: EditResult, source: Path, expert_set: str
) -> list[bytes]:
    """The file of each result, in the format of its target. It keeps the Content Credentials of `source`.

    Raises `ImageError` if those cannot be read or are too large.
    """
    loaded, ingredient = load_expert_set(expert_set), ingredient_of(source.read_bytes())
    identity = f"edit_{secrets.token_hex(10)}"
    files = []
    for target, image, trace in zip(targets, result.images, result.traces, strict=True):
        weights = trace.routing.weights
        credit = Credit(
            edit=identity,
            model=loaded.base_name,
            model_licence=base_licence(loaded).licence,
            expert_set=trace.expert_set,
            expert_set_sha256=trace.expert_set_sha256,
            experts=weights,
            licences={name: loaded.manifests[name].licence for name in weights if name in loaded.manifests},
        )
        files.append(signing.sign(image_bytes(image, target.suffix, marked=True), credit, ingredient))
    return files
