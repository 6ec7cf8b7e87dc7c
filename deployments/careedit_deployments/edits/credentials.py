"""Content Credentials of a server: its signer from the configuration, and what an operator is warned about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from careedit.errors import InputError
from careedit_deployments.config import CredentialsConfig

if TYPE_CHECKING:
    from careedit.provenance.signing import Signing


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
