"""Bodies as they come over the wire: cut off, in other charsets, compressed, as gateways rewrite them."""

import base64
import gzip
import json
import socket
from urllib.parse import urlsplit

import pytest

from fake_backend import mask_file, picture_file

SOURCE, MASK = picture_file(), mask_file()
PLAIN = base64.b64encode(SOURCE).decode()
JSON = "application/json"
FORM = "multipart/form-data; boundary=XX"


def part(name, data, *headers, filename=None):
    """One part of a form, with its boundary in front."""
    file = "" if filename is None else f'; filename="{filename}"'
    lines = [f'Content-Disposition: form-data; name="{name}"{file}', *headers]
    data = data if isinstance(data, bytes) else data.encode()
    return b"--XX\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + data + b"\r\n"


IMAGE = part("image", SOURCE, filename="a.png")
PROMPT = part("prompt", "remove it")
END = b"--XX--\r\n"


def post(client, body, kind=FORM, path="/v1/images/edits", **headers):
    return client.post(path, content=body, headers={"content-type": kind, **headers})


def error_of(response, status=400):
    assert response.status_code == status, response.text
    return response.json()["error"]


def ended(client, response):
    """Wait for a job, so that its edit is not counted in another test."""
    assert response.status_code == 202, response.text
    with client.stream("GET", f"/v1/jobs/{response.json()['id']}/events") as events:
        assert b"job.completed" in events.read()


def body_of(image_url, **fields):
    return {"prompt": "remove it", "images": [{"image_url": image_url}], **fields}


CUT = part("mask", MASK, filename="m.png")


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(CUT.rstrip(b"\r\n"), id="before its boundary"),
        pytest.param(CUT, id="after its line"),
        pytest.param(CUT[:60], id="within its headers"),
        pytest.param(CUT[:-20], id="within the mask"),
        pytest.param(CUT + b"--X", id="within the boundary"),
        pytest.param(CUT + b"--XX", id="after the boundary"),
        pytest.param(CUT + b"--XX\r\n", id="before another part"),
        pytest.param(CUT + b"--XX-", id="within the closing boundary"),
        pytest.param(b"--XX\r\n", id="before the mask"),
        pytest.param(b"", id="without the mask"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/routes", "/v1/jobs", "/v1/sessions"])
def test_a_form_that_ends_before_its_closing_boundary_is_refused(client, painter, path, last):
    error = error_of(post(client, PROMPT + IMAGE + last, path=path))
    assert error["code"] == "incomplete_body"
    assert "incomplete" in error["message"]
    assert painter.calls == []


def test_a_turn_whose_form_is_cut_off_is_refused(client, painter):
    session = client.post("/v1/sessions", files={"image": ("a.png", SOURCE)}).json()["id"]
    error = error_of(post(client, PROMPT + CUT, path=f"/v1/sessions/{session}/turns"))
    assert error["code"] == "incomplete_body"
    assert painter.calls == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FORM),
        (b"only a preamble", FORM),
        (b"\r\n\r\n", FORM),
        (PROMPT + IMAGE + END, "multipart/form-data; boundary=YY"),
        (PROMPT + IMAGE + END, "multipart/form-data"),
        (PROMPT + IMAGE + END + CUT + END, FORM),  # its mask comes after the end
        (PROMPT + IMAGE + END + b"more", FORM),
    ],
    ids=["empty", "preamble", "lines", "another boundary", "no boundary", "more parts", "more"],
)
def test_a_form_that_is_not_divided_by_its_boundary_is_refused(client, painter, body, kind):
    assert error_of(post(client, body, kind))["code"] in ("incomplete_body", "invalid_form")
    assert painter.calls == []


@pytest.mark.parametrize("end", [b"--XX--", b"--XX--\r\n", b"--XX--\r\n\r\n"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_form_with_its_closing_boundary_is_taken_however_it_is_sent(client, size, end):
    body = PROMPT + IMAGE + CUT + end
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    assert post(client, chunks).status_code == 200


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/jobs", "/v1/sessions", "/v1/scores", "/v1/feedback"])
def test_json_that_is_cut_off_is_refused(client, painter, path):
    whole = json.dumps(body_of("data:image/png;base64," + base64.b64encode(SOURCE).decode()))
    for end in (1, 40, len(whole) - 1):
        error_of(post(client, whole[:end].encode(), JSON, path))
    assert painter.calls == []


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/routes", "/v1/jobs", "/v1/sessions"])
@pytest.mark.parametrize("twice", ["prompt", "mask", "image_url"])
def test_json_with_a_field_twice_is_refused(client, painter, path, twice):
    picture = json.dumps({"image_url": PLAIN})
    texts = {
        "prompt": f'{{"prompt": "a", "images": [{picture}], "prompt": "b"}}',
        "mask": f'{{"prompt": "a", "mask": {picture}, "images": [{picture}], "mask": null}}',
        "image_url": f'{{"prompt": "a", "images": [{{"image_url": "{PLAIN}", "image_url": "{PLAIN}"}}]}}',
    }
    error = error_of(post(client, texts[twice].encode(), JSON, path))
    assert (error["param"], "twice" in error["message"]) == (twice, True)
    assert painter.calls == []


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/jobs", "/v1/sessions", "/v1/scores", "/v1/feedback"])
@pytest.mark.parametrize(
    "values",
    [b'{"a": [%s1]}' % (b"1," * 20_000), b"[" * 20_000, b'{"a":[%s{}]}' % (b"{}," * 20_000)],
    ids=["numbers", "lists", "objects"],
)
def test_json_of_very_many_values_is_refused_before_it_is_parsed(client, path, values):
    error = error_of(post(client, values, JSON, path), 413)
    assert "10,000 values; send images as base64" in error["message"]


def test_a_form_may_hold_any_bytes(client):
    noise = part("image", b"[{," * 20_000, filename="a.png")
    assert error_of(post(client, PROMPT + noise + END))["code"] == "invalid_image"


@pytest.mark.parametrize("name", ["foo-bar", "prompt[]", "image[0][image_url]", "a b", "x" * 99])
def test_a_field_of_any_name_that_is_not_known_is_named(client, name):
    error = error_of(post(client, PROMPT + IMAGE + part(name, "x") + END))
    assert (error["param"], error["code"]) == (name[:64], "unknown_parameter")
    assert f"The field {name[:64]!r} is unknown here" in error["message"]
    error = error_of(client.post("/v1/images/edits", json=body_of(PLAIN, mask={name: 1, "image_url": PLAIN})))
    assert error["param"] == f"mask.{name[:64]}"


@pytest.mark.parametrize("text", ['{"a":' * 5000, "{", '{"expert": 1e999999', "{'a': 1}"])
def test_a_field_that_is_almost_json_is_refused(client, text):
    assert error_of(post(client, PROMPT + IMAGE + part("expert", text) + END))["param"] == "expert"


@pytest.mark.parametrize(
    "body",
    [(PROMPT + IMAGE + END).replace(b"\r\n", b"\n"), PROMPT + part("image", SOURCE, "X-A: " + "a" * 9000) + END],
    ids=["line ends", "header"],
)
def test_a_form_that_its_parser_cannot_read_says_what_may_be_wrong(client, painter, body):
    message = error_of(post(client, body))["message"]
    assert "CR LF" in message and "header of a part is too long" in message
    assert painter.calls == []


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: %d\r\n\r\n%s" % (len(PROMPT + IMAGE + CUT) + 100, PROMPT + IMAGE + CUT),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(PROMPT + IMAGE + CUT), PROMPT + IMAGE + CUT),
        b"Transfer-Encoding: chunked\r\n\r\nFFFF\r\n%s" % (PROMPT + IMAGE + CUT),
    ],
    ids=["content-length", "between chunks", "within a chunk"],
)
def test_a_client_that_leaves_within_its_body_has_nothing_edited(client, served, painter, framing):
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        head = f"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n".encode()
        connection.sendall(head + framing)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    assert not answer.startswith(b"HTTP/1.1 200")
    assert client.get("/healthz").status_code == 200
    assert painter.calls == []


@pytest.mark.parametrize("name", ["mask", "mask[]", "mask[0]"])
def test_a_mask_comes_under_every_name_that_clients_give_it(client, painter, name):
    body = PROMPT + IMAGE + part(name, MASK, filename="m.png") + END
    assert post(client, body).status_code == 200
    assert painter.calls[0].request.mask.getextrema() == (0, 255)


@pytest.mark.parametrize("text", ["undefined", "a.png", "", "null", "[object File]"])
@pytest.mark.parametrize("file_first", [True, False])
def test_a_text_beside_the_file_of_its_name_is_left_unused_and_said(client, painter, text, file_first):
    for field, file in (("image", IMAGE), ("mask", CUT)):
        painter.calls.clear()
        both = (file, part(field, text)) if file_first else (part(field, text), file)
        rest = CUT if field == "image" else IMAGE
        response = post(client, PROMPT + rest + b"".join(both) + END)
        assert response.status_code == 200, response.text
        notes = response.json()["careedit"]["notes"]
        assert len(notes) == (text != "")
        assert all(field in note for note in notes)
        assert painter.calls[0].request.mask is not None


@pytest.mark.parametrize("field", ["image", "mask"])
def test_a_text_in_a_pictures_place_is_refused(client, painter, field):
    rest = IMAGE if field == "mask" else b""
    error = error_of(post(client, PROMPT + rest + part(field, "undefined") + END))
    assert error["param"] == field
    assert "as a file" in error["message"]
    assert painter.calls == []


def test_a_file_input_where_none_was_chosen_is_absent_and_an_empty_file_is_not(client, painter):
    unchosen = part("mask", b"", "Content-Type: application/octet-stream", filename="")
    assert post(client, PROMPT + IMAGE + unchosen + END).status_code == 200
    assert painter.calls[0].request.mask is None
    assert error_of(post(client, PROMPT + IMAGE + part("mask", b"", filename="m.png") + END))["param"] == "mask"


def test_a_picture_in_a_form_may_be_a_data_url_of_any_length_or_bytes_without_a_name(client, painter):
    large = picture_file((200, 150), compress_level=0)
    text = "data:image/png;base64," + base64.b64encode(large).decode()
    assert len(text) > 100_000
    assert post(client, PROMPT + part("image", text) + END).status_code == 200
    assert post(client, PROMPT + part("image", large, "Content-Type: image/png") + END).status_code == 200
    assert [call.request.image.size for call in painter.calls] == [(200, 150)] * 2
    both = IMAGE + part("image", text)
    assert error_of(post(client, PROMPT + both + END))["param"] == "image"
    broken = part("mask", "data:image/png;base64,!!!")
    assert error_of(post(client, PROMPT + IMAGE + broken + END))["param"] == "mask"


@pytest.mark.parametrize("name", ["prompt", "user", "image_url", "whatever"])
def test_a_text_field_that_is_too_long_is_named_with_its_limit(client, name):
    error = error_of(post(client, IMAGE + part(name, "x" * 70_000) + END))
    assert error["param"] == name
    assert "65,536 bytes" in error["message"]
    assert "files" in error["message"]
    assert ("2,000" in error["message"]) == (name == "prompt")


def test_other_routes_read_pictures_in_the_same_way(client):
    text = {"image_url": "DATA:image/png;base64," + base64.encodebytes(SOURCE).decode().rstrip("=\n")}
    assert client.post("/v1/sessions", json={"image": text}).status_code == 201
    pair = {"source": text, "edited": text, "instruction": "x"}
    assert client.post("/v1/scores", json={"pairs": [pair]}).status_code == 200
    form = part("image", "a.png") + part("image", text["image_url"]) + END
    assert post(client, form, path="/v1/sessions").status_code == 201
    assert error_of(post(client, PROMPT + form, path="/v1/sessions"))["param"] == "prompt"
    ended(client, post(client, PROMPT + IMAGE + part("mask[]", MASK, filename="m") + END, path="/v1/jobs"))


@pytest.mark.parametrize("kind", [JSON, "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_may_begin_with_a_byte_order_mark_and_state_its_charset(client, painter, kind, mark):
    data = mark + json.dumps(body_of(PLAIN, prompt="enlève ça"), ensure_ascii=False).encode()
    assert post(client, data, kind).status_code == 200
    ended(client, post(client, data, kind, "/v1/jobs"))
    assert {call.request.instruction for call in painter.calls} == {"enlève ça"}
    session = mark + json.dumps({"image": {"image_url": PLAIN}}).encode()
    assert post(client, session, kind, "/v1/sessions").status_code == 201


@pytest.mark.parametrize("charset", ["latin-1", "ISO-8859-1", "windows-1252", "us-ascii", "utf8", '"utf-8"'])
def test_text_that_is_utf8_stays_it_whatever_charset_is_stated(client, painter, charset):
    prompt = part("prompt", "enlève la boîte", f"Content-Type: text/plain; charset={charset}")
    for body, kind in (
        (part("prompt", "enlève la boîte") + IMAGE + END, f"{FORM}; charset={charset}"),
        (prompt + IMAGE + END, FORM),
        (part("_charset_", charset.strip('"')) + prompt + IMAGE + END, FORM),
    ):
        response = post(client, body, kind)
        assert response.status_code == 200, response.text
    assert {call.request.instruction for call in painter.calls} == {"enlève la boîte"}


@pytest.mark.parametrize("charset", ["", "; charset=latin-1"])
def test_text_that_is_not_utf8_is_refused_and_never_garbled(client, painter, charset):
    latin = part("prompt", "enlève la boîte".encode("latin-1"))
    assert error_of(post(client, latin + IMAGE + END, FORM + charset))["param"] == "prompt"
    data = json.dumps(body_of(PLAIN, prompt="enlève"), ensure_ascii=False).encode("latin-1")
    error_of(post(client, data, JSON + charset))
    assert painter.calls == []


@pytest.mark.parametrize("charset", ["utf-16", "utf-7", "iso-2022-jp", "shift_jis", "no-such"])
def test_text_that_is_stated_to_be_in_another_charset_is_refused(client, painter, charset):
    stated = part("prompt", "remove it", f"Content-Type: text/plain; charset={charset}")
    for body, kind in (
        (PROMPT + IMAGE + END, f"{FORM}; charset={charset}"),
        (stated + IMAGE + END, FORM),
        (PROMPT + IMAGE + part("_charset_", charset) + END, FORM),
        (json.dumps(body_of(PLAIN)).encode(), f"{JSON}; charset={charset}"),
    ):
        assert "UTF-8" in error_of(post(client, body, kind))["message"]
    assert painter.calls == []


@pytest.mark.parametrize("coding", ["base64", "quoted-printable"])
def test_a_part_in_a_transfer_encoding_is_refused(client, painter, coding):
    prompt = part("prompt", base64.b64encode(b"remove it"), f"Content-Transfer-Encoding: {coding}")
    assert error_of(post(client, prompt + IMAGE + END))["param"] == "prompt"
    assert painter.calls == []
    plain = part("prompt", "remove it", "Content-Transfer-Encoding: 8bit")
    assert post(client, plain + IMAGE + END).status_code == 200


@pytest.mark.parametrize(
    ("path", "coding"),
    [
        ("/v1/images/edits", "gzip"),
        ("/v1/routes", "deflate"),
        ("/v1/jobs", "br"),
        ("/v1/sessions", "zstd"),
        ("/v1/sessions/s/turns", "GZIP"),
        ("/v1/scores", "identity, gzip"),
        ("/v1/feedback", "x-gzip"),
    ],
)
def test_a_compressed_body_is_refused_and_says_why(client, path, coding):
    data = gzip.compress(json.dumps(body_of(PLAIN)).encode())
    response = post(client, data, JSON, path, **{"content-encoding": coding})
    error = error_of(response, 415)
    assert "content-encoding" in error["message"]
    assert error["code"] == "unsupported_content_encoding"
    assert response.headers["accept-encoding"] == "identity"


def test_a_body_that_states_no_compression_is_taken(client):
    assert post(client, PROMPT + IMAGE + END, **{"content-encoding": "identity"}).status_code == 200


def test_more_files_or_fields_than_a_form_may_have_are_refused_in_a_sentence(client):
    files = b"".join(part("image[]", SOURCE, filename=f"{i}.png") for i in range(18))
    assert "17 files" in error_of(post(client, PROMPT + files + END))["message"]
    texts = b"".join(part(f"field{i}", "x") for i in range(101))
    assert "100 text fields" in error_of(post(client, texts + END))["message"]
