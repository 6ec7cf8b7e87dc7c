"""A check that is a service: one POST with the words and the pictures as JSON, one verdict as JSON.

    {"stage": "input", "level": "auto", "instruction": "...", "edit": "edit_...", "tenant": "...",
     "pictures": [{"role": "source", "png_base64": "...", "file_sha256": "..."}]}

    {"verdict": "refuse", "reason": "A sentence for the client."}

The connection goes to public hosts, or to those that the check lists (`careedit.net`). Redirects are not followed.
"""

from __future__ import annotations

import base64
import json
import os

import httpcore2
from anyio.to_thread import run_sync

import careedit
from careedit.errors import CareEditError, InputError
from careedit.files import png_bytes
from careedit.net import Destinations, GuardedBackend
from careedit_deployments.checks import PolicyCheck
from careedit_deployments.policy.contract import PolicyInput, Verdict

MAX_ANSWER = 64 * 2**10
"""Maximum size of an answer, in bytes."""


class PolicyService:
    """Asks a service. Raises `CareEditError` if it does not answer with a verdict."""

    def __init__(self, config: PolicyCheck) -> None:
        """Raises `InputError` for an address that may not be called, or a key that is missing."""
        allowed = Destinations(
            frozenset(host.lower() for host in config.hosts),
            f"The policy check {config.name!r}",
            "https://policy.example.org/check",
            "allow it in `hosts` of the check",
        )
        allowed.check(config.use)
        self._url = config.use
        self._headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"careedit/{careedit.__version__}",
        }
        if config.api_key_env is not None:
            key = os.environ.get(config.api_key_env, "")
            if not key or not key.isascii() or not key.isprintable():
                raise InputError(
                    f"The environment variable {config.api_key_env} has no key for the policy check {config.name!r}; set it."
                )
            self._headers["authorization"] = f"Bearer {key}"
        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=config.concurrency, network_backend=GuardedBackend(allowed)
        )

    async def __call__(self, about: PolicyInput) -> Verdict:
        """The service's verdict."""
        body = await run_sync(_body, about)
        data = bytearray()
        try:
            async with self._pool.stream(
                "POST", self._url, headers=list(self._headers.items()), content=body
            ) as answer:
                if answer.status != 200:
                    raise CareEditError(f"the service answered {answer.status}")
                async for part in answer.aiter_stream():
                    data += part
                    if len(data) > MAX_ANSWER:
                        raise CareEditError("the service's answer is longer than 64 KiB")
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
            raise CareEditError(f"the service cannot be reached, {type(error).__name__}") from None
        try:
            return Verdict(**json.loads(bytes(data)))
        except (ValueError, TypeError, RecursionError, CareEditError):
            raise CareEditError("the service's answer is not a verdict") from None

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


def _body(about: PolicyInput) -> bytes:
    pictures = [
        {
            "role": one.role,
            "png_base64": base64.b64encode(png_bytes(one.picture, compress_level=1)).decode("ascii"),
            "file_sha256": one.file_sha256,
        }
        for one in about.pictures
    ]
    return json.dumps({**about.model_dump(exclude={"pictures"}), "pictures": pictures}).encode()
