"""Content Credentials: real signatures, read back by the C2PA library; bad certificates, keys and sources."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image
from typer.testing import CliRunner

from careedit.cli import provenance as command
from careedit.errors import ImageError, InputError
from careedit.images import decode_image
from careedit.provenance import DIGITAL_SOURCE_TYPE, Credit, certificates, xmp_options
from careedit.provenance import signing as signing_module
from careedit.provenance.authority import make_authority, write_authority
from careedit.provenance.certificates import from_environment, from_folder, make_identity
from careedit.provenance.native import store_bytes
from careedit.provenance.reading import read_provenance
from careedit.provenance.signing import Signing, ingredient_of

FILES = make_authority("test")
CHAIN, KEY, AUTHORITY = FILES["certificate.pem"], FILES["key.pem"], FILES["authority.pem"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
CREDIT = Credit(
    edit="edit_1",
    model="base",
    expert_set="set",
    expert_set_sha256="a" * 64,
    experts={"erase": 1.0},
    licences={"erase": "Apache-2.0"},
)


@pytest.fixture(scope="module")
def signing() -> Signing:
    return Signing(make_identity(CHAIN, KEY, "chain", "key"))


def file_of(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, kind, **xmp_options(kind))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_signed_file_has_its_pixels_and_one_changed_byte_is_found(kind: str, signing: Signing) -> None:
    plain = file_of(kind)
    signed = signing.sign(plain, CREDIT)
    assert decode_image(signed).tobytes() == decode_image(plain).tobytes()
    assert len(signed) - len(plain) < 5000
    read = read_provenance(signed, trust=AUTHORITY.decode())
    assert (read.state, read.problems, [link.credit for link in read.chain]) == ("trusted", (), [CREDIT])
    assert read.chain[0].digital_source_type == DIGITAL_SOURCE_TYPE
    assert read_provenance(signed).state == "valid"
    changed = bytearray(signed)
    changed[signed.index(plain[len(plain) // 4 :][:16])] ^= 1  # a byte of the pixels
    broken = read_provenance(bytes(changed), trust=AUTHORITY.decode())
    assert broken.state == "invalid"
    assert broken.problems


def test_the_mark_in_xmp_stays_where_the_credentials_are_dropped(signing: Signing) -> None:
    with Image.open(io.BytesIO(signing.sign(file_of("JPEG"), CREDIT))) as opened:
        assert DIGITAL_SOURCE_TYPE.encode() in opened.info["xmp"]
        again = io.BytesIO()
        opened.save(again, "JPEG", xmp=opened.info["xmp"])
    dropped = read_provenance(again.getvalue())
    assert (dropped.state, dropped.marked, dropped.chain) == ("none", True, ())


def test_edits_of_edits_form_a_chain_that_ends_at_a_foreign_signer(signing: Signing, tmp_path: Path) -> None:
    others = make_authority("somewhere else")
    foreign = Signing(make_identity(others["certificate.pem"], others["key.pem"], "chain", "key"))
    first = foreign.sign(file_of(), CREDIT)
    second = signing.sign(file_of("WEBP"), CREDIT.model_copy(update={"edit": "edit_2"}), ingredient_of(first))
    third = signing.sign(file_of("JPEG"), CREDIT.model_copy(update={"edit": "edit_3"}), ingredient_of(second))
    read = read_provenance(third, trust=AUTHORITY.decode())
    assert [link.credit.edit for link in read.chain if link.credit] == ["edit_3", "edit_2", "edit_1"]
    assert read.state == "trusted"
    assert [link.signer for link in read.chain] == ["test signer", "test signer", "somewhere else signer"]
    assert read_provenance(first, trust=AUTHORITY.decode()).state == "valid"  # not trusted

    (tmp_path / "third.jpg").write_bytes(third)
    (tmp_path / "plain.png").write_bytes(file_of())
    shown = CliRunner().invoke(command.app, ["show", str(tmp_path / "third.jpg")])
    assert shown.exit_code == 0
    assert [line[:2] for line in shown.output.splitlines()[1:]] == ["1.", "2.", "3.", "No"]  # no watermark
    assert "edit edit_3" in shown.output.splitlines()[1]
    plain = CliRunner().invoke(command.app, ["show", str(tmp_path / "plain.png"), "--json"])
    assert (plain.exit_code, json.loads(plain.output)["state"]) == (1, "none")


def with_chunk(data: bytes, body: bytes) -> bytes:
    """A PNG with another C2PA chunk after its header."""
    chunk = struct.pack(">I", len(body)) + b"caBX" + body + struct.pack(">I", zlib.crc32(b"caBX" + body))
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_the_size_of_the_credentials_is_known_before_they_are_read(
    kind: str, signing: Signing, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = file_of(kind)
    signed = signing.sign(plain, CREDIT)
    assert store_bytes(plain) == 0
    assert 0 <= len(signed) - len(plain) - store_bytes(signed) < 20
    monkeypatch.setattr(signing_module, "MAX_SOURCE", 1000)
    monkeypatch.setattr(signing_module.c2pa, "Builder", None)
    with pytest.raises(ImageError, match=r"have [34],\d+ bytes; the limit is 1,000, so save it without them"):
        ingredient_of(signed)


def test_a_source_with_a_large_or_damaged_manifest_is_refused(
    signing: Signing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        ingredient_of(with_chunk(file_of(), bytes(5000)))
    monkeypatch.setattr(signing_module, "MAX_SOURCE", 5000)
    with pytest.raises(ImageError, match=r"have [5-9],\d+ bytes; the limit is 5,000, so save it without them"):
        ingredient_of(signing.sign(signing.sign(file_of(), CREDIT), CREDIT, ingredient_of(file_of())))


def test_a_certificate_or_key_that_cannot_sign_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = make_authority("other")
    cases = {
        r"does not fit the first certificate": (CHAIN, other["key.pem"]),
        r"no certificate in PEM format": (b"not a certificate", KEY),
        r"no private key in PEM format": (CHAIN, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        r"foreign certificate: 'other authority' did not sign 'test signer'": (
            CHAIN.replace(AUTHORITY, other["authority.pem"]),
            KEY,
        ),
    }
    for sentence, given in cases.items():
        with pytest.raises(InputError, match=sentence):
            make_identity(*given, "chain", "key")
    with pytest.raises(InputError, match=r"certificate.pem' cannot be read \(No such file"):
        from_folder(tmp_path)
    monkeypatch.setenv("A_CHAIN", CHAIN.decode())
    with pytest.raises(InputError, match="variable A_KEY is not set"):
        from_environment("A_CHAIN", "A_KEY")
    monkeypatch.setenv("A_KEY", KEY.decode())
    assert from_environment("A_CHAIN", "A_KEY").name == "test signer"


def test_the_time_of_a_certificate_is_checked_at_the_start_and_at_each_signature(
    monkeypatch: pytest.MonkeyPatch, signing: Signing
) -> None:
    ends = make_identity(CHAIN, KEY, "chain", "key").ends

    monkeypatch.setattr(certificates, "time_now", lambda: ends + dt.timedelta(seconds=1))
    with pytest.raises(InputError, match=r"certificate 'test signer' in the chain expired on .* renew it"):
        make_identity(CHAIN, KEY, "chain", "key")
    with pytest.raises(InputError, match="that signs results expired on"):
        signing.sign(file_of(), CREDIT)


def test_a_certificate_without_the_use_that_c2pa_demands_is_refused() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alone")])
    now = dt.datetime.now(dt.UTC)
    alone = x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + dt.timedelta(days=5))
    alone = alone.sign(private, hashes.SHA256())
    pem = serialization.Encoding.PEM
    key = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(InputError, match=r"certificate 'alone' cannot sign Content Credentials"):
        Signing(make_identity(alone.public_bytes(pem), key, "chain", "key"))


def test_a_new_authority_keeps_its_key_from_others_and_replaces_nothing(tmp_path: Path) -> None:
    ran = CliRunner().invoke(command.app, ["init", str(tmp_path / "new")])
    assert ran.exit_code == 0
    assert os.stat(tmp_path / "new" / "key.pem").st_mode & 0o077 == 0
    with pytest.raises(InputError, match="exists; give another folder"):
        write_authority(tmp_path / "new")
    assert Signing(from_folder(tmp_path / "new")).identity.days_left() == 364
