"""A private certificate authority and a signer, to try Content Credentials without a bought certificate."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from careedit.errors import InputError
from careedit.provenance.certificates import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, time_now

_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def make_authority(name: str = "careedit trial", *, days: int = 365) -> dict[str, bytes]:
    """New files by name: the signer's chain, its key (P-256), and the authority's certificate, valid for `days` days.

    The authority's own key is thrown away, so it can never sign another certificate.
    """
    above, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    top = (
        _certificate(f"{name} authority", f"{name} authority", name, above, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(above, hashes.SHA256())
    )
    leaf = (
        _certificate(f"{name} signer", f"{name} authority", name, signer, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
        .sign(above, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return {
        CERTIFICATE_FILE: leaf.public_bytes(pem) + top.public_bytes(pem),
        KEY_FILE: signer.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        AUTHORITY_FILE: top.public_bytes(pem),
    }


def write_authority(folder: Path, name: str = "careedit trial", *, days: int = 365) -> None:
    """Write the files of `make_authority` into `folder`; only their owner may read the key. Raises `InputError`.

    Files that are there already are kept: the error names the first.
    """
    files = make_authority(name, days=days)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            if (folder / file).exists():
                raise InputError(f"{str(folder / file)!r} exists; give another folder, or remove the old files first.")
        for file, data in files.items():
            path = folder / file
            path.touch(mode=0o600 if file == KEY_FILE else 0o644, exist_ok=False)
            path.write_bytes(data)
    except OSError as error:
        raise InputError(f"The folder {str(folder)!r} cannot be written to ({error.strerror}); name another.") from None


def _certificate(
    subject: str, issuer: str, organisation: str, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = time_now()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(organisation, subject))
        .issuer_name(_name(organisation, issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))  # for clocks that are a little behind
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(organisation: str, common: str) -> x509.Name:
    given = ((NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in given])


def _usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _USES})
