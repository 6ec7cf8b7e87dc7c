"""Names of users are stored as keyed hashes, with one key for all replicas that is not in the database."""

import asyncio
import re
import stat

import fsspec
import pytest

from careedit.errors import InputError
from careedit_deployments.config import StateConfig
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.pseudonyms import KEY_FILE, Pseudonyms

NAME = "anna@example.org"


def names(blobs, variable=None):
    return Pseudonyms(StateConfig(user_key_env=variable), blobs)


def test_a_pseudonym_depends_on_tenant_name_and_key_and_does_not_show_the_name(monkeypatch, tmp_path):
    monkeypatch.setenv("FIRST_KEY", "k" * 16)
    monkeypatch.setenv("OTHER_KEY", "l" * 16)

    async def make():
        one, other = names(BlobStore(str(tmp_path)), "FIRST_KEY"), names(BlobStore(str(tmp_path)), "OTHER_KEY")
        made = [await one.of("t", NAME), await one.of("u", NAME), await one.of("t", "bert"), await other.of("t", NAME)]
        assert await one.of("a", "bc") != await one.of("ab", "c"), "the parts do not run into each other"
        assert await one.stored("t", NAME) == made[0]
        assert (await one.stored("t", NAME, clear=True), await one.stored("t", None)) == (NAME, None)
        assert await one.forms("t", NAME) == (NAME, made[0])
        return made

    made = asyncio.run(make())
    assert made[0] == "u1_b58acd6a8f3b9006a2662e12904380a9be46ef4a", (
        "a stored pseudonym is found again by every later version"
    )
    assert len(set(made)) == 4
    assert all(re.fullmatch("u1_[0-9a-f]{40}", one) for one in made)
    assert list(tmp_path.iterdir()) == [], "a configured key is not written anywhere"


@pytest.mark.parametrize("address", ["folder", "memory://pseudonyms"])
def test_replicas_that_start_at_once_make_one_private_key(address, tmp_path):
    address = str(tmp_path / address) if address == "folder" else address

    async def make():
        return await asyncio.gather(*(names(BlobStore(address)).of("t", NAME) for _ in range(8)))

    assert len(set(asyncio.run(make()))) == 1
    assert len(set(asyncio.run(make()))) == 1
    files, root = fsspec.url_to_fs(address)
    assert [name.rpartition("/")[2] for name in files.ls(root, detail=False)] == [KEY_FILE]
    if "://" not in address:
        assert stat.S_IMODE((tmp_path / "folder" / KEY_FILE).stat().st_mode) == 0o600


def test_a_missing_or_weak_or_damaged_key_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_KEY", raising=False)
    monkeypatch.setenv("WEAK_KEY", "short")
    with pytest.raises(InputError, match=r"NO_KEY .* is not set"):
        names(BlobStore(str(tmp_path)), "NO_KEY")
    with pytest.raises(InputError, match="fewer than 16 bytes"):
        names(BlobStore(str(tmp_path)), "WEAK_KEY")
    (tmp_path / KEY_FILE).write_bytes(b"cut")
    with pytest.raises(InputError, match="has 3 bytes, so it is damaged"):
        asyncio.run(names(BlobStore(str(tmp_path))).of("t", NAME))
