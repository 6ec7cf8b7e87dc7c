"""Any open_clip model as an encoder: tokens for the learned router, embeddings for metrics.

CLIP projects only its pooled states into the space that pictures and text share. Applied to every token, the same
projection gives patches and words that can be compared (MaskCLIP, Zhou et al. 2022, section 3.2).
"""

from __future__ import annotations

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

from careedit.errors import ExpertError
from careedit.images import image_sha256
from careedit.loading import loading

DEFAULT_MODEL, DEFAULT_PRETRAINED = "ViT-L-14", "openai"
"""The model and the tag of its weights that are loaded if no other is named."""

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
"""The files of a local model, in open_clip's own hub layout."""

CACHE_ENTRIES = 64
"""Default number of encodings that an encoder caches; one of ViT-L-14 takes 0.8 MB."""


class OpenClipEncoder:
    """An open_clip model that gives tokens in its joint space; a `careedit.routing.features.Encoder`.

    `model` is any model of open_clip's `create_model`, `tokenizer` what `get_tokenizer` gives for it. Tokens and
    embeddings are float32 on the model's device. The newest `cache_entries` results are cached by content.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, cache_entries: int = CACHE_ENTRIES) -> None:
        self.model = cast(Any, model.eval().requires_grad_(False))
        self.tokenizer = tokenizer
        self._device = next(model.parameters()).device
        config = PreprocessCfg(**open_clip.model.get_model_preprocess_cfg(model))
        self._standard = image_transform_v2(config, is_train=False)
        # A crop could lose the object that an instruction names, so tokens see the whole picture, squashed.
        self._whole = image_transform_v2(replace(config, resize_mode="squash"), is_train=False)
        self._cache: LRUCache[Hashable, Tensor] = LRUCache(cache_entries)
        self._lock = Lock()
        with torch.inference_mode():
            self._width = int(self.model.encode_text(self._ids([""])).shape[-1])

    @property
    def width(self) -> int:
        """Width d of the joint space."""
        return self._width

    @property
    def visual_count(self) -> int:
        """Nv, the number of visual tokens of any picture."""
        return int(self.visual_tokens(Image.new("RGB", (16, 16))).shape[0])

    def visual_tokens(self, image: Image.Image) -> Tensor:
        """Projected patch tokens of the whole picture, whatever its shape, [Nv, d]."""
        key = ("patches", image_sha256(image))
        return self._cached(key, lambda: self.visual_batch([image])[0])

    def text_tokens(self, text: str) -> Tensor:
        """Projected token states from the start token to the end token, [Nt, d]; the text is cut at the context."""
        return self._cached(("words", text), lambda: self.text_batch([text])[0])

    def image_embedding(self, image: Image.Image) -> Tensor:
        """The picture's embedding [d] of length 1, preprocessed as open_clip does for this model."""
        key = ("image", image_sha256(image))
        return self._cached(key, lambda: self.image_embeddings([image])[0])

    def text_embedding(self, text: str) -> Tensor:
        """The text's embedding [d] of length 1."""
        return self._cached(("text", text), lambda: self.text_embeddings([text])[0])

    @torch.inference_mode()
    def visual_batch(self, images: Sequence[Image.Image]) -> Tensor:
        """`visual_tokens` of several pictures at once, [B, Nv, d]; not cached."""
        return patch_states(self.model.visual, self._pixels(self._whole, images), self._width).float()

    @torch.inference_mode()
    def text_batch(self, texts: Sequence[str]) -> list[Tensor]:
        """`text_tokens` of several texts at once, each [Nt, d]; not cached."""
        ids = self._ids(texts)
        states = word_states(self.model, ids, self._width).float()
        # Copies, so that a cached row does not hold its whole batch.
        return [row[keep].clone() for row, keep in zip(states, self._words(ids), strict=True)]

    @torch.inference_mode()
    def image_embeddings(self, images: Sequence[Image.Image]) -> Tensor:
        """`image_embedding` of several pictures, [B, d]; not cached."""
        embeddings: Tensor = self.model.encode_image(self._pixels(self._standard, images), normalize=True)
        return embeddings.float()

    @torch.inference_mode()
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        """`text_embedding` of several texts, [B, d]; not cached."""
        embeddings: Tensor = self.model.encode_text(self._ids(texts), normalize=True)
        return embeddings.float()

    def is_cut(self, text: str) -> bool:
        """Whether a text is longer than the context, so that its embedding misses its end."""
        length = int(self.model.context_length)
        # With room for one more token, only a longer text has a token there.
        return bool(self._words(self._ids([text], length + 1))[0, length])

    def _pixels(self, transform: Callable[[Image.Image], Tensor], images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([transform(image.convert("RGB")) for image in images]).to(self._device)

    def _ids(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        ids: Tensor = self.tokenizer(list(texts), context_length=length or self.model.context_length)
        return ids.to(self._device)

    def _words(self, ids: Tensor) -> Tensor:
        """True for tokens, False for padding, [B, L]."""
        config = getattr(getattr(self.model, "text", None), "config", None)
        end = getattr(self.tokenizer, "eot_token_id", None)
        if end is None:
            pad = getattr(config, "pad_token_id", getattr(getattr(self.model, "text", None), "pad_id", 0))
            return torch.ne(ids, int(pad))
        # Id 0, the padding of open_clip's own tokenizer, is a real token too ("!"): only the end token marks the end.
        ends = torch.eq(ids, int(end)).int().argmax(dim=1, keepdim=True)
        return torch.arange(ids.shape[1], device=ids.device) <= ends

    def _cached(self, key: Hashable, encode: Callable[[], Tensor]) -> Tensor:
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
    which need no hub. A file may be the TorchScript archive that OpenAI's own package keeps in `~/.cache/clip`; its
    float16 weights become float32. Raises `ExpertError` if the model cannot be loaded.
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
                options = {"force_quick_gelu": True}  # OpenAI trained with it, whatever the architecture's name says
    if name.startswith("local-dir:") and not (Path(name.removeprefix("local-dir:")) / CONFIG_FILE).is_file():
        folder = name.removeprefix("local-dir:")
        raise ExpertError(
            f"The folder {folder!r} has no encoder ({CONFIG_FILE} is missing); give an encoder's folder or an open_clip name."
        )
    with loading(f"encoder {os.fspath(source)!r}"):
        model = open_clip.create_model(name, device=device, **options)
        if archive is not None:
            model.load_state_dict(_archived(archive))
        tokenizer = open_clip.get_tokenizer(name)
    return OpenClipEncoder(model, tokenizer, cache_entries=cache_entries)


def is_script_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI published CLIP, rather than a checkpoint of weights."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("/constants.pkl") for name in file.namelist())


def _archived(path: Path) -> dict[str, torch.Tensor]:
    """The weights of OpenAI's archive as float32, without the three numbers that it stores among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but these files exist
        weights = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    numbers = ("input_resolution", "context_length", "vocab_size")
    return {name: value.float() for name, value in weights.items() if name not in numbers}


def _looks_like_folder(name: str) -> bool:
    return Path(name).is_dir() or name.startswith((".", "/", "~")) or os.sep in name


def patch_states(visual: nn.Module, pixels: Tensor, width: int) -> Tensor:
    """Projected patch tokens [B, Nv, width] of normalised pixels [B, 3, H, W], without the class token.

    `width` is the joint space's. Raises `ExpertError` for a tower whose tokens cannot be projected into it.
    """
    tower: Any = visual
    if hasattr(tower, "attnpool"):  # ModifiedResNet: the pooling's value and output projections, as MaskCLIP does
        grid = tower.forward_intermediates(pixels, indices=1, intermediates_only=True)["image_intermediates"][-1]
        return _checked(tower.attnpool.c_proj(tower.attnpool.v_proj(grid.flatten(2).transpose(1, 2))), width)
    found = tower.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NLC"
    )
    states: Tensor = found["image_intermediates"][-1]
    if hasattr(tower, "trunk"):  # a timm trunk: its own head (SigLIP: none), or open_clip's
        head = tower.head if len(tower.head) else getattr(tower.trunk, "head", None)
        return _checked(head(states) if isinstance(head, nn.Module) else states, width)
    return _checked(_project(states, tower.proj), width)


def word_states(model: nn.Module, ids: Tensor, width: int) -> Tensor:
    """Projected text tokens [B, L, width] of token ids [B, L]; values at padding are meaningless."""
    owner: Any = model
    text = getattr(owner, "text", None)
    if text is not None and not hasattr(text, "forward_intermediates"):  # a Hugging Face encoder
        mask = (ids != text.config.pad_token_id).long()
        return _checked(text.proj(text.transformer(input_ids=ids, attention_mask=mask).last_hidden_state), width)
    asked: dict[str, Any] = {"normalize_intermediates": True, "intermediates_only": True}
    if text is None:
        found = owner.forward_intermediates(text=ids, text_indices=1, **asked)
    else:
        found = text.forward_intermediates(ids, indices=1, output_fmt="NLC", **asked)
    return _checked(_project(found["text_intermediates"][-1], (text or owner).text_projection), width)


def _project(states: Tensor, projection: Tensor | nn.Module | None) -> Tensor:
    if projection is None:
        return states
    return torch.as_tensor(projection(states)) if isinstance(projection, nn.Module) else states @ projection


def _checked(states: Tensor, width: int) -> Tensor:
    if states.ndim != 3 or states.shape[-1] != width:
        raise ExpertError(
            f"The encoder's tokens have {states.shape[-1]} channels where its joint space has {width}, and it has no "
            "projection between the two; choose an open_clip model with a transformer tower, such as ViT-L-14."
        )
    return states
