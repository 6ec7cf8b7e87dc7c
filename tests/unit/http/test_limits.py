import io
import struct
import zlib

import pytest
from PIL import Image

from fake_backend import picture_file

SOURCE = picture_file()


def send(client, image=SOURCE, **fields):
    return client.post("/v1/images/edits", files={"image": ("a.png", image)}, data={"prompt": "remove it", **fields})


def bomb(width, height):
    """A PNG that claims to be large and holds nothing: whoever decodes it finds it damaged."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def test_pixels_are_counted_on_the_header_before_anything_is_decoded(client, painter):
    error = send(client, bomb(1000, 1000)).json()["error"]
    assert "1,000,000 pixels" in error["message"]
    assert (error["param"], error["code"]) == ("image", "invalid_image")
    assert painter.calls == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n": "5"}, "at most 4 images"),
        ({"steps": "51"}, "limit is 50"),
        ({"steps": "50", "n": "3"}, "about 150 evaluations"),
        (
            {"steps": "50", "expert[erase]": "0.3", "expert[style]": "0.3", "expert[base]": "0.4"},
            "about 150 evaluations",
        ),
    ],
)
def test_an_edit_that_costs_too_much_is_refused_with_the_estimate_before_its_picture_is_looked_at(
    client, fields, words
):
    error = send(client, b"no picture at all", **fields).json()["error"]
    assert error["code"] == "too_expensive"
    assert words in error["message"]


def test_a_body_that_says_that_it_is_too_large_is_refused_at_once(client, served):
    before = served.recording.total("careedit_refusals", reason="size")
    noise = Image.effect_noise((900, 900), 100)
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    response = send(client, buffer.getvalue())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert served.recording.total("careedit_refusals", reason="size") == before + 1


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_body_that_does_not_say_how_large_it_is_is_cut_off(client, kind):
    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 10_000

    response = client.post("/v1/images/edits", content=body(), headers={"content-type": kind})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_a_result_may_not_be_larger_than_a_picture(client):
    assert send(client, size="4800x3200").json()["error"]["param"] == "size"
