"""Which weights are known as the published ones: by the hash of their file, or because they come from their author's place.

A model of the right shape may have any weights, so numbers under a protocol's name say which they were made with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from careedit_eval.records import Weights

KNOWN = (
    # OpenAI's ViT-B/32 and ViT-L/14; the package clip states the hashes in their addresses.
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    # The linear layers of LPIPS 0.1 (alex, vgg, squeeze) in the package lpips 0.1.4.
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    # torchvision's alexnet, vgg16 and squeezenet1_1; torchvision states and checks the first eight digits.
    "7be5be79",
    "397923af",
    "b8a52dc0",
)
"""The beginnings of the sha256 of published files."""


def weights_of_files(files: Iterable[Path]) -> Weights:
    """Whether all files are published ones. Raises `OSError` for a file that cannot be read."""
    return "official" if all(_digest(file).startswith(KNOWN) for file in files) else "unknown"


def weights_of_model(model: str | None, official: str) -> Weights:
    """Whether a model is the official one by its hub id (also at a commit) or tag, or a published file.

    None means the official one. A folder may hold anything, so its weights are unknown.
    """
    if model is None or model.partition("@")[0] == official:
        return "official"
    return weights_of_files([Path(model).expanduser()]) if Path(model).expanduser().is_file() else "unknown"


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
