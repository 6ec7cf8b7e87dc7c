import base64
import json

import pytest

from fake_backend import mask_file, picture_file

SOURCE = picture_file()


def send(client, files=None, **fields):
    return client.post(
        "/v1/images/edits", files=files or {"image": ("a.png", SOURCE)}, data={"prompt": "remove it", **fields}
    )


def error_of(response, status=400):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].rstrip().endswith(".")
    return error


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def test_an_edit_answers_in_openais_shape_with_the_trace_beside_it(client, opened):
    response = send(client, n="2", seed="7", user="anna")
    assert response.status_code == 200, response.text
    answer = response.json()
    assert [opened(image["b64_json"]).getpixel((0, 0)) for image in answer["data"]] == [(55, 215, 165)] * 2
    assert {name: answer[name] for name in ("output_format", "quality", "size", "background", "safety_identifier")} == {
        "output_format": "png",
        "quality": "auto",
        "size": "48x32",
        "background": "opaque",
        "safety_identifier": "anna",
    }
    assert [trace["seed"] for trace in answer["careedit"]["traces"]] == [7, 8]
    assert response.headers["x-careedit-arm"] == answer["careedit"]["arm"] == "tiny"
    assert response.headers["x-careedit-edit"] == answer["careedit"]["id"]


def test_usage_counts_panels_words_and_results(client):
    usage = send(client, prompt="remove the red circle, please", n="2").json()["usage"]
    assert usage["input_tokens_details"] == {"image_tokens": 16, "text_tokens": 6}
    assert usage["output_tokens_details"] == {"image_tokens": 32, "text_tokens": 0}
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (22, 32, 54)


def test_json_and_form_are_the_same_edit(client, painter):
    form = send(client, {"image": ("a.png", SOURCE), "mask": ("m.png", mask_file())}, seed="3")
    body = {
        "images": [{"image_url": data_url(SOURCE)}],
        "mask": {"image_url": data_url(mask_file())},
        "prompt": "remove it",
        "seed": 3,
        "user": None,
    }
    other = client.post("/v1/images/edits", json=body)
    assert other.status_code == 200, other.text
    assert other.json()["data"] == form.json()["data"]
    first, second = (call.request for call in painter.calls)
    assert first.model_dump(exclude={"image", "mask"}) == second.model_dump(exclude={"image", "mask"})


@pytest.mark.parametrize("left_is_free", [True, False])
def test_the_source_changes_where_the_mask_is_transparent_and_nowhere_else(client, opened, left_is_free):
    files = {"image": ("a.png", SOURCE), "mask": ("m.png", mask_file(left_is_free=left_is_free))}
    picture = opened(send(client, files).json()["data"][0]["b64_json"])
    left, right = picture.getpixel((2, 16)), picture.getpixel((45, 16))
    assert (left == (55, 215, 165), right == (200, 40, 90)) == (left_is_free, left_is_free)
    assert (left == (200, 40, 90), right == (55, 215, 165)) == (not left_is_free, not left_is_free)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (picture_file(), "no transparent pixel"),
        (mask_file((32, 32)), "mask of the image's size"),
        (b"nonsense", "not a picture"),
    ],
)
def test_a_mask_that_says_nothing_by_openais_rule_is_refused(client, mask, reason):
    error = error_of(send(client, {"image": ("a.png", SOURCE), "mask": ("m.png", mask)}))
    assert error["param"] == "mask"
    assert reason in error["message"]


def test_the_second_picture_is_the_reference(client, painter):
    files = [("image[]", ("a.png", SOURCE)), ("image[]", ("b.png", picture_file((20, 20), (1, 2, 3))))]
    usage = send(client, files).json()["usage"]
    request = painter.calls[0].request
    assert request.image.getpixel((0, 0)) == (200, 40, 90)
    assert [reference.getpixel((0, 0)) for reference in request.references] == [(1, 2, 3)]
    assert usage["input_tokens_details"]["image_tokens"] == 32


@pytest.mark.parametrize(
    "field",
    [
        "style",
        "markup",
        "complexity",
        "frame_count",
        "frame_duration_ms",
        "svg",
        "whatever",
    ],
)
def test_a_field_that_is_not_supported_is_refused_by_name(client, painter, field):
    for response in (
        send(client, **{field: "high"}),
        client.post(
            "/v1/images/edits", json={"images": [{"image_url": data_url(SOURCE)}], "prompt": "x", field: "high"}
        ),
    ):
        error = error_of(response)
        assert error["param"] == field
        assert field in error["message"]
        assert error["code"] in ("unsupported_parameter", "unknown_parameter")
    assert painter.calls == []


@pytest.mark.parametrize(("kind", "body"), [("application/json", b"{"), ("text/plain", b"hello"), ("", b"")])
def test_a_body_that_cannot_be_read_is_refused(client, kind, body):
    error_of(client.post("/v1/images/edits", content=body, headers={"content-type": kind}))


def test_quality_means_steps_unless_steps_are_given(client, painter):
    for fields in (
        {"quality": "low"},
        {"quality": "high"},
        {"quality": "high", "steps": "3"},
        {"quality": "medium"},
        {},
    ):
        assert send(client, **fields).status_code == 200
    assert [call.request.steps for call in painter.calls] == [2, 8, 3, 4, 4]


def test_an_object_may_come_as_json_text_or_as_openais_client_writes_it(client, painter):
    for fields in (
        {"expert": json.dumps({"erase": 0.5, "style": 0.5})},
        {"expert[erase]": "0.5", "expert[style]": "0.5"},
    ):
        response = send(client, **fields)
        assert response.status_code == 200, response.text
    assert [call.decision.weights for call in painter.calls] == [{"erase": 0.5, "style": 0.5}] * 2


@pytest.mark.parametrize(
    ("size", "expected"), [("auto", (48, 32)), ("48x32", (48, 32)), ("96x64", (96, 64)), ("24x16", (24, 16))]
)
def test_a_size_of_the_sources_proportions_scales_the_result(client, opened, size, expected):
    answer = send(client, size=size).json()
    assert opened(answer["data"][0]["b64_json"]).size == expected
    assert answer["size"] == "{}x{}".format(*expected)


@pytest.mark.parametrize(
    ("kind", "compression"), [("png", None), ("jpeg", None), ("jpeg", "60"), ("webp", None), ("webp", "60")]
)
def test_the_format_is_the_one_that_was_asked_for(client, opened, kind, compression):
    fields = {} if compression is None else {"output_compression": compression}
    answer = send(client, output_format=kind, **fields).json()
    picture = opened(answer["data"][0]["b64_json"])
    assert picture.format.lower() == answer["output_format"] == kind
    assert picture.info.get("exif") is None


def test_an_edit_is_kept_without_its_words(client, served):
    edit_id = send(client, user="anna").json()["careedit"]["id"]
    kept = served.run(lambda: served.services.store.edits.get(edit_id))
    assert (kept.outcome, kept.arm, kept.instruction) == ("made", "tiny", None)
    assert kept.traces[0]["steps"] == 4
    assert "remove it" not in kept.model_dump_json()
