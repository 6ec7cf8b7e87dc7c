"""Names of metrics as MLflow, and the databases under it, take them.

Kinds, numbers and benchmarks are called what their authors like: "Add (object)", "..", a whole sentence. Part by part of a
metric's name, what MLflow takes is kept, so that charts go on; anything else becomes its letters with a hash behind them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping

MAX_PART = 60
"""The maximum length of a part of a name, in characters: four parts keep MLflow's limit of 250."""
_HASH = 12
_KEPT = re.compile(rf"[\w-]([\w.\- ]{{0,{MAX_PART - 2}}}[\w-])?")
_HASHED = re.compile(rf".*-[0-9a-f]{{{_HASH}}}", re.DOTALL)


def safe_parts(raw: Iterable[str]) -> Mapping[str, str]:
    """A safe part for each raw one, all different, in upper and lower case too (some databases do not tell them apart).

    A part depends on its raw one alone, except where two raw ones differ in case only.
    """
    wanted = {one: one if _is_kept(one) else _hashed(one) for one in dict.fromkeys(raw)}
    folded = Counter(part.casefold() for part in wanted.values())
    return {one: part if folded[part.casefold()] == 1 else _hashed(one) for one, part in wanted.items()}


def safe_part(raw: str) -> str:
    """A safe part of a name."""
    return safe_parts((raw,))[raw]


def _is_kept(raw: str) -> bool:
    # What looks like a hashed name is hashed again, so that no raw one is another's hashed one.
    return _KEPT.fullmatch(raw) is not None and _HASHED.fullmatch(raw) is None


def _hashed(raw: str) -> str:
    letters = re.sub(r"[^\w.\- ]", "_", raw)[: MAX_PART - _HASH - 1].lstrip(" .") or "empty"
    return f"{letters}-{hashlib.sha256(raw.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH]}"
