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


def test_the_content_policy_of_the_configuration_refuses_and_marks(client, draw_picture):
    png = io.BytesIO()
    draw_picture((96, 64)).save(png, "PNG")

    def answer(prompt):
        fields = {"prompt": prompt, "steps": "1", "expert": "erase"}
        return client.post("/v1/images/edits", files={"image": ("a.png", png.getvalue())}, data=fields)

    refused = answer("draw a WORD to refuse")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "policy_violation")
    (mark,) = answer("draw a word to mark").json()["careedit"]["policy"]
    assert (mark["check"], mark["stage"]) == ("words-mark", "input")


def test_the_server_is_ready_and_names_its_experts(client):
    assert client.get("/readyz").json()["status"] == "ok"
    told = client.get("/v1/experts")
    assert "erase" in told.text
    assert (told.headers["cache-control"], told.headers["x-content-type-options"]) == ("no-store", "nosniff")
    for given in ({}, {"x-request-id": "mine-7"}, {"x-request-id": "not an id"}):
        answer = client.get("/v1/experts", headers=given)
        assert len(answer.headers.get_list("x-request-id")) == 1
        assert (answer.headers["x-request-id"] == given.get("x-request-id")) == (given == {"x-request-id": "mine-7"})


def test_pictures_of_many_megapixels_and_long_heads_pass_or_are_refused(client):
    file = io.BytesIO()
    Image.effect_noise((2000, 1500), 80).convert("RGB").save(file, "PNG")  # 9 MB between deployments
    answer = client.post(
        "/v1/images/edits",
        files={"image": ("a.png", file.getvalue())},
        data={"prompt": "remove it", "steps": "1", "expert": "erase"},
    )
    assert answer.status_code == 200, answer.text
    assert decode_image(base64.b64decode(answer.json()["data"][0]["b64_json"])).size == (2000, 1500)
    assert client.get("/v1/experts", headers={"x-long": "a" * 70_000}).status_code == 431


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
    assert trace["degradations"] == ["image: transparent pixels were composited over white"]
    decoders = [one for one in psutil.process_iter(["cmdline"]) if "anyio.to_process" in (one.info["cmdline"] or ())]
    assert decoders and all(one.memory_info().rss < 400 * 2**20 for one in decoders)


def test_what_stock_clients_need_passes_serves_proxy(client, draw_picture):
    file = io.BytesIO()
    draw_picture((96, 64), seed=1).save(file, "PNG")
    fields = {"prompt": "remove it", "size": "128x128", "response_format": "url", "steps": "1", "expert": "erase"}
    answer = client.post("/v1/images/edits", files={"image": ("a.png", file.getvalue())}, data=fields)
    assert answer.status_code == 200, answer.text
    url = answer.json()["data"][0]["url"]
    picture = httpx2.get(url)
    assert (picture.status_code, Image.open(io.BytesIO(picture.content)).size) == (200, (128, 128))
    for head in (client.head("/healthz"), httpx2.head(url)):
        assert (head.status_code, head.content) == (200, b"")
    origin = "https://app.example.org"
    preflight = {"origin": origin, "access-control-request-method": "POST"}
    allowed = client.options("/v1/images/edits", headers=preflight).headers["access-control-allow-origin"]
    assert allowed == client.get("/v1/nothing", headers=preflight).headers["access-control-allow-origin"] == origin
    cut = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + file.getvalue()
    kind = {"content-type": "multipart/form-data; boundary=XX"}
    refused = client.post("/v1/images/edits", content=cut, headers=kind)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "incomplete_body")
    assert client.post("/v1/jobs", content=cut, headers={**kind, "content-encoding": "gzip"}).status_code == 415
