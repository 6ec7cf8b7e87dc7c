"""Names of metrics that MLflow and its databases accept.

Kinds, numbers and benchmarks may have any name: "Add (object)", "..", a whole sentence. Each part of a metric's name that
MLflow accepts is kept, so that charts continue. Any other part becomes its letters with a hash.
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
    """A safe part for each raw name. All differ, also without regard to case, which some databases ignore.

    A part depends on its raw name only, unless two raw names differ only in case.
    """
    wanted = {one: one if _is_kept(one) else _hashed(one) for one in dict.fromkeys(raw)}
    folded = Counter(part.casefold() for part in wanted.values())
    return {one: part if folded[part.casefold()] == 1 else _hashed(one) for one, part in wanted.items()}


def safe_part(raw: str) -> str:
    """A safe part of a name."""
    return safe_parts((raw,))[raw]


def _is_kept(raw: str) -> bool:
    # A raw name that looks hashed is hashed too, so that it cannot equal another hashed name.
    return _KEPT.fullmatch(raw) is not None and _HASHED.fullmatch(raw) is None


def _hashed(raw: str) -> str:
    letters = re.sub(r"[^\w.\- ]", "_", raw)[: MAX_PART - _HASH - 1].lstrip(" .") or "empty"
    return f"{letters}-{hashlib.sha256(raw.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH]}"
