"""What a tenant stores: the files that it sent, without their metadata, and no more than its quota."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from careedit.images import decode_image
from careedit_deployments.edits.backend import EditCall
from fake_backend import FakeBackend
from pictures import encoded
from served import Served, a_key, serve
from stores import pictures_in

PLACE = "52.5163N 13.3777E"


def photo(size: tuple[int, int] = (256, 192)) -> bytes:
    """A JPEG of noise with a place in it, much smaller than a PNG of the same pixels."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, PLACE
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), "JPEG", quality=5, exif=exif)


class Tenant:
    """A tenant with one key, on a server of its own."""

    def __init__(self, server: Served, client: httpx2.Client, folder: Path, tenant: str) -> None:
        self.server, self.client, self.folder, self.tenant = server, client, folder, tenant

    def send(self, path: str, data: bytes, **fields: str) -> httpx2.Response:
        fields = fields if path == "/v1/sessions" else {"prompt": "invert it", **fields}
        return self.client.post(path, files={"image": ("a.jpg", data)}, data=fields)

    def limit(self, **limits: int | None) -> None:
        self.server.run(lambda: self.server.services.store.tenants.change(self.tenant, **limits))

    def used(self) -> int:
        return self.server.run(lambda: self.server.services.store.storage.used(self.tenant))

    def follow(self, job: str) -> str:
        return self.client.get(f"/v1/jobs/{job}/events").text


@pytest.fixture
def painter() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def team(painter: FakeBackend, tmp_path: Path) -> Iterator[Tenant]:
    key, access = a_key("team")
    with (
        serve(tmp_path, painter, keys=(access,), auth={"required": True}) as server,
        httpx2.Client(base_url=server.url, timeout=30, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        yield Tenant(server, client, tmp_path / "blobs", access[0].id)


def test_a_source_is_kept_as_it_came_without_its_place_and_edited_to_the_bit(
    team: Tenant, painter: FakeBackend
) -> None:
    data = photo()
    session = team.send("/v1/sessions", data).json()["id"]
    job = team.send("/v1/jobs", data).json()["id"]
    kept = [path.read_bytes() for path in team.folder.rglob("*.sent")]
    assert len(kept) == 2
    assert all(len(one) <= len(data) and PLACE.encode() not in one for one in kept)
    assert not list(team.folder.rglob("sessions/*/*.png")), "no PNG of it"
    assert team.client.post(f"/v1/sessions/{session}/turns", json={"prompt": "invert it"}).status_code == 200
    assert "job.completed" in team.follow(job)
    assert team.send("/v1/images/edits", data).status_code == 200
    sources = [call.request.image for call in painter.calls]
    assert len(sources) == 3
    assert all(source == decode_image(data) for source in sources), "all of them turned upright"


def test_a_file_whose_metadata_cannot_be_removed_is_kept_as_a_png(team: Tenant, painter: FakeBackend) -> None:
    data = encoded(Image.open(io.BytesIO(photo())), "AVIF")
    session = team.send("/v1/sessions", data).json()["id"]
    assert [Path(name).suffix for name in pictures_in(team.folder)] == [".png"]
    assert team.client.post(f"/v1/sessions/{session}/turns", json={"prompt": "invert it"}).status_code == 200
    assert painter.calls[0].request.image == decode_image(data)


def test_a_tenant_stores_no_more_than_its_quota_and_a_deletion_makes_room(team: Tenant) -> None:
    data = photo()
    session = team.send("/v1/sessions", data).json()["id"]
    (before,) = pictures_in(team.folder)
    assert team.used() <= len(data)
    team.limit(stored_bytes=team.used())
    calls = len(team.server.services.backend.calls)
    for refused in (
        team.send("/v1/sessions", data),
        team.send("/v1/jobs", data),
        team.client.post(f"/v1/sessions/{session}/turns", json={"prompt": "x"}),
    ):
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["code"]) == (
            429,
            "insufficient_quota",
            "storage_quota_exceeded",
        )
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        assert "delete jobs and sessions that you no longer need" in error["message"]
    assert len(team.server.services.backend.calls) == calls, "nothing was edited in vain"
    assert team.send("/v1/images/edits", data, response_format="url").status_code == 429
    assert pictures_in(team.folder) == [before]
    assert team.used() <= len(data)
    assert team.client.get("/v1/jobs").json()["data"] == []
    assert team.client.delete(f"/v1/sessions/{session}").status_code == 200
    assert (team.used(), pictures_in(team.folder)) == (0, [])
    assert team.send("/v1/sessions", data).status_code == 201


def test_a_job_reserves_room_for_its_results_until_it_ends(team: Tenant, painter: FakeBackend) -> None:
    data, pixels = photo(), 256 * 192
    team.limit(stored_bytes=len(data) + 3 * pixels)
    assert team.send("/v1/jobs", data).status_code == 429, "its result might not find room"
    team.limit(stored_bytes=2 * len(data) + 2 * (3 * pixels + 2**16))
    painter.gate.clear()
    jobs = [team.send("/v1/jobs", data, output_format="jpeg").json()["id"] for _ in range(2)]
    assert team.send("/v1/jobs", data).status_code == 429
    team.server.loop.call_soon_threadsafe(painter.gate.set)
    assert all("job.completed" in team.follow(job) for job in jobs)
    stored = sum(path.stat().st_size for path in team.folder.rglob("*.*") if path.is_file())
    assert team.used() == stored
    for job in jobs:
        assert team.client.delete(f"/v1/jobs/{job}").status_code == 200
    assert team.used() == 0


def test_sessions_are_limited_by_number(team: Tenant) -> None:
    team.limit(sessions=1)
    first = team.send("/v1/sessions", photo()).json()["id"]
    refused = team.send("/v1/sessions", photo())
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "storage_quota_exceeded")
    assert len(pictures_in(team.folder)) == 1
    assert team.client.delete(f"/v1/sessions/{first}").status_code == 200
    assert team.send("/v1/sessions", photo()).status_code == 201


class Weighing(FakeBackend):
    """Notes the bytes of the decoded pictures of all edits that are in progress."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.peak, self.most = 0, 0, 0
        self.pause = 0.01
        self.at_once = 0

    async def edit(self, call: EditCall):
        weight = 4 * call.request.image.width * call.request.image.height
        self.held, self.at_once = self.held + weight, self.at_once + 1
        self.peak, self.most = max(self.peak, self.held), max(self.most, self.at_once)
        try:
            async for event in super().edit(call):
                yield event
        finally:
            self.held, self.at_once = self.held - weight, self.at_once - 1


def test_the_decoded_pictures_of_all_requests_and_jobs_stay_within_the_memory(tmp_path: Path) -> None:
    painter, accesses = Weighing(), [a_key(f"tenant {i}") for i in range(3)]
    data = encoded(Image.new("RGB", (200, 150)))  # 120,000 bytes decoded
    limits = {"pixels": 40_000, "request_pixels": 37_500, "picture_memory": 300_000}
    keys = tuple(access for _, access in accesses)
    statuses: list[int] = []
    with serve(tmp_path, painter, keys=keys, auth={"required": True}, limits=limits) as server:

        def ask(key: str, path: str) -> None:
            with httpx2.Client(base_url=server.url, timeout=60, headers={"Authorization": f"Bearer {key}"}) as client:
                answer = client.post(path, files={"image": ("a.png", data)}, data={"prompt": "invert it"})
                statuses.append(answer.status_code)
                if path == "/v1/jobs":
                    assert "job.completed" in client.get(f"/v1/jobs/{answer.json()['id']}/events").text

        asked = [(key, path) for key, _ in accesses for path in ("/v1/images/edits", "/v1/jobs") for _ in range(4)]
        threads = [threading.Thread(target=ask, args=one) for one in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200] * 12 + [202] * 12
    assert len(painter.calls) == 24
    assert painter.most >= 2, "several at once"
    assert painter.peak <= limits["picture_memory"]
