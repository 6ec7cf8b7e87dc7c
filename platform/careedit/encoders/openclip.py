"""Any open_clip model as an encoder: tokens for the learned router, embeddings for metrics."""

from __future__ import annotations

import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, cast

import open_clip
import torch
from cachetools import LRUCache
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from careedit.encoders.towers import patch_states, word_states
from careedit.errors import ExpertError
from careedit.images import image_sha256

DEFAULT_MODEL, DEFAULT_PRETRAINED = "ViT-L-14", "openai"
"""What production routes with unless an expert set says otherwise."""

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
"""The files of a local model, in open_clip's own hub layout."""

CACHE_ENTRIES = 64
"""Encodings that an encoder remembers; one of ViT-L-14 takes 0.8 MB."""


class OpenClipEncoder:
    """An open_clip model that gives tokens in its joint space; a `careedit.routing.features.Encoder`.

    `model` is any model of open_clip's `create_model`, `tokenizer` what `get_tokenizer` gives for it. Tokens and
    embeddings are float32 on the model's device. The newest `cache_entries` results are remembered by content.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, cache_entries: int = CACHE_ENTRIES) -> None:
        self.model = cast(Any, model.eval().requires_grad_(False))
        self.tokenizer = tokenizer
        self._device = next(model.parameters()).device
        config = PreprocessCfg(**open_clip.model.get_model_preprocess_cfg(model))
        self._as_metrics_do = image_transform_v2(config, is_train=False)
        # A crop could lose the very object that an instruction names, so tokens see the whole picture, squashed.
        self._whole = image_transform_v2(replace(config, resize_mode="squash"), is_train=False)
        self._cache: LRUCache[Hashable, Tensor] = LRUCache(cache_entries)
        self._lock = Lock()
        with torch.inference_mode():
            self._width = int(self.model.encode_text(self._ids([""])).shape[-1])

    @property
    def width(self) -> int:
        """The joint space's width d."""
        return self._width

    @property
    def visual_count(self) -> int:
        """Nv, the number of visual tokens of any picture."""
        return int(self.visual_tokens(Image.new("RGB", (16, 16))).shape[0])

    def visual_tokens(self, image: Image.Image) -> Tensor:
        """Projected patch tokens of the whole picture, whatever its shape, [Nv, d]."""
        key = ("patches", image_sha256(image))
        return self._remembered(key, lambda: self.visual_batch([image])[0])

    def text_tokens(self, text: str) -> Tensor:
        """Projected token states from the start token to the end token, [Nt, d]; the text is cut at the context."""
        return self._remembered(("words", text), lambda: self.text_batch([text])[0])

    def image_embedding(self, image: Image.Image) -> Tensor:
        """The picture's embedding [d] of length 1, preprocessed as open_clip does for this model."""
        key = ("image", image_sha256(image))
        return self._remembered(key, lambda: self.image_embeddings([image])[0])

    def text_embedding(self, text: str) -> Tensor:
        """The text's embedding [d] of length 1."""
        return self._remembered(("text", text), lambda: self.text_embeddings([text])[0])

    @torch.inference_mode()
    def visual_batch(self, images: Sequence[Image.Image]) -> Tensor:
        """`visual_tokens` of several pictures at once, [B, Nv, d]; not remembered."""
        return patch_states(self.model.visual, self._pixels(self._whole, images), self._width).float()

    @torch.inference_mode()
    def text_batch(self, texts: Sequence[str]) -> list[Tensor]:
        """`text_tokens` of several texts at once, each [Nt, d]; not remembered."""
        ids = self._ids(texts)
        states = word_states(self.model, ids, self._width).float()
        # Copies, so that a remembered row does not hold its whole batch.
        return [row[keep].clone() for row, keep in zip(states, self._words(ids), strict=True)]

    @torch.inference_mode()
    def image_embeddings(self, images: Sequence[Image.Image]) -> Tensor:
        """`image_embedding` of several pictures, [B, d]; not remembered."""
        embeddings: Tensor = self.model.encode_image(self._pixels(self._as_metrics_do, images), normalize=True)
        return embeddings.float()

    @torch.inference_mode()
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        """`text_embedding` of several texts, [B, d]; not remembered."""
        embeddings: Tensor = self.model.encode_text(self._ids(texts), normalize=True)
        return embeddings.float()

    def _pixels(self, transform: Callable[[Image.Image], Tensor], images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([transform(image.convert("RGB")) for image in images]).to(self._device)

    def _ids(self, texts: Sequence[str]) -> Tensor:
        ids: Tensor = self.tokenizer(list(texts), context_length=self.model.context_length)
        return ids.to(self._device)

    def _words(self, ids: Tensor) -> Tensor:
        """True where no padding stands, [B, L]."""
        config = getattr(getattr(self.model, "text", None), "config", None)
        end = getattr(self.tokenizer, "eot_token_id", None)
        if end is None:
            pad = getattr(config, "pad_token_id", getattr(getattr(self.model, "text", None), "pad_id", 0))
            return torch.ne(ids, int(pad))
        # Id 0, the padding of open_clip's own tokenizer, is a real token too ("!"): only the end token tells.
        ends = torch.eq(ids, int(end)).int().argmax(dim=1, keepdim=True)
        return torch.arange(ids.shape[1], device=ids.device) <= ends

    def _remembered(self, key: Hashable, encode: Callable[[], Tensor]) -> Tensor:
        with self._lock:  # a server routes several requests at once, each in a thread
            found = self._cache.get(key)
        if found is None:
            found = encode()
            if self._cache.maxsize:
                with self._lock:
                    self._cache[key] = found
        return found


def load_encoder(
    source: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    pretrained: str | None = None,
    device: torch.device | str = "cpu",
    cache_entries: int = CACHE_ENTRIES,
) -> OpenClipEncoder:
    """Loads an open_clip model.

    `source` is an architecture ("ViT-L-14", with `pretrained`, a tag or a file), a hub name ("hf-hub:organisation/name"),
    or a local folder that holds `open_clip_config.json` and `open_clip_model.safetensors` (also as "local-dir:FOLDER"),
    for which no hub is asked. A file may be the TorchScript archive that OpenAI's own package keeps in `~/.cache/clip`; its
    float16 weights become float32. Raises `ExpertError` where the model cannot be had.
    """
    name = os.fspath(source)
    options: dict[str, Any] = {"require_pretrained": True}
    archive: Path | None = None
    if not name.startswith(("hf-hub:", "local-dir:")):
        if _looks_like_folder(name):
            name = f"local-dir:{name}"
        else:
            tag = pretrained or (DEFAULT_PRETRAINED if name == DEFAULT_MODEL else None)
            if tag is None:
                raise ExpertError(f"The encoder {name!r} needs the name of its weights too; give pretrained, a tag.")
            activation = (open_clip.get_pretrained_cfg(name, tag) or {}).get("quick_gelu", False)
            options |= {"pretrained": tag, "force_quick_gelu": activation}
            if is_script_archive(Path(tag).expanduser()):
                archive = Path(tag).expanduser()
                options = {"force_quick_gelu": True}  # whatever the name says: OpenAI trained with it
    if name.startswith("local-dir:") and not (Path(name.removeprefix("local-dir:")) / CONFIG_FILE).is_file():
        folder = name.removeprefix("local-dir:")
        raise ExpertError(
            f"There is no encoder in {folder!r} (no {CONFIG_FILE}); give its folder or an open_clip name."
        )
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # open_clip tells each step to the root logger
    try:
        model = open_clip.create_model(name, device=device, **options)
        if archive is not None:
            model.load_state_dict(_archived(archive))
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # files, hub, configuration: each raises its own kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExpertError(
            f"The encoder {os.fspath(source)!r} cannot be loaded ({reason}); check its name, files and network."
        ) from error
    finally:
        logging.disable(before)
    return OpenClipEncoder(model, tokenizer, cache_entries=cache_entries)


def is_script_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI published CLIP, and not a checkpoint of weights alone."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("/constants.pkl") for name in file.namelist())


def _archived(path: Path) -> dict[str, torch.Tensor]:
    """The weights of OpenAI's archive, float32, without the three numbers that it keeps among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and these files are what they are
        weights = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    numbers = ("input_resolution", "context_length", "vocab_size")
    return {name: value.float() for name, value in weights.items() if name not in numbers}


def _looks_like_folder(name: str) -> bool:
    return Path(name).is_dir() or name.startswith((".", "/", "~")) or os.sep in name
