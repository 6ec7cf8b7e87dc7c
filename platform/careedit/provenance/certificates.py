"""The certificate chain and the key that sign: read, and refused in one sentence if they cannot sign."""

from __future__ import annotations

import datetime as dt
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from careedit.errors import InputError

CERTIFICATE_FILE = "certificate.pem"
"""Name of the file with the certificate of the signer and those above it, in a folder of credentials."""
KEY_FILE = "key.pem"
"""Name of the file with the private key."""
AUTHORITY_FILE = "authority.pem"
"""Name of the file with the certificate of a private authority, which readers are given to trust."""
WARN_DAYS = 30
"""Days before the end of a certificate from which `careedit serve`, `careedit doctor` and `/status` warn."""

_CURVES = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
_MAX_BYTES = 2**20


def time_now() -> dt.datetime:
    """The time of day in UTC, against which certificates are checked and which signatures state."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Identity:
    """A certificate chain and its key."""

    chain: bytes
    """The certificates as PEM: the signer's first, each signed by the next."""
    key: bytes = field(repr=False)
    """The private key as PEM, in PKCS #8 without a password."""
    algorithm: bytes
    """C2PA's name of the signature algorithm, for example "es256"."""
    name: str
    """Common name of the signer."""
    ends: dt.datetime
    """Time at which the first of the certificates expires, in UTC."""

    def days_left(self) -> int:
        """Whole days until a certificate expires."""
        return (self.ends - time_now()).days

    def check_time(self) -> None:
        """Raise `InputError` if a certificate has expired."""
        if self.ends <= time_now():
            raise InputError(
                f"The certificate that signs results expired on {self.ends:%Y-%m-%d %H:%M} UTC; renew it and start again."
            )


def from_folder(folder: str | os.PathLike[str]) -> Identity:
    """The identity in a folder, as `careedit provenance init` writes it. Raises `InputError`."""
    certificate, key = Path(folder) / CERTIFICATE_FILE, Path(folder) / KEY_FILE
    return make_identity(_read(certificate), _read(key), str(certificate), str(key))


def from_environment(certificate: str, key: str) -> Identity:
    """The identity in two environment variables with these names, which hold PEM. Raises `InputError`."""
    for name in (certificate, key):
        if not os.environ.get(name):
            raise InputError(
                f"The environment variable {name} is not set; set it to PEM text, for example from the files that careedit "
                "provenance init writes."
            )
    given = (os.environ[certificate].encode(), os.environ[key].encode())
    return make_identity(*given, f"environment variable {certificate}", f"environment variable {key}")


def make_identity(chain: bytes, key: bytes, chain_place: str, key_place: str) -> Identity:
    """Check that a chain and a key belong together and are valid now; the places name them in errors. Raises `InputError`."""
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise InputError(f"The {chain_place} has no certificate in PEM format; give the signer's chain.") from None
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(f"The {key_place} has no private key in PEM format without a password; give one.") from None
    leaf = certificates[0]
    if leaf.public_key() != private.public_key():
        raise InputError(
            f"The key in the {key_place} does not fit the first certificate in the {chain_place}; give the key of that "
            "certificate, or put the signer's certificate first."
        )
    for lower, upper in itertools.pairwise(certificates):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature):
            raise InputError(
                f"The {chain_place} has a foreign certificate: {_name(upper)!r} did not sign {_name(lower)!r}; give the chain "
                "from the signer upwards."
            ) from None
    now = time_now()
    for certificate in certificates:
        if certificate.not_valid_before_utc > now:
            raise InputError(
                f"The certificate {_name(certificate)!r} in the {chain_place} is valid only from "
                f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; wait, or correct the clock."
            )
        if certificate.not_valid_after_utc <= now:
            raise InputError(
                f"The certificate {_name(certificate)!r} in the {chain_place} expired on "
                f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it."
            )
    plain = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    ends = min(certificate.not_valid_after_utc for certificate in certificates)
    return Identity(chain, plain, _algorithm(private, key_place), _name(leaf), ends)


def _algorithm(key: object, place: str) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return b"ps256"
    raise InputError(
        f"The key in the {place} is of a kind that C2PA does not allow; use ECDSA (P-256, P-384, P-521), Ed25519, or RSA of "
        "at least 2,048 bits."
    )


def _name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} cannot be read ({error.strerror}); careedit provenance init makes such files to try."
        ) from None
    if len(data) > _MAX_BYTES:
        raise InputError(f"{str(path)!r} has more than 1 MiB; give a PEM file.")
    return data
