"""The alphas and ranks that a LoRA file states, and whether the places that state them agree.

A layer's update is alpha / rank * B @ A. The alpha may be in a key of its own, in the metadata that diffusers writes
(`lora_adapter_metadata`), in plain header fields of other trainers, or come from the user (`--alpha`, a manifest). If two
places disagree, nothing is guessed: the error names both. If no place states an alpha, it is the rank, as in diffusers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, cast

import torch
from diffusers.utils.peft_utils import get_peft_kwargs
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from torch import Tensor

from careedit.errors import AdapterError
from careedit.experts.layouts import PREFIX, Layer

METADATA_KEY = "lora_adapter_metadata"
"""Header field in which diffusers states r, alpha and targets, as JSON."""

_ALPHA_FIELD = re.compile(r"(ss_)?(lora_|network_|linear_|adapter_)?alpha")
_RANK_FIELD = re.compile(r"r|(ss_)?(lora_|network_|linear_)?(rank|dim|r)")
_JSON_FIELDS = ("alpha_pattern", "rank_pattern")
_FLAGS = ("use_rslora", "use_dora", "lora_bias")
_OTHER_METHODS = (
    "use_dora", "lora_bias", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "velora_config",
    "monteclora_config", "kasa_config", "layer_replication", "modules_to_save", "trainable_token_indices", "target_parameters",
)  # fmt: skip
"""Fields of peft's `LoraConfig` that make an adapter more than B @ A on linear layers."""
_LORA_FIELDS = {field.name for field in fields(LoraConfig)}
_PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that do not change the base; pissa, olora, corda, loftq, lora_ga and mica change it."""
_NESTED_ALPHA = re.compile(r"[\"'](lora|network|linear)_alpha[\"']")
_UNSTATED = ("", "none", "dynamic")
"""Texts that trainers write if no single value exists."""


@dataclass(frozen=True)
class OutsideAlpha:
    """An alpha that comes from outside the file."""

    value: float
    """The alpha that every layer gets."""
    source: str
    """The place that states it, as errors show it: "--alpha" or "its manifest"."""


@dataclass(frozen=True)
class Config:
    """The LoRA settings that one place of the header states, in the terms of peft's `LoraConfig`."""

    source: str
    """The place in the file, as errors show it."""
    alpha: float | None = None
    """The field `lora_alpha`; None if it is not stated."""
    alpha_source: str = ""
    """The field that states the alpha, as errors show it."""
    rank: int | None = None
    """The field `r`; None if it is not stated."""
    rank_source: str = ""
    """The field that states the rank, as errors show it."""
    alpha_pattern: Mapping[str, float] | None = None
    """Alphas of modules that differ from `alpha`, by module pattern."""
    rank_pattern: Mapping[str, int] | None = None
    """Ranks of modules that differ from `rank`, by module pattern."""
    rslora: bool = False
    """Whether the update is scaled by alpha / sqrt(rank)."""
    strict: bool = True
    """Whether the rank holds for every module. A plain field may state the rank of most layers only."""

    def alpha_of(self, module: str, rank: int) -> float:
        """The alpha of one module, so that alpha / rank is its scale."""
        pattern = self.alpha_pattern or {}
        alpha = float(pattern.get(get_pattern_key(list(pattern), module), cast(float, self.alpha)))
        return alpha * math.sqrt(rank) if self.rslora else alpha

    def check_ranks(self, ranks: Mapping[str, int], own: Mapping[str, int], where: str) -> None:
        """Raises `AdapterError` if the stated ranks differ from those of the tensors (`own`: by the file's layer names)."""
        pattern = self.rank_pattern or {}
        if (
            self.rank is not None
            and not self.strict
            and not pattern
            and self.rank not in {*ranks.values(), *own.values()}
        ):
            found = ", ".join(str(rank) for rank in sorted({*ranks.values()}))
            raise AdapterError(
                f"{where} has tensors of rank {found}, {self.rank_source} says {self.rank}; correct one."
            )
        for module, rank in ranks.items() if self.strict or pattern else ():
            stated = pattern.get(get_pattern_key(list(pattern), module), self.rank)
            if stated is not None and stated != rank:
                raise AdapterError(
                    f"{where} has tensors of rank {rank} for {module!r}, {self.rank_source or self.source} says {stated}; "
                    "correct one of them."
                )


def config_of_metadata(metadata: Mapping[str, str], where: str) -> Config | None:
    """The content of `lora_adapter_metadata`; None if the file has none. Raises `AdapterError` if it is unusable."""
    text, source = metadata.get(METADATA_KEY), f"its metadata ({METADATA_KEY})"
    config = None if text is None else config_of_json(text, source, where)
    for key, value in json.loads(text or "{}").items():
        name = key.removeprefix(PREFIX)
        if value and name not in _LORA_FIELDS and not key.startswith("text_encoder"):
            raise AdapterError(
                f"{where} states {name} in {source}, which load_lora_weights does not know; export it without this field."
            )
    return config


def config_of_json(text: str, source: str, where: str) -> Config | None:
    """The content of a `LoraConfig` written as JSON; None for an empty one. Raises `AdapterError` if it is unusable."""
    try:
        stated = {key.removeprefix(PREFIX): value for key, value in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise AdapterError(
            f"{where} has broken LoRA metadata: {source} is not a JSON object; export it again."
        ) from error
    if not stated:
        return None
    return _config(stated, source, {key: f"{key} in {source}" for key in stated}, where, strict=True)


def config_of_fields(metadata: Mapping[str, str], where: str) -> Config | None:
    """The content of plain header fields such as `ss_network_alpha`; None if no such field exists."""
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field, text in metadata.items():
        name = _plain(field)
        if str(text).strip().lower() in _UNSTATED:
            continue
        kind = "lora_alpha" if _ALPHA_FIELD.fullmatch(name) else "r" if _RANK_FIELD.fullmatch(name) else name
        source = f"its header field {field!r}"
        value: Any = text
        if kind in ("lora_alpha", "r"):
            value = _number(text, source, where)
            if kind in found and found[kind] != value:
                raise AdapterError(
                    f"{where} contradicts itself: {sources[kind]} says {found[kind]:g}, {source} says {value:g}; "
                    "correct one of them."
                )
        elif kind in _JSON_FIELDS:
            try:
                value = json.loads(text)
            except ValueError as error:
                raise AdapterError(f"{where}: {source} is not JSON; export it again.") from error
        elif kind in _FLAGS:
            value = _flag(text, source, where)
        else:
            continue
        found[kind], sources[kind] = value, source
    return _config(found, "its header", sources, where, strict=False) if found else None


def _plain(field: str) -> str:
    """A header field's name in one spelling: "networkAlpha" and "lora_config.network-alpha" are "network_alpha"."""
    if field.startswith("text_encoder"):
        return field
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", field.rpartition(".")[2])
    return re.sub(r"[\s-]+", "_", name).lower()


def _config(stated: Mapping[str, Any], source: str, sources: Mapping[str, str], where: str, *, strict: bool) -> Config:
    def read(field: str, convert: Callable[[Any], Any]) -> Any:
        value = stated.get(field)
        try:
            return None if value is None else convert(value)
        except (TypeError, ValueError, OverflowError, AttributeError, re.error) as error:
            raise AdapterError(
                f"{where} states {str(value)[:80]!r} as {sources[field]}, which cannot be used; export it again."
            ) from error

    for field in _OTHER_METHODS:
        if stated.get(field):
            raise AdapterError(
                f"{where} is a DoRA, trains biases or is more than a plain LoRA in another way ({sources[field]}), which cannot "
                "be mixed per row; export a plain LoRA."
            )
    kind, start = str(stated.get("peft_type") or "LORA"), stated.get("init_lora_weights")
    if kind.upper().rpartition(".")[2] != "LORA" or start not in _PLAIN_STARTS:
        field = "init_lora_weights" if start not in _PLAIN_STARTS else "peft_type"
        raise AdapterError(
            f"{where} states {stated[field]!r} as {sources[field]}, a method that is not plain LoRA or changes the base; "
            "convert it to a plain LoRA."
        )
    config = Config(
        source,
        alpha=read("lora_alpha", _positive),
        alpha_source=sources.get("lora_alpha", source),
        rank=read("r", _whole),
        rank_source=sources.get("r", source),
        alpha_pattern=read("alpha_pattern", lambda value: _pattern(value, _positive)),
        rank_pattern=read("rank_pattern", lambda value: _pattern(value, _whole)),
        rslora=bool(stated.get("use_rslora")),
        strict=strict,
    )
    if config.alpha is None and (strict or config.alpha_pattern or config.rslora):
        needs = next((sources[field] for field in ("alpha_pattern", "use_rslora") if stated.get(field)), source)
        raise AdapterError(f"{where}: {needs} needs a lora_alpha, which is missing; export it again.")
    return config


def _positive(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError
    return number


def _whole(value: Any) -> int:
    if int(value) != float(value):
        raise ValueError
    return int(value)


def _pattern(value: Any, convert: Callable[[Any], Any]) -> dict[str, Any]:
    pattern = {str(key): convert(item) for key, item in value.items()}
    get_pattern_key(list(pattern), "a.b")  # raises for a broken regular expression
    return pattern


def _flag(text: str, source: str, where: str) -> bool:
    value = text.strip().lower()
    if value not in ("true", "1", "yes", "on", "false", "0", "no", "off"):
        raise AdapterError(f"{where}: {source} is {text[:40]!r}, neither true nor false; export it again.")
    return value in ("true", "1", "yes", "on")


def _number(text: str, source: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise AdapterError(f"{where}: {source} is {text[:40]!r}, which is not a number; export it again.") from None


def unread_fields(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Header fields that mention an alpha and are not read; the user gets a warning about them."""
    return tuple(
        field
        for field, text in metadata.items()
        if field != METADATA_KEY
        and not (_ALPHA_FIELD.fullmatch(_plain(field)) or _plain(field) in _JSON_FIELDS)
        and ("alpha" in field.lower() or _NESTED_ALPHA.search(text))
    )


def agreed(
    layers: Mapping[str, Layer], metadata: Mapping[str, str], outside: OutsideAlpha | None, where: str
) -> tuple[Config | OutsideAlpha | None, str]:
    """The source of the alpha of layers without a key of their own (None: no source), and its name in messages.

    Raises `AdapterError` naming both places if two disagree.
    """
    diffusers, plain = config_of_metadata(metadata, where), config_of_fields(metadata, where)
    keys = {name: layer.alpha for name, layer in layers.items() if layer.alpha is not None}
    if keys and diffusers is not None:
        raise AdapterError(
            f"{where} states alpha twice, in keys such as {f'{next(iter(keys))}.alpha'!r} and in {diffusers.source}; "
            "export it again with one of them."
        )
    stated: list[tuple[str, float, Config | OutsideAlpha]] = [
        (config.alpha_source, config.alpha, config)
        for config in (diffusers, plain)
        if config and config.alpha is not None
    ]
    if outside is not None:
        stated.append((outside.source, outside.value, outside))
    for (first, value, _), (second, other, _) in pairwise(stated):
        _refuse_other(where, first, value, second, other)
    if keys:
        for source, value, config in stated:
            if isinstance(config, Config) and (config.alpha_pattern or config.rslora):
                raise AdapterError(
                    f"{where} states alpha twice, in keys and in {config.source}; export it with one of them."
                )
            for name, own in keys.items():
                rounded = float(torch.tensor(value, dtype=own.dtype))  # a key may be stored in half precision
                if rounded != float(own):
                    _refuse_other(where, f"its key {f'{name}.alpha'!r}", float(own), source, value)
        return (stated[0][2] if stated and len(keys) < len(layers) else None), "its keys"
    return (stated[0][2], stated[0][0]) if stated else (None, "nowhere: alpha = rank")


def _refuse_other(where: str, first: str, value: float, second: str, other: float) -> None:
    if abs(value - other) > 1e-6 * max(1.0, abs(value)):
        raise AdapterError(
            f"{where} has two alphas: {first} says {value:g}, {second} says {other:g}; correct one of them."
        )


def resolved_keys(ranks: Mapping[str, int], keys: Mapping[str, Tensor], where: str) -> dict[str, float]:
    """Alpha per module by diffusers' rules, from `<module>.alpha` keys that some or all modules have.

    A module without one uses that of the first module that has one. diffusers matches names by their ends, so
    `proj_out` may also match a block's `proj_out`; a module that would get another scale than it states is refused.
    """
    config = get_peft_kwargs(
        {f"^{module}.lora_B.weight": rank for module, rank in ranks.items()},
        {f"{module}.alpha": alpha for module, alpha in keys.items()},
        {f"{module}.lora_B.weight": torch.empty(0) for module in ranks},
    )  # type: ignore[no-untyped-call]
    alphas: dict[str, float] = {}
    for module, rank in ranks.items():
        patterns = config["rank_pattern"], config["alpha_pattern"]
        found = (pattern.get(get_pattern_key(list(pattern), module)) for pattern in patterns)
        given, alpha = (
            value if value is not None else config[name] for value, name in zip(found, ("r", "lora_alpha"), strict=True)
        )
        value = float(alpha) if given == rank else float(alpha) * rank / given
        if module in keys and not math.isclose(value, float(keys[module]), rel_tol=1e-6):
            raise AdapterError(
                f"{where} states the alpha {float(keys[module]):g} for {module!r}, but load_lora_weights would use "
                f"{value:g}, that of another module whose name ends the same; export it with "
                "FluxFillPipeline.save_lora_weights."
            )
        # peft divides in the key's own number format: 3 / 7 in bfloat16 is 0.4277.
        scale = float(alpha / given)
        alphas[module] = value if math.isclose(scale * rank, value, rel_tol=1e-6) else scale * rank
    return alphas
