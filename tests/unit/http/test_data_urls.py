"""Pictures in text: data URLs and base64, as clients write them."""

import base64
import time

import pytest

from careedit_deployments.http.pictures import bytes_of
from fake_backend import picture_file

SOURCE = picture_file()


def body_of(image_url):
    return {"prompt": "remove it", "images": [{"image_url": image_url}]}


def error_of(response):
    assert response.status_code == 400, response.text
    return response.json()["error"]


def wrapped(data):
    return base64.encodebytes(data).decode()


PLAIN = base64.b64encode(SOURCE).decode()


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64," + wrapped(SOURCE),
        "data:image/png;base64," + wrapped(SOURCE).replace("\n", "\r\n\t "),
        "data:image/png;base64," + PLAIN + "\n",
        " " * 99 + "data:image/png;base64," + PLAIN,
        "data:image/png;base64, " + PLAIN,
        "data:image/png;base64," + PLAIN.rstrip("="),
        "data:image/png;base64," + base64.urlsafe_b64encode(SOURCE).decode(),
        "DATA:IMAGE/PNG;BASE64," + PLAIN,
        "data:image/png;charset=utf-8;name=a.png;base64," + PLAIN,
        "data:image/png; base64," + PLAIN,
        "data:;base64," + PLAIN,
        "data:image/png;base64," + PLAIN.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in SOURCE),
        PLAIN,
        wrapped(SOURCE),
        base64.urlsafe_b64encode(SOURCE).decode().rstrip("="),
    ],
    ids=range(16),
)
def test_base64_is_read_as_browsers_read_it(client, painter, text):
    response = client.post("/v1/images/edits", json=body_of(text))
    assert response.status_code == 200, response.text
    assert painter.calls[0].request.image.getpixel((0, 0)) == (200, 40, 90)


def test_a_percent_encoded_picture_of_megabytes_costs_seconds_at_most():
    large = picture_file((1200, 900), compress_level=0)
    started = time.thread_time()  # of this thread alone: quadratic work takes minutes
    text = "data:image/png;base64," + base64.b64encode(large).decode().replace("A", "%2b").replace("/", "%2F")
    assert len(bytes_of(text)) == len(large)
    for head in ("data:image/png;base64,", "data:image/png,"):
        with pytest.raises(ValueError, match="too long for percent-encoding"):
            bytes_of(head + "%41" * 3_000_000)
    assert time.thread_time() - started < 5


@pytest.mark.parametrize(
    "text", ["!!", "data:image/png;base64", "data:image/png,abc", "QUJDR", "QUI=Q", "QUJD====", "é"]
)
def test_what_is_not_base64_is_refused(client, text):
    assert error_of(client.post("/v1/images/edits", json=body_of(text)))["param"] == "images[0].image_url"


@pytest.mark.parametrize(
    "address", ["s3://bucket/a.png", " HTTPS://example.org/a.png", "blob:null/4", "gs://b/a", "FTP:x"]
)
def test_an_address_is_not_taken_for_base64(client, address):
    assert "does not fetch images" in error_of(client.post("/v1/images/edits", json=body_of(address)))["message"]
