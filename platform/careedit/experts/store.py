"""Folders of expert sets: local, or any fsspec address (s3://, hf://, memory://, ...).

Remote files are copied to a local cache, addressed by their sha256. They are checked when they arrive and each time they are
used, and written under a temporary name first, so that processes can share the cache. Local files are used in place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.utils import get_protocol

from careedit.errors import AdapterError, CareEditError, ExpertError
from careedit.files import MAX_YAML_BYTES, atomic_path, check_relative, file_digest, is_url, json_digest, write_atomic

SETTLED_NS = 2 * 10**9
"""Age in nanoseconds that a file must have when its hash is stored: a younger one may change without a new time stamp."""

CACHE_VARIABLE = "CAREEDIT_CACHE"
"""Environment variable that moves the cache; default `~/.cache/careedit`."""

_EXTRAS = {
    "s3": "'careedit[s3]'",
    "s3a": "'careedit[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "hf": "huggingface_hub",
}


def default_cache() -> Path:
    """The cache folder: `$CAREEDIT_CACHE`, or `~/.cache/careedit`."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "careedit")


def stored_digest(path: Path, cache: Path) -> str:
    """sha256, in hex, of a file, from `cache` if the file has not changed since it was stored there.

    A file counts as unchanged if path, size, inode and the times of its last changes are the same. `cache` may be read-only.
    """
    now = path.stat()
    state = [str(path.resolve()), now.st_size, now.st_ino, now.st_mtime_ns, now.st_ctime_ns]
    entry = cache / "digests" / f"{json_digest(state)}.txt"
    try:
        if entry.stat().st_mtime_ns - max(now.st_mtime_ns, now.st_ctime_ns) > SETTLED_NS:
            return entry.read_text("ascii")
    except OSError:
        pass
    digest = file_digest(path)
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(entry, digest, sync=False)
    return digest


@dataclass(frozen=True)
class Folder:
    """A folder, local or remote, to read files from."""

    address: str
    """Path of a local folder, or an fsspec address."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Storage options of the fsspec filesystem, e.g. `endpoint_url` of an S3 server."""
    cache: Path = field(default_factory=default_cache)
    """Local folder in which copies of remote files are kept; `default_cache()` by default."""

    @property
    def local(self) -> Path | None:
        """The folder's path if it is on this machine."""
        if not is_url(self.address):
            return Path(self.address)
        return Path(self.address.removeprefix("file://")) if self.address.startswith("file://") else None

    def child(self, name: str) -> Folder:
        """A sub-folder by relative name, or another place by absolute path or address."""
        if is_url(name):
            return Folder(name, self.options if _same_protocol(name, self.address) else {}, self.cache)
        if os.path.isabs(name):
            return Folder(name, {}, self.cache)
        check_relative(name)
        return Folder(f"{self.address.rstrip('/')}/{PurePosixPath(name).as_posix()}", self.options, self.cache)

    def read_text(self, name: str) -> str:
        """The text of a small file in the folder; raises `ExpertError`."""
        check_relative(name)
        local = self.local
        with _translated_errors(self.address, name):
            if local is not None:
                data = resolve_inside(local, name).read_bytes()
            else:
                with self._filesystem().open(self._path(name), "rb") as stream:
                    data = stream.read(MAX_YAML_BYTES + 1)
            return bytes(data).decode("utf-8")

    def fetch(self, name: str, sha256: str) -> Path:
        """A local path of file `name`; raises `AdapterError` if a remote file does not have the hash `sha256`.

        A file in a local folder is used in place; the caller checks its hash when it reads the file.
        """
        check_relative(name)
        local = self.local
        if local is not None:
            return resolve_inside(local, name)
        target = self.cache / "files" / sha256[:2] / f"{sha256}{PurePosixPath(name).suffix}"
        if target.is_file() and file_digest(target) == sha256:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            with _translated_errors(self.address, name):
                digest = self._download(self._path(name), temporary)
            if digest != sha256:
                raise AdapterError(
                    f"The file {name!r} from {self.address} has the hash {digest[:12]}, the manifest says {sha256[:12]}; "
                    "upload the right file or correct the manifest."
                )
        return target

    def fetch_tree(self, name: str) -> Path:
        """A local copy of sub-folder `name` with all its files, cached by address and file listing."""
        source = self.child(name)
        local = source.local
        if local is not None:
            if not local.is_dir():
                raise ExpertError(
                    f"The folder {self.address} has no folder {name!r}; put it there or correct the path."
                )
            return local
        with _translated_errors(self.address, name):
            filesystem = source._filesystem()
            root = source._path("").rstrip("/")
            listing = {
                path.removeprefix(root).lstrip("/"): {key: str(info.get(key)) for key in ("size", "ETag", "blob_id")}
                for path, info in sorted(filesystem.find(root, detail=True).items())
            }
            if not listing:
                raise FileNotFoundError(name)
            key = hashlib.sha256(repr((source.address, listing)).encode("utf-8")).hexdigest()
            target = self.cache / "trees" / key
            if target.is_dir():
                return target
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:16]}."))
            try:
                for relative in listing:
                    check_relative(relative)
                    (temporary / relative).parent.mkdir(parents=True, exist_ok=True)
                    source._download(f"{root}/{relative}", temporary / relative)
                try:
                    os.rename(temporary, target)
                except OSError:  # another process was faster; its copy is the same
                    if not target.is_dir():
                        raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return target

    def _download(self, path: str, target: Path) -> str:
        """Copies a remote file to `target` and returns its sha256."""
        digest = hashlib.sha256()
        with self._filesystem().open(path, "rb") as stream, target.open("wb") as out:
            while block := stream.read(1 << 20):
                digest.update(block)
                out.write(block)
        return digest.hexdigest()

    def _filesystem(self) -> Any:
        return fsspec.filesystem(get_protocol(self.address), **self.options)

    def _path(self, name: str) -> str:
        full = f"{self.address.rstrip('/')}/{name}" if name else self.address
        return str(self._filesystem()._strip_protocol(full))


def _same_protocol(first: str, second: str) -> bool:
    return is_url(second) and get_protocol(first) == get_protocol(second)


def resolve_inside(folder: Path, name: str) -> Path:
    """The path of file `name` in `folder`; raises `AdapterError` if it leads out of the folder, also by a link."""
    check_relative(name)
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise AdapterError(f"The file {name!r} is a link that leads out of its folder; replace the link by the file.")
    if not path.is_file():
        raise AdapterError(f"The folder {folder.name!r} has no file {name!r}; put it there or correct the manifest.")
    return path


@contextmanager
def _translated_errors(address: str, name: str) -> Iterator[None]:
    """Turns the exceptions of a filesystem into `ExpertError`."""
    what = f"{name!r} in {address}" if name else address
    try:
        yield
    except CareEditError:
        raise
    except ImportError as error:
        protocol = get_protocol(address)
        package = _EXTRAS.get(protocol, f"the fsspec package for {protocol}")
        raise ExpertError(
            f"Reading {protocol}:// needs a package that is missing; run pip install {package}."
        ) from error
    except FileNotFoundError as error:
        raise ExpertError(f"{what} does not exist; check the address.") from error
    except PermissionError as error:
        raise ExpertError(f"Access to {what} is refused; check the credentials.") from error
    except UnicodeDecodeError as error:
        raise ExpertError(f"The file {what} is not UTF-8 text; a manifest must be.") from error
    except Exception as error:  # every filesystem raises its own kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExpertError(f"Reading {what} failed ({reason}); check address, network and credentials.") from error
