"""Encoding of results: a part of an edit's cost and of its deadline, off the event loop, stopped when the client leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image

import decoders
from careedit.records import EditRequest, RoutingDecision
from careedit_deployments.edits import codecs
from careedit_deployments.edits.backend import EditCall, EditOrder
from careedit_deployments.edits.codecs import Codecs
from careedit_deployments.edits.output import Output, encode
from careedit_deployments.errors import DeadlineError, UnavailableError
from fake_backend import FakeBackend, picture_file
from served import Served, serve

PICTURE = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
FILES = {"image": ("a.png", picture_file((60, 50)))}
LARGE = "1200x1000"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("encoding"), FakeBackend(), limits={"pixels": 2_000_000}) as server:
        yield server


def post(server: Served, path: str = "/v1/images/edits", timeout: float = 60, **fields: str) -> httpx2.Response:
    with httpx2.Client(base_url=server.url, timeout=timeout) as client:
        return client.post(path, files=FILES, data={"prompt": "invert it", **fields})


@pytest.mark.parametrize("output", [None, *(Output(size=(200, 100), format=kind) for kind in ("png", "jpeg", "webp"))])
def test_a_process_encodes_the_same_bytes_as_a_thread(output: Output | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def both() -> list[bytes]:
        made = Codecs()
        small = await made.encode("me", PICTURE, output, ends=time.monotonic() + 60)
        monkeypatch.setattr(codecs, "SMALL_PIXELS", 10)
        return [small, await made.encode("me", PICTURE, output, ends=time.monotonic() + 60)]

    assert asyncio.run(both()) == [encode(PICTURE, output)] * 2


def test_a_process_that_crashes_or_is_late_costs_its_own_result_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        made, output = Codecs(), Output(size=(1200, 1000), format="jpeg")
        for fault, error in ((decoders.crash, UnavailableError), (decoders.hang, DeadlineError)):
            monkeypatch.setattr(codecs, "encode_exchange", fault)
            with pytest.raises(error, match=r"could not be encoded|within the deadline"):
                await made.encode(
                    "me", PICTURE, output, ends=time.monotonic() + (60 if fault is decoders.crash else 0.5)
                )
        monkeypatch.undo()
        assert await made.encode("me", PICTURE, output, ends=time.monotonic() + 60) == encode(PICTURE, output)

    asyncio.run(work())


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}, {"response_format": "url"}])
def test_encoding_has_the_deadline_of_its_edit(
    fields: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecs, "encode_exchange", decoders.hang)
    with serve(tmp_path, FakeBackend(), limits={"deadline_s": 1.0}) as server:
        late = post(server, size=LARGE, **fields)
        assert "deadline_exceeded" in late.text
        assert late.status_code == (200 if "stream" in fields else 504)
        assert post(server).status_code == 200


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
def test_a_client_that_leaves_ends_the_encoding(
    fields: dict[str, str], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecs, "encode_exchange", decoders.hang)
    with pytest.raises(httpx2.ReadTimeout):
        post(served, size=LARGE, timeout=1, **fields)
    shares = served.services.codecs._processes._shares

    async def until_free() -> None:
        async with asyncio.timeout(20), shares._changed:
            await shares._changed.wait_for(lambda: shares.held == 0)

    served.run(until_free)


def test_results_of_too_many_pixels_are_refused_before_the_edit(served: Served) -> None:
    calls = len(served.services.backend.calls)
    for fields in ({"size": LARGE, "n": "7"}, {"size": LARGE, "n": "3", "partial_images": "2", "stream": "true"}):
        error = post(served, **fields).json()["error"]
        assert (error["code"], error["param"]) == ("too_expensive", "size")
        assert "pixels together (n x size, with previews and candidates); the limit is 8,000,000" in error["message"]
        assert post(served, "/v1/jobs", **fields).json()["error"]["code"] == "too_expensive"
    assert len(served.services.backend.calls) == calls


@pytest.mark.parametrize(("size", "partials", "cost"), [(None, 0, 12), ((2048, 1024), 0, 18), ((2048, 1024), 3, 36)])
def test_the_cost_of_an_edit_contains_its_encoding(size: tuple[int, int] | None, partials: int, cost: int) -> None:
    request = EditRequest(image=PICTURE, instruction="x", seed=1, steps=4, n=3)
    order = EditOrder(request=request, result_size=size, partials=partials)
    routed = RoutingDecision(
        weights={"erase": 1.0}, probabilities={"erase": 1.0}, feasible=1.0, entropy=0.0, router="rules", reason="x"
    )
    assert EditCall(**dict(order) | {"id": "e", "arm": "a", "decision": routed, "deadline_s": 1.0}).cost == cost
