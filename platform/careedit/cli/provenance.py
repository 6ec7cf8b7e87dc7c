"""Content Credentials and watermarks: make a private authority to try them, and show where a picture comes from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit, emit_json, note
from careedit.errors import ImageError, InputError
from careedit.images import decode_image
from careedit.provenance.authority import write_authority
from careedit.provenance.certificates import from_folder
from careedit.provenance.reading import FoundWatermark, Link, Provenance, read_provenance
from careedit.provenance.signing import Signing
from careedit.provenance.watermark import Marking, find_watermark, key_from_file

app = typer.Typer(no_args_is_help=True, add_completion=False)

MAX_BYTES = 2**28
"""Maximum size of a file that is read, in bytes."""

_STATES = {
    "trusted": "The picture is as it was signed, by a signer of the authority that you trust.",
    "valid": "The picture is as it was signed. Whether you trust the signer is for you to say (--trust).",
    "invalid": "The picture or its Content Credentials were changed after they were signed.",
}


@app.callback()
def provenance() -> None:
    """Content Credentials and watermarks: make a private authority to try them, and show where a picture comes from."""


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the new files.")],
    name: Annotated[str, typer.Option("--name", help="Organisation in the certificates.")] = "careedit trial",
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days for which they are valid.")] = 365,
) -> None:
    """Make a private authority, a certificate and its key in FOLDER, to try Content Credentials."""
    if not 1 <= len(name) <= 40:
        raise InputError("--name has 1 to 40 characters; give such a name.")
    write_authority(folder, name, days=days)
    Signing(from_folder(folder))
    emit(
        f"Sign:  credentials: {{folder: {folder.resolve()}}} in a configuration, or careedit edit --credentials {folder}"
    )
    emit(f"Check: careedit provenance show PICTURE --trust {folder / 'authority.pem'}")
    note(
        "Only readers that are given authority.pem trust these signatures; docs/provenance.md says how to get a public one."
    )


@app.command("show")
def show(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A PNG, JPEG, WebP, HEIC or AVIF file.")],
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="FILE", help="Certificates of authorities that you trust, as PEM.")
    ] = None,
    watermark: Annotated[
        Path | None, typer.Option("--watermark", metavar="FILE", help="Secret key of the watermark; needs --edits.")
    ] = None,
    edits: Annotated[
        Path | None,
        typer.Option(
            "--edits",
            metavar="FILE",
            help="Text with ids of edits (edit_...), such as a log or an export; names the one in the watermark.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check PICTURE's Content Credentials, print their chain, and look for a watermark.

    The exit code is 1 if the picture has no Content Credentials or was changed.
    """
    if (watermark is None) != (edits is None):
        raise InputError("--watermark and --edits name the edit of a watermark together; give both or neither.")
    marking = None if watermark is None else Marking(key_from_file(watermark))
    trusted = None if trust is None else _read(trust).decode("utf-8", "replace")
    if trusted is not None and "BEGIN CERTIFICATE" not in trusted:
        raise InputError(f"{str(trust)!r} has no certificate in PEM format; give one such as authority.pem.")
    data = _read(picture)
    found = read_provenance(data, trust=trusted)
    try:
        seen = find_watermark(decode_image(data))
    except ImageError as error:  # the credentials of a broken picture are shown all the same
        seen = None
        note(f"Its pixels were not searched for a watermark: {error}")
    if seen is not None:
        method, mark = seen
        edit = None if marking is None or edits is None else _edit_of(mark.payload, marking, edits)
        shown = FoundWatermark(method=method, payload=mark.payload.hex(), confidence=mark.confidence, edit=edit)
        found = found.model_copy(update={"watermark": shown})
    if as_json:
        emit_json(found.model_dump(mode="json"))
    else:
        _emit(found)
        _emit_watermark(found.watermark, looked=edits is not None)
    if found.state in ("none", "invalid"):
        raise typer.Exit(1)


def _emit(found: Provenance) -> None:
    if found.state == "none":
        emit("The picture has no Content Credentials.")
        if found.marked:
            emit("Its file says, unsigned, that a trained model made a part of it (IPTC DigitalSourceType).")
        return
    emit(_STATES[found.state])
    for problem in found.problems:
        emit(f"  {problem}")
    for i, link in enumerate(found.chain, 1):
        emit(f"{i}. {_line(link)}")


def _emit_watermark(found: FoundWatermark | None, *, looked: bool) -> None:
    if found is None:
        emit("No invisible watermark was found in the pixels.")
        return
    emit(f"Its pixels have an invisible watermark: payload {found.payload}, confidence {found.confidence:.3f}.")
    if looked:
        emit(f"The watermark is that of edit {found.edit}." if found.edit else "No given edit has this watermark.")


def _edit_of(payload: bytes, marking: Marking, edits: Path) -> str | None:
    """The edit with this payload among the ids in a text."""
    try:
        with edits.open(encoding="utf-8", errors="replace") as lines:
            ids = (one for line in lines for one in re.findall(r"edit_[0-9a-f]+", line))
            return next((edit for edit in ids if marking.payload(edit) == payload), None)
    except OSError as error:
        raise InputError(f"{str(edits)!r} cannot be read ({error.strerror}); check the path.") from None


def _line(link: Link) -> str:
    parts = [link.when or "time not stated", f"signed by {link.signer} ({link.generator})"]
    if link.digital_source_type is not None:
        parts.append(link.digital_source_type.rpartition("/")[2])
    if (credit := link.credit) is not None:
        experts = " + ".join(f"{name} {weight:g}" for name, weight in credit.experts.items())
        parts += [f"edit {credit.edit}", f"model {credit.model}", f"experts {experts}"]
        parts += [f"set {credit.expert_set} {credit.expert_set_sha256[:12]}"]
        licences = {credit.model: credit.model_licence or "not known", **credit.licences}
        parts += [f"licence of {name}: {licence}" for name, licence in licences.items()]
    return "; ".join(parts)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}); check the path.") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{str(path)!r} has more than {MAX_BYTES // 2**20} MiB; give a smaller file.")
    return data
