"""The names of end users as they are stored: a keyed hash, from which the name cannot be found without the key.

A pseudonym is the same on every replica and at any time, so that a user keeps an arm and can be exported and erased. It differs
between tenants. The key is not in the database, so a copy of the database alone names no user.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

from careedit.errors import InputError
from careedit_deployments.config import StateConfig
from careedit_deployments.state.blobs import BlobStore

PREFIX = "u1_"
"""Prefix of every pseudonym; its number is the version of the hash."""
KEY_FILE = "user_key"
"""File of the blob store with the key, if the configuration names no environment variable."""
KEY_BYTES = 32
MIN_BYTES = 16
"""Minimum length of a key, in bytes."""


class Pseudonyms:
    """Makes the stored names of end users. Raises `InputError` at once if the configured variable has no usable key."""

    def __init__(self, config: StateConfig, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._key = _key_from(config.user_key_env)

    async def load(self) -> bytes:
        """The key; it is read, or made by the first of all replicas, at the first call. Raises `UnavailableError`."""
        if self._key is None:
            key = await self._blobs.secret(KEY_FILE, secrets.token_bytes(KEY_BYTES))
            if len(key) < MIN_BYTES:
                raise InputError(
                    f"The file {KEY_FILE} in the store of pictures has {len(key)} bytes, so it is damaged; restore it from a backup."
                )
            self._key = key
        return self._key

    async def of(self, tenant: str, name: str) -> str:
        """The pseudonym of a user of a tenant."""
        digest = hmac.new(await self.load(), digestmod=hashlib.sha256)
        for part in (tenant, name):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return f"{PREFIX}{digest.hexdigest()[:40]}"

    async def stored(self, tenant: str, name: str | None, *, clear: bool = False) -> str | None:
        """What is stored of a client's name for a user: the pseudonym, or with `clear` the name itself."""
        return name if name is None or clear else await self.of(tenant, name)

    async def forms(self, tenant: str, name: str) -> tuple[str, ...]:
        """Every form in which a user may be stored: in clear, as older versions stored it, and as a pseudonym.

        `name` may also be a pseudonym, as an answer of the server shows it.
        """
        return (name, await self.of(tenant, name))


def _key_from(variable: str | None) -> bytes | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").encode("utf-8", "surrogateescape")
    if len(key) < MIN_BYTES:
        what = "is not set" if not key else f"has fewer than {MIN_BYTES} bytes"
        raise InputError(
            f"The variable {variable} with the key of user names {what}; set it, for example to the output of "
            "`openssl rand -base64 32`, or remove state.user_key_env."
        )
    return key
