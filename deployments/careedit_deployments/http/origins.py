"""Protection of a server without API keys against web pages that a user of the same machine visits.

Such a server trusts every caller that can reach it, and a browser can: any page may post a form to 127.0.0.1 (cross-site request
forgery), and a page whose name resolves to 127.0.0.1 reads the answers too (DNS rebinding). A key stops both, because no
browser sends it by itself.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from careedit.net import host_of
from careedit_deployments.errors import ForeignPageError
from careedit_deployments.listening import HttpConfig

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine that no other machine can take."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing; a browser shows their answers to no foreign page (`http.cors`)."""


class Origins:
    """Refuses requests under a name that is not this server's, and those that pages of other servers send."""

    def __init__(self, http: HttpConfig) -> None:
        names = {http.host, host_of(http.public_url)} - {""}
        self._names = LOOPBACK | names if http.is_loopback else None  # another address may have any name
        self._cors = http.cors

    def check(self, method: str, headers: Headers) -> None:
        """Raises `ForeignPageError`. Programs send no `Origin`, so they only need the right `Host`."""
        host = headers.get("host", "")
        name = host_of(f"//{host}")
        if self._names is not None and name not in self._names:
            raise ForeignPageError(
                f"This server needs no key, so it answers only under {', '.join(sorted(self._names))} and not under "
                f"{name[:80]!r}; behind a proxy, set http.public_url to its address, or require keys (auth.required)."
            )
        if method in SAFE:
            return
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") == "cross-site" if origin is None else urlsplit(origin).netloc != host
        if foreign and not ("*" in self._cors or origin in self._cors):
            raise ForeignPageError(
                f"The page at {(origin or 'another site')[:80]!r} may not change anything on this server; list its origin in "
                "http.cors, or require keys (auth.required)."
            )
