"""Names of models on the Hugging Face hub: OWNER/NAME for the newest state, OWNER/NAME@COMMIT for exactly one.

The owner of a model can change its newest state, and can move a branch or a tag. A commit cannot change.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

logger = logging.getLogger(__name__)

NAME_IT = "name it OWNER/NAME@COMMIT"
"""What to do about a model that is named in one text."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def split_hub_id(source: str) -> tuple[str, str | None]:
    """Name and revision of OWNER/NAME@REVISION. Any other text, such as a folder, is a name without a revision."""
    name, _, revision = source.partition("@")
    if revision and is_hub_id(name) and not Path(source).exists():
        return name, revision
    return source, None


def is_hub_id(name: str) -> bool:
    """Whether `name` can only be a model of the hub: an owner and a name, and no folder of this machine."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit by its whole hash, and not a branch, a tag or absent."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def unpinned(what: str, name: str, revision: str | None, what_to_do: str = NAME_IT) -> str | None:
    """What is wrong with a model that is not pinned to a commit, as a sentence; None for a pinned one and for a folder."""
    if not is_hub_id(name) or is_commit(revision):
        return None
    return f"{what} {name} is not pinned to a commit of the hub (40 hexadecimal digits), so its owner can change it; {what_to_do}."


def warn_unless_pinned(what: str, name: str, revision: str | None, what_to_do: str = NAME_IT) -> None:
    """Log `unpinned` as a warning before a model is loaded."""
    sentence = unpinned(what, name, revision, what_to_do)
    if sentence is not None:
        logger.warning("%s", sentence)
