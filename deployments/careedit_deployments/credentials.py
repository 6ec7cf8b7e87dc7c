"""Content Credentials and watermarks of a server: their configuration, the signer, and what an operator is warned about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from careedit.errors import InputError
from careedit.provenance.watermark import DEFAULT_METHOD, Marking, key_from_environment, key_from_file, method_of
from careedit.record import Record

if TYPE_CHECKING:
    from careedit.provenance.signing import Signing


class CredentialsConfig(Record):
    """The certificate and key that sign every result (Content Credentials), from a folder or from a secret."""

    folder: str | None = None
    """Folder with certificate.pem (the signer's chain) and key.pem, on every machine with an ingress replica; `careedit
    provenance init` writes one to try. Default: the two variables below."""
    certificate_env: str | None = None
    """Name of the environment variable with the certificate chain as PEM text. Default: `folder` has it."""
    key_env: str | None = None
    """Name of the environment variable with the private key as PEM text. Default: `folder` has it."""
    keep_source: bool = False
    """Whether a result keeps the Content Credentials of its source, so that edits of edits form a chain; default false,
    because a source's credentials can name people and places."""

    @model_validator(mode="after")
    def _check_place(self) -> CredentialsConfig:
        variables = (self.certificate_env, self.key_env)
        if (self.folder is None) == (None in variables) or (self.folder is not None and variables != (None, None)):
            raise InputError("credentials needs either folder, or both certificate_env and key_env; correct it.")
        return self


class WatermarkConfig(Record):
    """The invisible watermark of every result that is large enough, and the secret key of its payloads."""

    key_env: str | None = None
    """Name of the environment variable with the key, at least 16 bytes. Default: `key_file` has it."""
    key_file: str | None = None
    """File with the key, on every machine with an ingress replica. Default: the variable has it."""
    method: str = DEFAULT_METHOD
    """Name of the method; default "spread". A package may add others, as entry points of `careedit.watermarks`."""

    @model_validator(mode="after")
    def _check_place(self) -> WatermarkConfig:
        if (self.key_env is None) == (self.key_file is None):
            raise InputError("watermark needs either key_env or key_file; correct it.")
        return self


def open_marking(config: WatermarkConfig | None) -> Marking | None:
    """What marks results; None: they have no watermark. Raises `InputError` for a missing key or an unknown method."""
    if config is None:
        return None
    method_of(config.method)
    if config.key_file is not None:
        return Marking(key_from_file(config.key_file), config.method)
    assert config.key_env is not None
    return Marking(key_from_environment(config.key_env), config.method)


def open_signing(config: CredentialsConfig | None) -> Signing | None:
    """The signer of results; None: they are not signed. Raises `InputError` for a certificate or key that cannot sign."""
    if config is None:
        return None
    try:
        from careedit.provenance.certificates import from_environment, from_folder
        from careedit.provenance.signing import Signing
    except ModuleNotFoundError as error:
        raise InputError(
            f"credentials needs the package {error.name}; pip install 'careedit[provenance]', or leave credentials out."
        ) from None
    if config.folder is not None:
        return Signing(from_folder(config.folder))
    assert config.certificate_env is not None and config.key_env is not None
    return Signing(from_environment(config.certificate_env, config.key_env))


def expiry_warning(signing: Signing | None) -> str | None:
    """A sentence if the certificate expires within `WARN_DAYS`, else None."""
    if signing is None:
        return None
    from careedit.provenance.certificates import WARN_DAYS

    identity = signing.identity
    if identity.days_left() >= WARN_DAYS:
        return None
    return (
        f"The certificate {identity.name!r}, which signs results, expires on {identity.ends:%Y-%m-%d}; from then on no "
        "edit is answered, so renew it before."
    )
