"""An order that waits is the same order afterwards; of a job that was begun, only the rest is made."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from careedit.images import decode_image, decode_mask, image_sha256
from careedit.records import EarlyFilter, EditRequest
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.codecs import Codecs
from careedit_deployments.edits.output import Output
from careedit_deployments.edits.stored import (
    StoredOrder,
    keep_order,
    loaded_order,
    remaining,
    resolved_sha256,
)
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import JobImage
from pictures import encoded

SCOPE = "jobs/job_0123456789abcdef"


def a_request(**changed: object) -> EditRequest:
    told = {
        "image": Image.radial_gradient("L").resize((40, 30)).convert("RGB"),
        "instruction": "remove the ☃",
        "mask": Image.linear_gradient("L").resize((40, 30)),
        "references": (Image.new("RGB", (8, 8), (1, 2, 3)),),
        "seed": 2**62,
        "n": 3,
        "expert": {"erase": 0.5, "style": 0.5},
        "steps": 7,
        "guidance": 2.5,
        "refine_mask": True,
    }
    return EditRequest(**{**told, **changed})


def an_image(index: int) -> JobImage:
    return JobImage(image=index, edit_id="e", arm="a", picture="p", trace={})


@pytest.mark.parametrize(
    "changed", [{}, {"mask": None, "refine_mask": False, "references": (), "early_filter": EarlyFilter()}]
)
def test_an_order_comes_back_to_the_pixel(tmp_path: Path, changed: dict[str, object]) -> None:
    order = EditOrder(request=a_request(**changed), model="m", user="u", partials=2, owner="key_1", request_id="job_1")
    output = Output(size=(80, 60), format="jpeg", compression=80)

    async def there_and_back() -> tuple[EditOrder, StoredOrder]:
        blobs = BlobStore(str(tmp_path))
        stored = await keep_order(order, output, partial(blobs.put, SCOPE))
        read = StoredOrder(**stored.model_dump(mode="json"))
        async with loaded_order(read, blobs, Codecs(), owner="key_1", request_id="job_1") as back:
            return back, read

    back, read = asyncio.run(there_and_back())
    assert read.output == output
    assert resolved_sha256(back, output, None) == resolved_sha256(order, output, None)
    assert image_sha256(back.request.image) == image_sha256(order.request.image)
    pictures = {"image", "mask", "references"}
    assert back.request.model_dump(exclude=pictures) == order.request.model_dump(exclude=pictures)
    assert (back.model, back.user, back.partials, back.owner) == ("m", "u", 2, "key_1")


def test_an_order_keeps_the_files_that_were_sent_and_is_the_same_afterwards(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 8, "a place"
    mask = Image.new("RGBA", (30, 40), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (2, 3, 20, 30))
    pictures = [encoded(a_request().image, "JPEG", exif=exif), encoded(mask)]
    source, reference = (decode_image(data) for data in pictures)
    request = a_request(image=source, references=(reference,), mask=decode_mask(encoded(mask), white_is_edit=False))

    async def there_and_back() -> EditRequest:
        blobs = BlobStore(str(tmp_path))
        put, sent = partial(blobs.put, SCOPE), {"pictures": pictures, "mask": encoded(mask)}
        stored = await keep_order(EditOrder(request=request), Output(size=(40, 30)), put, **sent)
        async with loaded_order(stored, blobs, Codecs(), owner="me", request_id="job_1") as back:
            return back.request

    back = asyncio.run(there_and_back())
    kept = list(tmp_path.rglob("*.sent"))
    assert len(kept) == 2, "the mask and the reference are one file"
    assert all(b"a place" not in path.read_bytes() for path in kept)
    for one, other in zip(
        (request.image, *request.references, request.mask), (back.image, *back.references, back.mask), strict=True
    ):
        assert (other, other.info) == (one, one.info)


def test_a_body_is_told_from_another_by_everything_that_was_asked_for() -> None:
    def digest(webhook: str | None = None, size: tuple[int, int] = (40, 30), **changed: object) -> str:
        return resolved_sha256(EditOrder(request=a_request(**changed)), Output(size=size), webhook)

    blank = Image.new("RGB", (40, 30))
    others = [
        digest("https://a.b"),
        digest(size=(80, 60)),
        digest(seed=None),
        digest(instruction="x"),
        digest(image=blank),
    ]
    assert digest() == digest()
    assert len({digest(), *others}) == 6


@pytest.mark.parametrize(
    ("made", "changed", "expected"),
    [
        ([], {}, (2**62, 3, 0)),
        ([0], {}, (2**62 + 1, 2, 1)),
        ([0, 1], {}, (2**62 + 2, 1, 2)),
        ([1], {}, (2**62, 3, 0)),
        ([0], {"early_filter": EarlyFilter()}, (2**62, 3, 0)),
        ([0, 1, 2], {}, None),
    ],
)
def test_of_a_job_that_was_begun_only_the_rest_is_made(
    made: list[int], changed: dict[str, object], expected: tuple[int, int, int] | None
) -> None:
    rest, first = remaining(a_request(**changed), [an_image(index) for index in made])
    assert (None if rest is None else (rest.seed, rest.n, first)) == expected
