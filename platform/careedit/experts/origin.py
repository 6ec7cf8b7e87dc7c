"""What a LoRA file shows of the base that it was made for: in the names of its layers, and in its header."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from careedit.experts.manifest import ExpertManifest
from careedit.experts.shapes import BaseShapes
from careedit.families import FLUX2_KLEIN, FLUX2_KLEIN_KV, FLUX_FILL, FLUX_KONTEXT, LONGCAT_EDIT, QWEN_EDIT_PLUS, Facts

_LAYERS: tuple[tuple[re.Pattern[str], tuple[Facts, ...]], ...] = (
    (re.compile(r"[._](img|txt)_mlp[._]net[._]|transformer_blocks[._]\d+[._](img|txt)_mod[._]1"), (QWEN_EDIT_PLUS,)),
    (
        re.compile(r"to_qkv_mlp_proj|ff(_context)?[._]linear_(in|out)|(single|double)_stream_modulation"),
        (FLUX2_KLEIN, FLUX2_KLEIN_KV),
    ),
    (re.compile(r"blocks[._]\d+[._]((img|txt)_mod|modulation)[._]lin|vector_in[._]"), (FLUX_FILL, FLUX_KONTEXT)),
    (
        re.compile(r"proj_mlp|ff(_context)?[._]net[._]|norm1?(_context)?[._]linear"),
        (FLUX_FILL, FLUX_KONTEXT, LONGCAT_EDIT),
    ),
)
"""Names of layers that only some families have, in diffusers', Black Forest Labs' and kohya's layouts."""

_FIELD = re.compile(
    r"(ss_)?(base|sd|pretrained)_?model(_version|_name)?(_or_path)?|modelspec\.(architecture|title)|base_model_name_or_path"
)
_NAMES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"kontext"), FLUX_KONTEXT.name),
    (re.compile(r"flux.*fill"), FLUX_FILL.name),
    (re.compile(r"klein.*base|base.*klein"), f"{FLUX2_KLEIN.name} base"),
    (re.compile(r"klein"), f"{FLUX2_KLEIN.name} distilled"),
    (re.compile(r"qwen.*2509|edit[-_. ]?plus"), f"{QWEN_EDIT_PLUS.name} 2509"),
    (re.compile(r"qwen.*2511"), f"{QWEN_EDIT_PLUS.name} 2511"),
    (re.compile(r"longcat"), LONGCAT_EDIT.name),
)
"""How headers name bases, and the label of that base."""


def other_families(keys: Iterable[str], family: Facts) -> tuple[Facts, ...]:
    """The families that a file's layer names point to, if `family` is not one of them; else none."""
    for pattern, families in _LAYERS:
        if family not in families and any(pattern.search(key) for key in keys):
            return families
    return ()


def other_variant(manifest: ExpertManifest, shapes: BaseShapes) -> str | None:
    """A warning about an expert that was made for another variant of the base, as `other_base` gives for a bare file."""
    for sibling in shapes.siblings:
        if sibling.fingerprint == manifest.base.fingerprint:
            return (
                f"Its manifest says that it was made for {sibling.label}, but this base is {shapes.label}; compare its "
                "edits before you use it."
            )
    return None


def other_base(metadata: Mapping[str, str], shapes: BaseShapes) -> Iterator[str]:
    """Warnings about header fields that name another family or variant than the base's.

    They are not errors: experts for one variant often work on another one of the same shapes (FLUX.2 klein's are trained
    on the base and used on the distilled model), and the names are free text.
    """
    for field, text in metadata.items():
        label = next((label for pattern, label in _NAMES if pattern.search(text.lower())), None)
        if label is not None and label != shapes.label and _FIELD.fullmatch(field.lower()):
            yield (
                f"Its header field {field!r} says {text[:60]!r}, so it was made for {label}, but this base is "
                f"{shapes.label}; compare its edits before you use it."
            )
