"""What every blob store must do; a folder does it in tests/unit, S3 in tests/integration."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from careedit_deployments.errors import NotFoundError
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import new_id
from state_records import collect_cases

JOB = "jobs/job_0123456789abcdef"


CASES, case = collect_cases()
"""Every case below, for `pytest.mark.parametrize`, and the decorator that adds one."""


def _scope(kind: str = "job") -> str:
    return f"{kind}s/{new_id(kind)}"


@case
async def bytes_come_back_under_a_key_that_is_their_hash(blobs: BlobStore) -> None:
    scope = _scope()
    key = await blobs.put(scope, b"one", suffix="png")
    assert key == f"{scope}/{hashlib.sha256(b'one').hexdigest()}.png"
    assert await blobs.put(scope, b"one", suffix=".png") == key
    assert await blobs.get(key) == b"one"


@case
async def a_scope_is_deleted_whole_and_nothing_else(blobs: BlobStore) -> None:
    first, second = _scope(), _scope()
    keys = [await blobs.put(scope, data, suffix="png") for scope in (first, second) for data in (b"one", b"two")]
    await blobs.delete_scope(first)
    await blobs.delete_scope(first)
    for key in keys[:2]:
        with pytest.raises(NotFoundError, match="no longer stored"):
            await blobs.get(key)
    assert await blobs.get(keys[2]) == b"one"
    assert first not in await blobs.scopes("jobs")
    assert second in await blobs.scopes("jobs")


@case
async def single_pictures_are_deleted_by_key(blobs: BlobStore) -> None:
    scope = _scope("session")
    keys = [await blobs.put(scope, data, suffix="webp") for data in (b"one", b"two")]
    await blobs.delete([keys[0], keys[0]])
    assert await blobs.get(keys[1]) == b"two"
    with pytest.raises(NotFoundError):
        await blobs.get(keys[0])


@case
async def scopes_are_listed_by_kind(blobs: BlobStore) -> None:
    assert await blobs.scopes("nothing") == []
    scope = _scope("session")
    await blobs.put(scope, b"one", suffix="png")
    assert scope in await blobs.scopes("sessions")
    assert scope not in await blobs.scopes("jobs")


@case
async def what_was_changed_is_not_handed_out(blobs: BlobStore) -> None:
    key = await blobs.put(_scope(), b"one", suffix="png")
    blobs._files.pipe_file(blobs._path(key), b"two")
    with pytest.raises(NotFoundError, match="damaged"):
        await blobs.get(key)


@case
async def writers_of_the_same_picture_do_not_disturb_each_other(blobs: BlobStore) -> None:
    scope, data = _scope(), bytes(range(256)) * 4096
    keys = await asyncio.gather(*(blobs.put(scope, data, suffix="png") for _ in range(8)))
    assert len(set(keys)) == 1
    assert await blobs.get(keys[0]) == data
