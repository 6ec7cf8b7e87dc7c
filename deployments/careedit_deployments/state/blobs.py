"""Pictures in a folder or a bucket, through fsspec, under keys that are their hash inside the scope of a job or session."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from careedit.errors import CareEditError, InputError
from careedit_deployments.config import StateConfig
from careedit_deployments.errors import LostImageError, NotFoundError, UnavailableError

Answer = TypeVar("Answer")

_SCOPE = re.compile(r"[a-z]+/[a-z]+_[0-9a-f]{12,52}")
_KEY = re.compile(rf"(?P<scope>{_SCOPE.pattern})/(?P<sha256>[0-9a-f]{{64}})\.[a-z]{{3,4}}")
_TRIES = 5


class BlobStore:
    """Pictures by key `SCOPE/SHA256.SUFFIX`, such as `sessions/session_.../9f...e1.png`, on any fsspec file system.

    A scope belongs to one job or session and is deleted as a whole. Scopes share nothing, so no reference counts can drift,
    and a key does not reveal whether another scope has the same picture. Every call runs in a thread.
    """

    def __init__(self, address: str, **options: Any) -> None:
        if "://" in address:
            options = {"use_listings_cache": False, **options}  # the writes of other replicas must be visible
        try:
            self._files, root = fsspec.url_to_fs(address, skip_instance_cache=True, **options)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"The blobs' address {address!r} cannot be used ({error}); give a folder, or for s3:// install careedit[s3]."
            ) from error
        self._root = PurePosixPath(root)
        self._is_local = isinstance(self._files, LocalFileSystem)

    async def put(self, scope: str, data: bytes, *, suffix: str) -> str:
        """Store bytes and return their key; the same bytes in the same scope are stored once."""
        key = f"{scope}/{hashlib.sha256(data).hexdigest()}.{suffix.lstrip('.')}"
        path = self._path(key)

        def write() -> None:
            if not self._is_local:  # a bucket shows an object only when it is complete
                self._files.pipe_file(path, data)
                return
            temporary = f"{path}.{secrets.token_hex(4)}.tmp"  # inside its scope, so that deleting the scope removes it after a crash
            self._files.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            self._files.pipe_file(temporary, data)
            self._files.mv(temporary, path)

        await self._run(write, f"Writing the picture {key}")
        return key

    async def get(self, key: str) -> bytes:
        """The bytes of a key. Raises `LostImageError` if they are gone or damaged."""
        path = self._path(key)

        def read() -> bytes:
            try:
                data = bytes(self._files.cat_file(path))
            except FileNotFoundError:
                raise LostImageError(f"The picture {key} is no longer stored; make it again.") from None
            if hashlib.sha256(data).hexdigest() != PurePosixPath(key).stem:
                raise LostImageError(f"The picture {key} is damaged in the store; restore it or make it again.")
            return data

        return await self._run(read, f"Reading the picture {key}")

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete single pictures, if they exist."""
        paths = [self._path(key) for key in keys]

        def remove() -> None:
            for path in paths:
                self._remove(path)

        await self._run(remove, "Deleting pictures")

    async def delete_scope(self, scope: str) -> None:
        """Delete every picture of a scope, if it exists."""
        path = self._path(scope)

        def remove() -> None:
            for left in reversed(range(_TRIES)):
                try:
                    self._remove(path)
                except OSError:  # another process writes into the folder while it is emptied
                    if not left:
                        raise
                else:
                    return

        await self._run(remove, f"Deleting the pictures of {scope}")

    async def scopes(self, kind: str) -> list[str]:
        """The scopes of a kind ("jobs", "sessions", "files"), e.g. `jobs/job_...`."""

        def look() -> list[str]:
            try:
                names = self._files.ls(str(self._root / kind), detail=False)
            except FileNotFoundError:
                return []
            found = [f"{kind}/{PurePosixPath(name).name}" for name in names]
            return sorted(scope for scope in found if _SCOPE.fullmatch(scope))

        return await self._run(look, "Listing the pictures")

    async def keys(self, scope: str) -> list[str]:
        """The keys of all pictures of a scope; empty if it does not exist."""
        path = self._path(scope)

        def look() -> list[str]:
            try:
                names = self._files.ls(path, detail=False)
            except FileNotFoundError:
                return []
            found = [f"{scope}/{PurePosixPath(name).name}" for name in names]
            return sorted(key for key in found if _KEY.fullmatch(key))

        return await self._run(look, f"Listing the pictures of {scope}")

    async def secret(self, name: str, new: bytes) -> bytes:
        """The content of a private file in the root of the store; without one it is made of `new`, once for all processes."""
        path = str(self._root / name)

        def make() -> None:
            if not self._is_local:
                self._files.pipe_file(path, new, mode="create")
                return
            temporary = f"{path}.{secrets.token_hex(4)}.tmp"
            self._files.makedirs(str(self._root), exist_ok=True)
            try:
                with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(new)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(temporary, path)  # fails if another process was faster; the file appears as a whole
            finally:
                Path(temporary).unlink(missing_ok=True)

        def find() -> bytes:
            if not self._files.exists(path):
                with suppress(FileExistsError):
                    make()
            return bytes(self._files.cat_file(path))

        return await self._run(find, f"Reading {name} in the store of pictures")

    def free_bytes(self) -> int | None:
        """Free space of the disk with the pictures, in bytes; None if they are not on this machine. Blocks."""
        if not self._is_local:
            return None
        self._files.makedirs(str(self._root), exist_ok=True)
        return shutil.disk_usage(self._root).free

    def _remove(self, path: str) -> None:
        try:
            self._files.rm(path, recursive=True)
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        """Path of a key or a scope. Any other name, such as one that leaves the folder, raises `NotFoundError`."""
        if not (_KEY.fullmatch(name) or _SCOPE.fullmatch(name)):
            raise NotFoundError(f"{name[:100]!r} is not the key of a picture; use one that the server returned.")
        return str(self._root / name)

    async def _run(self, work: Callable[[], Answer], what: str) -> Answer:
        try:
            return await asyncio.to_thread(work)
        except CareEditError:
            raise
        except Exception as error:  # every file system has its own errors
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UnavailableError(f"{what} failed ({reason}); try again, or check the store of pictures.") from error


def open_blobs(config: StateConfig) -> BlobStore:
    """The blob store that a configuration names. Raises `InputError`."""
    return BlobStore(config.blobs, **dict(config.blob_options))
