"""HTTP through Serve's proxy and the ingress deployment: an edit, readiness, and a queue that is full."""

from __future__ import annotations

import base64
import io

import httpx2
import psutil
import pytest
from PIL import Image

from careedit.images import decode_image
from crowd import is_edit


@pytest.fixture
def client(served, serve_cluster):
    with httpx2.Client(base_url=serve_cluster.url, timeout=120) as made:
        yield made


def test_an_edit_over_http_is_the_edit_in_this_process(client, call, open_editor):
    wanted = call(seed=4)
    png = io.BytesIO()
    wanted.request.image.save(png, "PNG")
    answer = client.post(
        "/v1/images/edits",
        files={"image": ("image.png", png.getvalue(), "image/png")},
        data={"prompt": wanted.request.instruction, "seed": "4", "steps": "4", "expert": "erase"},
    )
    assert answer.status_code == 200, answer.text
    picture = decode_image(base64.b64decode(answer.json()["data"][0]["b64_json"]))
    direct = open_editor("merged").edit(wanted.request).image
    assert picture.size == direct.size and isinstance(picture, Image.Image)
    assert is_edit(picture, direct)


def test_the_server_is_ready_and_names_its_experts(client):
    assert client.get("/readyz").json()["status"] == "ok"
    assert "erase" in client.get("/v1/experts").text


def test_a_replica_decodes_in_a_process_of_its_own_and_the_trace_says_what_was_lost(client):
    picture = Image.new("RGBA", (96, 64), (200, 40, 90, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 8, 8))
    file = io.BytesIO()
    picture.save(file, "AVIF")
    answer = client.post(
        "/v1/images/edits",
        files={"image": ("image.jpg", file.getvalue())},
        data={"prompt": "remove the red circle", "steps": "1", "expert": "erase"},
    )
    assert answer.status_code == 200, answer.text
    (trace,) = answer.json()["careedit"]["traces"]
    assert trace["degradations"] == ["image: transparent pixels were laid over white"]
    decoders = [one for one in psutil.process_iter(["cmdline"]) if "anyio.to_process" in (one.info["cmdline"] or ())]
    assert decoders and all(one.memory_info().rss < 400 * 2**20 for one in decoders)
