"""The models that a configuration names, downloaded into the hub's cache: bases of expert sets, and the judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from careedit.errors import ExpertError
from careedit.experts import load_expert_set
from careedit.families import INDEX, read_index
from careedit_deployments.config import ServeConfig


@dataclass(frozen=True)
class Model:
    """One repository of the hub that a configuration needs."""

    hub_id: str
    """Name of the repository, as "owner/name"."""
    revision: str | None
    """The commit that the expert set names; None means the newest."""
    patterns: tuple[str, ...] | None
    """Files to download; None means all. Bases often have a second copy of the weights as a single file at the root."""


def models_of(config: ServeConfig) -> Iterator[Model]:
    """The models of the hub that `config` names, each once. Local folders are left out.

    Raises `ExpertError` for a set that cannot be read and for a base that the hub does not give.
    """
    seen: set[Model] = set()
    for arm in config.arms.values():
        base = load_expert_set(arm.expert_set).spec.base
        if base.is_hub_id:
            _, index = read_index(base.path, revision=base.revision)
            parts = sorted(name for name, entry in index.items() if isinstance(entry, list))
            seen.add(Model(base.path, base.revision, (INDEX, *(f"{part}/*" for part in parts))))
    judge = config.scorer.model
    if config.scorer.backend == "transformers" and judge is not None and judge.count("/") == 1:
        seen.add(Model(judge, None, None))
    yield from sorted(seen, key=lambda model: model.hub_id)


def pull(model: Model) -> str:
    """Download what is missing of `model`, and return its folder. Raises `ExpertError`."""
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(
            model.hub_id,
            revision=model.revision,
            allow_patterns=None if model.patterns is None else list(model.patterns),
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ExpertError(f"{model.hub_id} could not be downloaded: {reason}.") from error
