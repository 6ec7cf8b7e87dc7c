"""The models that a configuration names: how large their weights are, and whether they are pinned. torch is not imported."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from careedit.errors import ExpertError
from careedit.families import Facts
from careedit.hub import split_hub_id, unpinned
from careedit_deployments.config import ServeConfig

_NAMES = ("diffusion_pytorch_model", "model")
"""Stems of the weight files that diffusers and transformers read."""
_WEIGHTLESS = ("Scheduler", "Tokenizer", "Processor")


def unpinned_models(config: ServeConfig) -> Iterator[tuple[str, str]]:
    """Each model of the hub that `config` names without a commit: the setting that names it, and a sentence.

    Raises `ExpertError` for an expert set that cannot be read.
    """
    from careedit.experts import load_expert_set  # imports torch, which sizes do not need

    for name, arm in config.arms.items():
        base = load_expert_set(arm.expert_set).spec.base
        how = f"set base.revision in the expert set {arm.expert_set}, as careedit init does"
        if base.is_hub_id and (sentence := unpinned("The base", base.path, base.revision, how)):
            yield f"{name}.base", sentence
    if config.scorer.backend == "transformers" and config.scorer.model is not None:
        judge, revision = split_hub_id(config.scorer.model)
        if sentence := unpinned("The judge", judge, revision, "write OWNER/NAME@COMMIT in scorer.model"):
            yield "scorer", sentence


@dataclass(frozen=True)
class Weights:
    """The weights of one model, as its files state them."""

    parameters: int
    """Number of weights of all components together."""
    stored: int
    """Size of the files, in bytes."""
    missing: tuple[str, ...]
    """Files that should be there and are not, relative to the model's folder."""
    fetched: bool = True
    """Whether the model is on this machine. If not, sizes come from the hub's list of files, at two bytes per weight."""


def components_of(facts: Facts) -> tuple[str, ...]:
    """The components of a family that have weights."""
    return tuple(name for name, kind in facts.components.items() if not any(part in kind for part in _WEIGHTLESS))


def weights_of(place: str, revision: str | None = None, components: Sequence[str] = ("",)) -> Weights:
    """The weights of a folder or hub id, in its `components` ("" for a model without subfolders).

    Raises `ExpertError` if the hub has to be asked for the sizes and does not answer, or if a file is damaged.
    """
    folder: Path | None = Path(place).expanduser()
    if folder is None or not folder.is_dir():
        folder = _cached(place, revision)
    if folder is not None:
        found = [_in_folder(folder, component) for component in components]
        if folder == Path(place).expanduser() or not any(one.missing for one in found):
            return Weights(
                sum(one.parameters for one in found),
                sum(one.stored for one in found),
                tuple(name for one in found for name in one.missing),
            )
    return _on_the_hub(place, revision, components)


def _cached(hub_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or not a hub id
        return None


def _on_the_hub(hub_id: str, revision: str | None, components: Sequence[str]) -> Weights:
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(hub_id, revision=revision, files_metadata=True, timeout=10).siblings or ()
    except (OSError, ValueError) as error:
        raise ExpertError(
            f"{hub_id} is not on this machine, and the hub does not say how large it is; check the name, or download it "
            "where the hub can be reached."
        ) from error
    wanted = tuple(f"{component}/" if component else "" for component in components)
    stored = sum(
        file.size or 0
        for file in files
        if file.rfilename.endswith(".safetensors")
        and any(file.rfilename.startswith(f"{folder}{name}") for folder in wanted for name in _NAMES)
    )
    return Weights(stored // 2, stored, (), fetched=False)


def _in_folder(root: Path, component: str) -> Weights:
    paths, missing = [], []
    for path in _files(root / component):
        if path.is_file():
            paths.append(path)
        else:
            missing.append(str(path.relative_to(root)))
    return Weights(sum(map(_parameters, paths)), sum(path.stat().st_size for path in paths), tuple(missing))


def _files(folder: Path) -> Iterator[Path]:
    """The weight files of one component: its shards, or its single file."""
    for name in _NAMES:
        index = folder / f"{name}.safetensors.index.json"
        if index.is_file():
            try:
                shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ExpertError(f"{str(index)!r} cannot be read; get the model again.") from error
            yield from (folder / str(shard) for shard in sorted(shards))
            return
        if (folder / f"{name}.safetensors").is_file():
            yield folder / f"{name}.safetensors"
            return
    yield folder / "*.safetensors"


def _parameters(path: Path) -> int:
    """Number of weights in a safetensors file, from its header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
        if end != path.stat().st_size:
            raise ValueError("the file is incomplete")
        return sum(math.prod(entry["shape"]) for entry in tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ExpertError(f"{str(path)!r} is damaged or incomplete; get it again.") from error
