"""The official client, and what it makes of this server."""

import asyncio
import base64
import io
import json

import httpx2
import openai
import pytest
from PIL import Image

from careedit import EditRequest
from careedit.images import image_sha256
from careedit.records import EditTrace


def opened(b64_json):
    picture = Image.open(io.BytesIO(base64.b64decode(b64_json)))
    picture.load()
    return picture.convert("RGB")


def test_an_edit_is_the_editors_own(client, backend, scene):
    answer = client.images.edit(
        image=scene, prompt="remove the circle", model="tiny", extra_body={"seed": 11, "steps": 3}
    )
    told = answer.model_dump()["careedit"]
    trace = EditTrace(**told["traces"][0])
    again = backend._editors["tiny"].edit(
        EditRequest(image=scene, instruction="remove the circle", seed=11, steps=3, expert=dict(trace.routing.weights))
    )
    assert image_sha256(opened(answer.data[0].b64_json)) == image_sha256(again.image)
    assert (trace.seed, trace.steps, trace.routing.router) == (11, 3, "transformer")
    assert (answer.size, answer.output_format, answer.quality) == ("64x64", "png", "auto")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0


def test_the_asynchronous_client_edits_too_and_several_at_once(served, scene):
    async def edit_all():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="-", max_retries=0) as client:
            edits = (
                client.images.edit(
                    image=("a.png", scene),
                    prompt="remove it",
                    n=2,
                    quality="low",
                    extra_body={"seed": 5, "expert": name},
                )
                for name in ("erase", "style", "base")
            )
            return await asyncio.gather(*edits)

    answers = asyncio.run(edit_all())
    experts = [
        [list(trace["routing"]["weights"]) for trace in answer.model_dump()["careedit"]["traces"]] for answer in answers
    ]
    assert experts == [[["erase"]] * 2, [["style"]] * 2, [["base"]] * 2]
    assert len({image.b64_json for answer in answers for image in answer.data}) == 6


@pytest.mark.parametrize("partials", [0, 2])
def test_a_stream_brings_partial_images_and_the_result(client, scene, partials):
    with client.images.edit(
        image=scene,
        prompt="remove the circle",
        stream=True,
        partial_images=partials,
        extra_body={"seed": 1, "steps": 6},
    ) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["image_edit.partial_image"] * partials + ["image_edit.completed"]
    assert [event.partial_image_index for event in events[:-1]] == list(range(partials))
    assert len({event.b64_json for event in events}) == partials + 1
    whole = client.images.edit(image=scene, prompt="remove the circle", extra_body={"seed": 1, "steps": 6})
    assert events[-1].b64_json == whole.data[0].b64_json
    assert events[-1].usage.output_tokens == whole.usage.output_tokens


def test_the_asynchronous_client_streams(served, scene):
    async def edit():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="-", max_retries=0) as client:
            stream = await client.images.edit(image=scene, prompt="remove it", stream=True, partial_images=1)
            return [event.type async for event in stream]

    assert asyncio.run(edit()) == ["image_edit.partial_image", "image_edit.completed"]


def test_outside_its_mask_an_edit_keeps_every_pixel(client, scene, left_mask):
    answer = client.images.edit(
        image=scene, mask=left_mask, prompt="paint it green", extra_body={"seed": 2, "expert": "style"}
    )
    before, after = Image.open(io.BytesIO(scene)), opened(answer.data[0].b64_json)
    right = (32, 0, 64, 64)
    assert after.crop(right).tobytes() == before.crop(right).tobytes()
    assert after.crop((0, 0, 32, 64)).tobytes() != before.crop((0, 0, 32, 64)).tobytes()


def test_an_early_filter_as_the_client_writes_an_object(client, scene):
    answer = client.images.edit(
        image=scene,
        prompt="remove the circle",
        extra_body={"seed": 3, "steps": 4, "early_filter": {"strategy": "halving", "candidates": 3}},
    )
    trace = answer.model_dump()["careedit"]["traces"][0]
    assert len(trace["filter"]["candidates"]) == 3
    assert trace["filter"].get("degraded") is None


def test_a_stream_brings_the_candidates_of_an_early_filter(client, scene):
    tried = {"strategy": "halving", "candidates": 3}
    wanted = {"seed": 3, "steps": 4, "early_filter": tried, "candidate_images": True}
    with client.images.edit(image=scene, prompt="remove the circle", stream=True, extra_body=wanted) as stream:
        events = [event.model_dump() for event in stream]
    assert [event["type"] for event in events] == ["image_edit.candidate"] * 3 + ["image_edit.completed"]
    assert [event["candidate_index"] for event in events[:-1]] == [0, 1, 2]
    traced = events[-1]["careedit"]["traces"][0]["filter"]["candidates"]
    assert [image_sha256(opened(event["b64_json"])) for event in events[:-1]] == [
        one["preview_sha256"] for one in traced
    ]


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"background": "transparent"}, openai.BadRequestError, "background"),
        ({"quality": "xhigh"}, openai.BadRequestError, "quality"),
        ({"svg": {"model": "x"}}, openai.BadRequestError, "svg"),
        ({"markup": b"png"}, openai.BadRequestError, "markup"),
        ({"extra_body": {"style": "vivid"}}, openai.BadRequestError, "style"),
        ({"extra_body": {"early_filter": {"turns": 3}}}, openai.BadRequestError, "early_filter"),
        ({"model": "gpt-image-2"}, openai.NotFoundError, "model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_an_error_that_names_the_field(client, scene, fields, kind, param, stream):
    with pytest.raises(kind) as refused:
        client.images.edit(image=scene, prompt="remove it", stream=stream, **fields)
    assert refused.value.param == param
    assert refused.value.request_id.startswith("req_")
    assert refused.value.message


def test_an_error_in_a_stream_reaches_the_client_as_one(client, scene, backend, monkeypatch):
    runner = backend.runners["tiny"]

    async def broken(call):
        async for event in type(runner).stream(runner, call):
            yield event
            if event.kind == "partial":
                raise RuntimeError("secret")

    monkeypatch.setattr(runner, "stream", broken)
    stream = client.images.edit(image=scene, prompt="remove it", stream=True, partial_images=2)
    with pytest.raises(openai.APIError, match="Internal error") as told:
        list(stream)
    assert "secret" not in str(told.value.body)


@pytest.mark.parametrize("size", ["auto", "1024x1024", "1536x1024"])
def test_what_stock_clients_always_send_is_taken(client, scene, size):
    answer = client.images.edit(
        image=[("a.png", scene, "image/png")],
        prompt="remove the circle",
        size=size,
        quality="standard",
        background="auto",
        input_fidelity="high",
        response_format="url",
        output_format="webp",
        user="anna",
        extra_body={"moderation": "auto", "steps": 2},
    )
    picture = Image.open(io.BytesIO(httpx2.get(answer.data[0].url).content))
    assert (picture.format, "{}x{}".format(*picture.size)) == ("WEBP", "64x64" if size == "auto" else size)
    assert answer.data[0].b64_json is None
    assert len(answer.model_dump()["careedit"]["notes"]) == (4 if size == "1536x1024" else 3)


def test_a_picture_cannot_be_made_from_words_alone(client):
    with pytest.raises(openai.NotFoundError, match="/v1/images/edits"):
        client.images.generate(prompt="a cat", model="tiny")


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    model = client.models.retrieve("tiny")
    assert (model.owned_by, model.model_dump()["references"]) == ("careedit", 1)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-image-2")


def test_a_client_that_leaves_its_stream_stops_the_steps(client, scene, backend):
    counters = backend.runners["tiny"].scheduler.counters
    before = counters.steps
    stream = client.images.edit(
        image=scene, prompt="remove it", stream=True, partial_images=3, extra_body={"steps": 200}
    )
    first = next(iter(stream))
    assert first.type == "image_edit.partial_image"
    stream.close()
    answer = client.images.edit(image=scene, prompt="remove it", extra_body={"steps": 2})
    assert answer.data
    done = counters.steps
    assert done - before < 200
    assert client.images.edit(image=scene, prompt="remove it", extra_body={"steps": 2}).data
    assert counters.steps - done == 2
    assert counters.steps_after_cancel <= 1


def test_a_full_queue_is_told_at_once_with_when_to_come_back(served, scene):
    async def crowd():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="-", max_retries=0, timeout=120) as client:
            edits = (
                client.images.edit(image=scene, prompt="remove it", extra_body={"seed": i, "steps": 20})
                for i in range(12)
            )
            return await asyncio.gather(*edits, return_exceptions=True)

    answers = asyncio.run(crowd())
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    made = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(made) + len(refused) == 12
    assert refused
    assert len(made) >= 6
    assert all(int(answer.response.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.code for answer in refused} == {"server_overloaded"}


def test_batches_are_made_listed_read_and_cancelled(client, scene):
    url = "data:image/png;base64," + base64.b64encode(scene).decode()
    lines = [
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/images/edits",
            "body": {"model": "tiny", "prompt": prompt, "images": [{"image_url": url}], "seed": 11, "steps": 2},
        }
        for name, prompt in (("good", "remove the circle"), ("bad", ""))
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("edits.jsonl", data), purpose="batch")
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(data), "edits.jsonl", "batch", "processed")
    assert client.files.content(file.id).content == data

    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/images/edits", completion_window="24h", metadata={"shop": "north"}
    )
    assert (batch.status, batch.metadata, batch.request_counts.total) == ("validating", {"shop": "north"}, 0)
    while (batch := client.batches.retrieve(batch.id)).status != "completed":
        assert batch.status in ("validating", "in_progress", "finalizing")
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    (line,) = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
    same = client.images.edit(
        image=scene, prompt="remove the circle", model="tiny", extra_body={"seed": 11, "steps": 2}
    )
    assert line["custom_id"] == "good"
    assert line["response"]["body"]["data"][0]["b64_json"] == same.data[0].b64_json
    (line,) = map(json.loads, client.files.content(batch.error_file_id).text.splitlines())
    assert (line["custom_id"], line["response"]["body"]["error"]["param"]) == ("bad", "prompt")

    assert next(iter(client.batches.list(limit=1))).id == batch.id
    assert {one.id for one in client.files.list(purpose="batch_output")} >= {batch.output_file_id, batch.error_file_id}
    with pytest.raises(openai.ConflictError, match="completed, so it cannot be cancelled"):
        client.batches.cancel(batch.id)
    assert (
        client.files.retrieve(batch.output_file_id).expires_at == client.files.retrieve(batch.error_file_id).expires_at
    )
    assert client.files.delete(batch.output_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(batch.output_file_id)
