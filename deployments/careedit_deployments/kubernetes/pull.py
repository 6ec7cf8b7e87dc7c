"""The models that a configuration names, downloaded into the hub's cache: bases of expert sets, and the judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from careedit.errors import ExpertError, InputError
from careedit.experts import load_expert_set
from careedit.families import INDEX, read_index
from careedit.hub import split_hub_id
from careedit_deployments.cli.weights import unpinned_models
from careedit_deployments.config import ServeConfig


@dataclass(frozen=True)
class Model:
    """One repository of the hub that a configuration needs."""

    hub_id: str
    """Name of the repository, as "owner/name"."""
    revision: str
    """The commit that the expert set or the configuration names."""
    patterns: tuple[str, ...] | None
    """Files to download; None means all. Bases often have a second copy of the weights as a single file at the root."""


def models_of(config: ServeConfig) -> Iterator[Model]:
    """The models of the hub that `config` names, each once. Local folders are left out.

    Raises `InputError` for a model without a commit, and `ExpertError` for a set that cannot be read and for a base that the
    hub does not give.
    """
    for _, sentence in unpinned_models(config):
        raise InputError(f"{sentence[:-1]}, and pull again.")
    seen: set[Model] = set()
    for arm in config.arms.values():
        base = load_expert_set(arm.expert_set).spec.base
        if base.is_hub_id:
            assert base.revision is not None
            _, index = read_index(base.path, revision=base.revision)
            parts = sorted(name for name, entry in index.items() if isinstance(entry, list))
            seen.add(Model(base.path, base.revision, (INDEX, *(f"{part}/*" for part in parts))))
    if config.scorer.backend == "transformers" and config.scorer.model is not None:
        judge, revision = split_hub_id(config.scorer.model)
        if revision is not None:
            seen.add(Model(judge, revision, None))
    yield from sorted(seen, key=lambda model: model.hub_id)


def pull(model: Model) -> str:
    """Download what is missing of `model`, compare every file with the hub's checksums, and return the folder.

    Raises `ExpertError` if a file cannot be had, or is not the one of the commit.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        folder = snapshot_download(
            model.hub_id,
            revision=model.revision,
            allow_patterns=None if model.patterns is None else list(model.patterns),
        )
        wrong = HfApi().verify_repo_checksums(model.hub_id, revision=model.revision).mismatches
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ExpertError(f"{model.hub_id} could not be downloaded: {reason}.") from error
    if wrong:
        raise ExpertError(
            f"{', '.join(one['path'] for one in wrong)} of {model.hub_id} is not the file of the commit {model.revision}; delete "
            f"{folder} and pull again."
        )
    return folder
