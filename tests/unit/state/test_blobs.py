"""Pictures in a folder; the same tests run on S3 in tests/integration/state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import blob_cases
from careedit.errors import InputError
from careedit_deployments.config import StateConfig
from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.blobs import BlobStore, open_blobs


@pytest.mark.parametrize("case", blob_cases.CASES, ids=lambda case: case.__name__)
def test_a_folder(case, tmp_path: Path) -> None:
    asyncio.run(case(BlobStore(str(tmp_path / "blobs"))))


def test_a_picture_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = BlobStore(str(tmp_path))

    def dies(path: str, data: bytes) -> None:
        Path(path).write_bytes(data[:3])
        raise OSError("the disk is full")

    monkeypatch.setattr(blobs._files, "pipe_file", dies)
    with pytest.raises(Exception, match="the disk is full"):
        asyncio.run(blobs.put(blob_cases.JOB, b"picture", suffix="png"))
    assert list(tmp_path.rglob("*.png")) == []
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".tmp"]
    asyncio.run(blobs.delete_scope(blob_cases.JOB))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "jobs/../x", "/etc/passwd", "jobs/job_1", "", f"jobs/{'a' * 64}.png", "jobs"]
)
def test_a_key_leads_nowhere_but_to_pictures(tmp_path: Path, key: str) -> None:
    blobs = BlobStore(str(tmp_path / "blobs"))
    for ask in (blobs.get(key), blobs.delete([key]), blobs.delete_scope(key)):
        with pytest.raises(NotFoundError, match="not the key of a picture"):
            asyncio.run(ask)


def test_an_address_that_cannot_be_used_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="nowhere://x"):
        open_blobs(StateConfig(blobs="nowhere://x"))
