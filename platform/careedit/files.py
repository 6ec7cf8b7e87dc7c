"""Files, hashes and strict YAML: the one way in which careedit writes, encodes, hashes and reads them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from PIL import Image

from careedit.errors import AdapterError, CareEditError, InputError

MAX_YAML_BYTES = 1 << 20
"""Upper limit for a YAML file, in bytes. Configurations and manifests are a few pages of text."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` when the block succeeds.

    For writers that need a path of their own. If the block fails, the temporary file is removed and `path` keeps its
    old content. The temporary name is hidden and ends in `.tmp`.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str, *, sync: bool = True) -> None:
    """Write `content` to `path` so that readers see the old file or the new one, never a part.

    Text is written as UTF-8, without a translation of line ends. `sync` waits until the bytes are on the disk, which
    can take 15 ms per file; turn it off for many files that can be made again.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(data)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())


def png_bytes(image: Image.Image, **options: Any) -> bytes:
    """The image as a PNG file. `options` are Pillow's, such as `compress_level` and `pnginfo`."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def png_base64(image: Image.Image) -> str:
    """The image as a PNG file in base64."""
    return base64.b64encode(png_bytes(image)).decode("ascii")


def png_data_url(image: Image.Image, **options: Any) -> str:
    """The image as a data URL of a PNG file. `options` are Pillow's."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(image, **options)).decode('ascii')}"


def json_digest(
    content: Any,
    *,
    ensure_ascii: bool = False,
    allow_nan: bool = False,
    separators: tuple[str, str] | None = None,
    default: Any = None,
) -> str:
    """sha256, in hex, of `content` as JSON with sorted keys. The options are those of `json.dumps`.

    Hashes are kept in files and databases, so a caller never changes its options.
    """
    text = json.dumps(
        content, sort_keys=True, ensure_ascii=ensure_ascii, allow_nan=allow_nan, separators=separators, default=default
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_digest(path: Path) -> str:
    """sha256, in hex, of a file's content, which is read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(
    folder: Path,
    pattern: str = "**/*",
    *,
    suffixes: Collection[str] | None = None,
    digest_of: Callable[[Path], str] = file_digest,
) -> str:
    """sha256, in hex, of the relative names and contents of the files in `folder` that match `pattern` and `suffixes`.

    `digest_of` returns the hash of one file.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        if path.is_file() and (suffixes is None or path.suffix in suffixes):
            digest.update(f"{path.relative_to(folder).as_posix()} {digest_of(path)}\n".encode())
    return digest.hexdigest()


def read_yaml(path: str | Path, what: str, *, error: type[CareEditError] = InputError) -> dict[str, Any]:
    """The mapping in a YAML file, read strictly as in `parse_yaml`.

    `what` names the kind of file in a message, for example "configuration". Raises `error` if the file cannot be read
    or is not such a mapping.
    """
    try:
        text = Path(path).read_text("utf-8")
    except OSError as cause:
        reason = cause.strerror or cause
        raise error(f"The {what} {str(path)!r} cannot be read ({reason}); check the path.") from None
    except UnicodeDecodeError:
        raise error(f"The {what} {str(path)!r} is not UTF-8 text; save it as UTF-8.") from None
    return parse_yaml(text, f"The {what} {str(path)!r}", error=error)


def parse_yaml(text: str, where: str, *, error: type[CareEditError] = InputError) -> dict[str, Any]:
    """The mapping that a YAML text holds.

    Stricter than YAML: repeated fields, aliases, field names that are not text, and texts of over 1 MiB are refused.
    Raises `error` with one sentence, which names the file as `where` and the line.
    """
    if len(text.encode("utf-8")) > MAX_YAML_BYTES:
        raise error(f"{where} is larger than {MAX_YAML_BYTES:,} bytes; give a smaller file.")
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = ", ".join(part for part in (cause.context, cause.problem) if part)
        raise error(f"{where}{line} is not valid YAML ({problem}); correct it.") from cause
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        raise error(f"{where} is not valid YAML ({' '.join(str(cause).split())}); correct it.") from cause
    if not isinstance(data, dict):
        kind = "empty" if data is None else f"a {type(data).__name__}"
        raise error(f"{where} must hold fields and values, but it is {kind}; write fields as `name: value`.")
    return data


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that also refuses what hides mistakes or needs unlimited memory: repeated fields and aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"the field name {key!r} is not text, put it in quotes"
            elif key in seen:
                problem = f"the field {key!r} is given twice"
            else:
                seen.add(key)
                continue
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep)


def is_url(address: str) -> bool:
    """Whether an address names a protocol, as in `s3://bucket/key`."""
    return "://" in address


def check_relative(name: str) -> str:
    """Returns `name` if it stays inside its folder; otherwise raises `AdapterError`."""
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name
    if unsafe or not path.parts:
        raise AdapterError(f"The file name {name[:120]!r} leads out of its folder; give a plain relative name.")
    return name
