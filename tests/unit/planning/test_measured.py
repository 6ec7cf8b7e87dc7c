"""The planner takes the seconds of `careedit bench gpu`, and refuses documents without any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from careedit.errors import InputError
from careedit_deployments.planning.model import load_profiles, measured_profile

FOUND = {"step_s": 0.2, "fixed": 0.1, "encode_s": 0.05, "decode_s": 0.1, "shared_ratio": None, "blocks": "compiled"}
DOCUMENT: dict[str, Any] = {
    "kind": "bench gpu",
    "family": "klein",
    "reduced": False,
    "environment": {"device": "cuda", "device_name": "NVIDIA H200"},
    "profile": FOUND,
}


def test_measured_seconds_replace_those_of_the_profile(tmp_path: Path) -> None:
    path, machine = tmp_path / "gpu.json", load_profiles()["klein-h200"]
    path.write_text(json.dumps(DOCUMENT))
    made = measured_profile(machine, path)
    assert (made.step_s, made.fixed, made.decode_s) == (0.2, 0.1, 0.1)
    assert (made.shared_ratio, made.price, made.name) == (machine.shared_ratio, machine.price, machine.name)
    assert "klein on NVIDIA H200, compiled blocks" in made.source


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"kind": "bench engine"}, "careedit bench gpu --out"),
        ([], "careedit bench gpu --out"),
        (DOCUMENT | {"reduced": True}, "reduced run"),
        (DOCUMENT | {"profile": None}, "ended before"),
    ],
)
def test_a_document_without_measured_seconds_is_refused(document: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=said):
        measured_profile(load_profiles()["klein-h200"], path)
