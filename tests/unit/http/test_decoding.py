"""Foreign pictures in a server: processes that end with their request, memory in shares, sums of pixels."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import psutil
import pytest
from PIL import Image

import decoders
from careedit.errors import ImageError, InputError
from careedit.images import DEFAULT_LIMITS, decode_image, decode_mask, decoding_notes, inspect_picture
from careedit_deployments.edits import codecs, processes
from careedit_deployments.edits.codecs import Codecs, PictureFile, Reading
from careedit_deployments.edits.processes import SharedAmount
from careedit_deployments.edits.stored import kept_file
from careedit_deployments.errors import OverloadedError
from careedit_deployments.listening import Limits
from fake_backend import FakeBackend
from memory import growth
from served import Served, serve


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def see_through(size: tuple[int, int] = (48, 32)) -> Image.Image:
    image = Image.new("RGBA", size, (200, 40, 90, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 8))
    return image


def file_of(data: bytes, reading: Reading = "image") -> PictureFile:
    return PictureFile(data, "image", reading, *inspect_picture(data), DEFAULT_LIMITS)


LARGE = file_of(encoded(Image.new("RGB", (1100, 1000), (9, 8, 7))))


others: set[psutil.Process] = set()
"""The child processes that existed before the test: decoders of other tests' servers, which end with their event loops."""


@pytest.fixture(autouse=True)
def _others() -> None:
    others.clear()
    others.update(psutil.Process().children())


def decoder_processes() -> list[psutil.Process]:
    children = [one for one in psutil.Process().children() if one not in others]
    return [one for one in children if "anyio.to_process" in " ".join(one.cmdline())]


def kept(picture: Image.Image) -> bytes:
    """The PNG that is stored of a picture whose file cannot be."""
    return kept_file(picture, None)[0]


def test_a_process_decodes_what_a_thread_does_and_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, stored = encoded(see_through()), kept(decode_image(see_through()))
    avif = encoded(see_through(), "AVIF")

    async def work() -> None:
        made = Codecs(2**30)
        monkeypatch.setattr(codecs, "SMALL_PIXELS", 10)
        await made.warm()
        (process,) = decoder_processes()
        for data, reading, expected in (
            (LARGE.data, "image", decode_image(LARGE.data)),
            (avif, "image", decode_image(avif)),
            (mask, "mask", decode_mask(mask)),
            (stored, "kept", decode_image(see_through())),
        ):
            seen = await made.decode("a", file_of(data, reading))
            assert (seen, seen.info) == (expected, expected.info)
        with pytest.raises(ImageError, match="is damaged or cut off"):
            await made.decode(
                "a", PictureFile(mask[:-40] + mask[-12:], "image", "image", "PNG", (48, 32), DEFAULT_LIMITS)
            )
        assert decoder_processes() == [process]

    asyncio.run(work())
    assert decoder_processes() == []


def test_a_system_without_files_in_memory_uses_one_on_disk_and_removes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def work() -> None:
        made = Codecs(2**30)
        monkeypatch.delattr("os.memfd_create")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert await made.decode("a", LARGE) == decode_image(LARGE.data)
        monkeypatch.setattr(codecs, "decode_exchange", decoders.crash)
        with pytest.raises(ImageError):
            await made.decode("a", LARGE)

    asyncio.run(work())
    assert list(tmp_path.iterdir()) == []


def test_only_small_files_of_plain_formats_are_decoded_in_a_thread() -> None:
    assert file_of(encoded(Image.new("RGB", (1024, 1024)))).is_small
    assert not LARGE.is_small
    assert not file_of(encoded(Image.new("RGB", (8, 8)), "AVIF")).is_small


def test_a_request_that_is_cancelled_ends_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        made = Codecs(2**30)
        await made.warm()
        (process,) = decoder_processes()
        monkeypatch.setattr(codecs, "decode_exchange", decoders.hang)
        decoding = asyncio.create_task(made.decode("a", LARGE))
        while not made._processes._slots.borrowed_tokens:
            await asyncio.sleep(0.005)
        decoding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await decoding
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # the signal is on its way
            await asyncio.sleep(0.005)
        monkeypatch.undo()
        assert (await made.decode("a", LARGE)).size == (1100, 1000)

    asyncio.run(work())


@pytest.mark.parametrize("fault", [decoders.crash, decoders.spin])
def test_a_decoder_that_crashes_or_never_ends_costs_its_own_request_only(
    fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        made = Codecs(2**30)
        monkeypatch.setattr(codecs, "decode_exchange", fault)
        with pytest.raises(ImageError, match=r"its decoder crashed, or needed too much time or memory; save it again"):
            await made.decode("a", LARGE)
        monkeypatch.undo()
        assert (await made.decode("b", LARGE)).size == (1100, 1000)

    asyncio.run(work())


def test_a_caller_gets_half_and_waits_while_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE_S", 0.05)

    async def work() -> None:
        pool = SharedAmount(4, 2, "is full")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(pool.hold("a", 2))
            with pytest.raises(OverloadedError, match=r"The server is full; try again in a few seconds\.") as caught:
                await stack.enter_async_context(pool.hold("a", 1))
            assert caught.value.retry_after == 5
            await stack.enter_async_context(pool.hold("b", 2))
            with pytest.raises(OverloadedError):
                await stack.enter_async_context(pool.hold("c", 1))
            assert pool.held == 4
        assert pool.held == 0
        async with pool.hold("c", 2):
            waiting = asyncio.create_task(pool.hold("c", 1).__aenter__())
            await asyncio.sleep(0)
        await waiting

    asyncio.run(work())


def test_limits_that_no_request_could_meet_are_refused() -> None:
    assert Limits().max_request_pixels == 3 * 4096 * 4096
    assert Limits(request_pixels=9).max_request_pixels == 9
    with pytest.raises(InputError, match=r"limits.picture_memory is 1,000 bytes.*give at least 2,400"):
        Limits(pixels=100, picture_memory=1000)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("large"), FakeBackend(), limits={"deadline_s": 60}) as server:
        yield server


def post(server: Served, path: str, **body: object) -> httpx2.Response:
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        return client.post(path, **body)


def pairs_of(count: int, picture: bytes) -> dict[str, object]:
    ref = {"image_url": "data:image/png;base64," + base64.b64encode(picture).decode()}
    return {"pairs": [{"source": ref, "edited": ref, "reference": ref, "instruction": "x"}] * count}


def edit(server: Served, picture: bytes, path: str = "/v1/images/edits", **more: tuple[str, bytes]) -> httpx2.Response:
    return post(server, path, files={"image": ("a.png", picture), **more}, data={"prompt": "remove it"})


def wait_until_free(server: Served) -> None:
    """Returns once no request holds memory for pictures; fails after ten seconds."""
    pool = server.services.codecs.memory

    async def wait() -> None:
        async with asyncio.timeout(10), pool._changed:
            await pool._changed.wait_for(lambda: pool.held == 0)

    server.run(wait)


def test_scores_of_more_pixels_than_a_request_may_have_are_refused_by_their_headers(large: Served) -> None:
    picture = encoded(Image.new("RGB", (4096, 4096)))
    started = time.process_time()
    refused = post(large, "/v1/scores", json=pairs_of(16, picture))
    assert time.process_time() - started < 2
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "too_expensive"
    assert (
        "48 images of the request have 805,306,368 pixels together; the limit is 50,331,648"
        in refused.json()["error"]["message"]
    )


def test_the_largest_scores_that_are_taken_add_less_than_500_mib(large: Served) -> None:
    body = pairs_of(4, encoded(Image.new("RGB", (2048, 2048))))
    with growth() as grown:
        assert [one["overall"] for one in post(large, "/v1/scores", json=body).json()["scores"]] == [0.0] * 4
    assert 12 * 2**20 < grown() < 500 * 2**20  # one decoded picture has the first of them
    wait_until_free(large)


def test_memory_is_free_again_after_an_answer_an_error_and_a_stream(large: Served) -> None:
    picture = encoded(Image.new("RGB", (64, 32), (1, 2, 3)))
    assert edit(large, picture).status_code == 200
    assert edit(large, picture, mask=("m.png", encoded(see_through((9, 9))))).status_code == 400
    streamed = post(
        large, "/v1/images/edits", files={"image": ("a.png", picture)}, data={"prompt": "x", "stream": "true"}
    )
    assert "image_edit.completed" in streamed.text
    wait_until_free(large)


def test_what_a_session_s_or_a_job_s_source_lost_is_known_when_it_is_edited(tmp_path: Path) -> None:
    source, painter = encoded(see_through()), FakeBackend()
    said = ["image: transparent pixels were composited over white"]
    with serve(tmp_path, painter) as server:
        session = post(server, "/v1/sessions", files={"image": ("a.png", source)}).json()
        assert session["degradations"] == said
        for _ in range(2):
            turn = {"prompt": "remove it", "images": []}
            assert post(server, f"/v1/sessions/{session['id']}/turns", json=turn).status_code == 200
        job = edit(server, source, "/v1/jobs").json()
        with httpx2.Client(base_url=server.url, timeout=20) as client:
            assert "job.completed" in client.get(f"/v1/jobs/{job['id']}/events").text
    notes = [list(decoding_notes([call.request.image])) for call in painter.calls]
    assert notes == [said, [], said]


def test_a_client_that_leaves_ends_decoding(large: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "decode_exchange", decoders.hang)
    with (
        httpx2.Client(base_url=large.url, timeout=httpx2.Timeout(20, read=1)) as client,
        pytest.raises(httpx2.ReadTimeout),
    ):
        client.post("/v1/images/edits", files={"image": ("a.png", LARGE.data)}, data={"prompt": "x"})
    wait_until_free(large)
    assert decoder_processes() == []


def test_decoding_has_the_deadline_of_its_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "decode_exchange", decoders.hang)
    with serve(tmp_path, FakeBackend(), limits={"deadline_s": 0.5}) as server:
        late = edit(server, LARGE.data)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_a_crashed_decoder_is_a_400_with_a_sentence(large: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "decode_exchange", decoders.crash)
    error = edit(large, LARGE.data).json()["error"]
    assert (error["param"], error["code"]) == ("image", "invalid_image")
    assert "its decoder crashed" in error["message"]


def test_a_mask_in_the_sensor_s_frame_is_refused_with_the_turn(large: Served) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = encoded(Image.new("RGB", (80, 40)), "JPEG", exif=exif.tobytes())
    error = edit(large, photo, mask=("m.png", encoded(see_through((80, 40))))).json()["error"]
    assert (error["param"], error["code"]) == ("mask", "invalid_mask")
    assert "EXIF" in error["message"] and "40x80" in error["message"]


def test_a_large_picture_is_edited(large: Served) -> None:
    answer = edit(large, LARGE.data)
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "1100x1000"
