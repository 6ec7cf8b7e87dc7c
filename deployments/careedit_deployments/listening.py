"""The parts of a configuration that say where a server listens, who may call it, and how much a request may ask for."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from careedit.errors import InputError
from careedit.record import Record
from careedit.records import MAX_IMAGES, MAX_STEPS


class HttpConfig(Record):
    """Address of the server, and its rules for browsers and clients."""

    host: str = "127.0.0.1"
    """Address to listen on; default 127.0.0.1. Any address that is not a loopback address requires API keys."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; default 8000. 0 chooses a free port."""
    root_path: str = ""
    """Prefix of every route, for a server behind a proxy; empty by default."""
    compatibility: Literal["openai", "strict"] = "openai"
    """What happens to a `size` whose proportions differ from the source. "openai" (default), which stock clients
    need: the result has that size, with the edit in the middle and its edge repeated around it. "strict": an error
    that names a size that fits."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call the server from a browser, for example "https://app.example.org"; "*" allows
    every page. Empty by default: no page may."""
    public_url: str | None = None
    """Address under which clients reach the server, used for addresses in answers. Default: the address of the
    request. Set it behind a proxy."""

    @model_validator(mode="after")
    def _check_addresses(self) -> HttpConfig:
        odd = [one for one in self.cors if one != "*" and not re.fullmatch(r"https?://[^/?#\s]+", one)]
        if odd:
            raise InputError(
                f"http.cors names {odd[0]!r}; an origin is scheme and host, as in https://app.example.org."
            )
        if self.public_url is not None and not re.fullmatch(r"https?://[^?#\s]+", self.public_url):
            raise InputError(
                f"http.public_url is {self.public_url!r}; give an address such as https://edits.example.org."
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


class AuthConfig(Record):
    """Whether callers need an API key."""

    required: bool | None = None
    """Whether an API key is required. Default: required unless the server only listens on a loopback address."""


class Limits(Record):
    """Limits of one request and of one tenant, checked before images are decoded and before anything waits."""

    body_bytes: PositiveInt = 50 * 2**20
    """Maximum size of a request body, in bytes; default 50 MiB."""
    pixels: PositiveInt = 4096 * 4096
    """Maximum size of one image, in pixels; default 4096 x 4096."""
    request_pixels: PositiveInt | None = None
    """Maximum size of all images of a request together, in pixels. Default: three times `pixels`, enough for
    source, reference and mask of the largest size."""
    result_pixels: PositiveInt | None = None
    """Maximum size of all results of a request together, previews included, in pixels. Default: four times `pixels`.
    Encoding them takes CPU time of the ingress."""
    picture_memory: PositiveInt = 2 * 2**30
    """Maximum memory for decoded images in one ingress replica, in bytes at four per pixel; default 2 GiB. One
    tenant can use half of it. A request waits up to 30 seconds for memory and then gets status 429."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = MAX_STEPS
    """Maximum number of denoising steps of one image; default 200."""
    images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = MAX_IMAGES
    """Maximum number of images per request (`n`); default 16."""
    evaluations: PositiveInt = 2000
    """Maximum number of transformer evaluations of a request: images x (steps + previews) x experts, estimated before it
    is queued; default 2,000."""
    deadline_s: PositiveFloat = 300.0
    """Time in which an edit must end, in seconds; default 300. Then it gets status 504. Raise it for long edits."""
    requests_per_minute: PositiveInt | None = None
    """Maximum number of requests per tenant and minute. Default: no limit. A tenant can have its own limit."""
    concurrent_requests: PositiveInt | None = None
    """Maximum number of edits per tenant that run or wait at once. Default: no limit. A tenant can have its own."""
    requests_in_progress: PositiveInt = 128
    """Maximum number of requests of any kind that one tenant has in progress, including open streams and bodies that are
    still arriving; default 128. Each ingress replica counts for itself, and gives one tenant at most half of its
    `ingress.max_ongoing_requests`, less when others send requests too. Raise both for a tenant of many users."""
    event_streams: PositiveInt = 32
    """Maximum number of open streams of job events (`GET /v1/jobs/ID/events`) per tenant; default 32. They also
    count as requests in progress. Raise it for a client that follows many jobs at once."""
    event_stream_s: PositiveFloat = 600.0
    """Time after which a stream of job events ends, in seconds; default 600. The client reconnects with
    `Last-Event-ID`. Lower it if a proxy ends connections earlier."""
    body_s: PositiveFloat = 120.0
    """Time in which a request body must arrive completely, in seconds; default 120. A later body gets status 408.
    Raise it for slow uplinks."""
    body_grace_s: PositiveFloat = 20.0
    """Time during which the rate of a body is not checked, in seconds; default 20."""
    body_rate: PositiveInt = 16 * 2**10
    """Minimum average rate of a body after `body_grace_s`, in bytes per second; default 16 KiB. Slower: status 408."""

    @property
    def max_request_pixels(self) -> int:
        """Maximum number of pixels of all images of a request together."""
        return 3 * self.pixels if self.request_pixels is None else self.request_pixels

    @property
    def max_result_pixels(self) -> int:
        """Maximum number of pixels of all results of a request together."""
        return 4 * self.pixels if self.result_pixels is None else self.result_pixels

    @model_validator(mode="after")
    def _check_memory(self) -> Limits:
        if 8 * self.max_request_pixels > self.picture_memory:
            raise InputError(
                f"limits.picture_memory is {self.picture_memory:,} bytes, but a request may have {self.max_request_pixels:,} pixels of four "
                f"bytes and a tenant half of the memory; give at least {8 * self.max_request_pixels:,}, or fewer pixels."
            )
        return self
