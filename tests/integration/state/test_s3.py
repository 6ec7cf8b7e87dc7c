"""Pictures in a bucket, by a server that speaks S3."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import fsspec
import httpx2
import pytest

import blob_cases
from careedit_deployments.config import StateConfig
from careedit_deployments.errors import UnavailableError
from careedit_deployments.state.blobs import open_blobs
from fake_backend import FakeBackend, picture_file
from served import serve


@pytest.mark.parametrize("case", blob_cases.CASES, ids=lambda case: case.__name__)
def test_a_bucket(case: Any, bucket: dict[str, Any]) -> None:
    asyncio.run(case(open_blobs(StateConfig(**{**bucket, "blobs": f"{bucket['blobs']}/{uuid.uuid4().hex}"}))))


def test_a_bucket_that_is_not_there_is_said_in_a_sentence(bucket: dict[str, Any]) -> None:
    blobs = open_blobs(StateConfig(**{**bucket, "blobs": "s3://no-such-bucket/x"}))
    with pytest.raises(UnavailableError, match="check the store of pictures") as caught:
        asyncio.run(blobs.put(blob_cases.JOB, b"x", suffix="png"))
    assert "\n" not in str(caught.value)


def test_a_session_lives_in_a_bucket_and_leaves_no_object(bucket: dict[str, Any], tmp_path: Path) -> None:
    where = f"{bucket['blobs']}/{uuid.uuid4().hex}"
    state = {**bucket, "blobs": where, "database": f"sqlite+aiosqlite:///{tmp_path}/s.db"}
    files = fsspec.filesystem("s3", use_listings_cache=False, **bucket["blob_options"])
    with serve(tmp_path, FakeBackend(), state=state) as served:
        picture = {"image": ("a.png", picture_file())}
        session = httpx2.post(served.url + "/v1/sessions", files=picture, timeout=30).json()["id"]
        at = f"{served.url}/v1/sessions/{session}"
        for _ in range(3):  # there, back, and there again: the file that came, and results that are two pictures
            assert httpx2.post(at + "/turns", json={"prompt": "invert it"}, timeout=30).status_code == 200
        assert len(files.find(where)) == 3
        assert httpx2.delete(at, timeout=30).status_code == 200
        assert files.find(where) == []
