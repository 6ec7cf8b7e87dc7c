"""JPEG files: bounded scans and segments, an absent end marker, and scan data that really lacks."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from careedit.errors import ImageError
from careedit.images import decode_image, inspect_picture
from pictures import with_scans

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)).resize((52, 40), 3)
END = b"\xff\xd9"


def encoded(image: Image.Image = SMOOTH, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


FILES = {
    "baseline": encoded(),
    "progressive": encoded(progressive=True),
    "restarts": encoded(restart_marker_blocks=1),
    "progressive with restarts": encoded(progressive=True, restart_marker_rows=1),
    "grey": encoded(SMOOTH.convert("L")),
    "CMYK": encoded(SMOOTH.convert("CMYK")),
    "middle grey": encoded(Image.new("RGB", (52, 40), (128, 128, 128))),
}


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    return str(caught.value)


def cpu_of(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "after", [b"", b"\xff", b"\0" * 300, b"text\xff\x00\xff\xd8\xff\xe0and more", b"text\xff\xe1and", FILES["baseline"]]
)
def test_a_file_without_its_end_marker_is_taken_whatever_follows(name, after):
    whole = decode_image(FILES[name]).tobytes()
    assert decode_image(FILES[name].removesuffix(END) + after).tobytes() == whole
    assert decode_image(FILES[name] + after).tobytes() == whole


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_in_its_scan_data_is_refused_or_has_every_pixel(name):
    whole, data = decode_image(FILES[name]).tobytes(), FILES[name]
    refused = 0
    for length in range(data.index(b"\xff\xda"), len(data) - 2, 5):
        try:
            assert decode_image(data[:length]).tobytes() == whole
        except ImageError as error:
            refused += "is damaged or cut off" in str(error)
    assert refused > 10


@pytest.mark.parametrize("name", [name for name in FILES if name != "middle grey"])
def test_an_end_marker_behind_half_of_the_scan_data_is_not_accepted(name):
    data = FILES[name]
    half = (data.index(b"\xff\xda") + len(data)) // 2
    assert "is damaged or cut off" in refusal(data[:half] + END)


def test_a_progressive_file_without_its_last_scan_is_refused():
    data = FILES["progressive"]
    assert "is damaged or cut off" in refusal(data[: data.rindex(b"\xff\xda")] + END)


def test_hundreds_of_empty_scans_cost_no_time():
    data = with_scans(4096, 700)
    assert len(data) < 150_000
    assert cpu_of(lambda: refusal(data)) < 0.2
    assert "is a JPEG of more than 24 scans; at its size it may have 24" in refusal(data)


@pytest.mark.parametrize(("size", "most"), [(4096, 24), (2048, 32), (64, 100)])
def test_the_larger_a_picture_the_fewer_scans_it_may_have(size, most):
    assert inspect_picture(with_scans(size, most)) == ("JPEG", (size, size))
    assert f"it may have {most}" in refusal(with_scans(size, most + 1))


def test_what_stays_below_the_limit_of_scans_is_decoded():
    assert decode_image(with_scans(64, 100)).getpixel((5, 5)) == decode_image(with_scans(64, 12)).getpixel((5, 5))


@pytest.mark.parametrize("segment", [b"\xff\xe5\x00\x02", b"\xff\xfe\x00\x02", b"\xff\xd0", b"\xff\xc4\x00\x02"])
def test_a_flood_of_segments_costs_no_time(segment):
    data = FILES["baseline"][:2] + segment * 2_000_000 + FILES["baseline"][2:]
    assert cpu_of(lambda: refusal(data)) < 0.2
    assert "has more than 2,000 JPEG segments" in refusal(data)


def test_what_fills_the_space_between_segments_costs_no_time():
    data = FILES["baseline"][:2] + b"\xff" * 2_000_000 + FILES["baseline"][2:]
    assert cpu_of(lambda: decode_image(data)) < 0.3
    assert decode_image(data) == decode_image(FILES["baseline"])


def test_only_the_first_block_of_exif_is_read():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(exif=exif.tobytes())
    content = b"Exif\0\0" + b"\0" * 2000
    segment = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    at = data.index(b"\xff\xdb")
    flood = data[:at] + segment * 1900 + data[at:]
    assert cpu_of(lambda: decode_image(flood)) < 0.2
    assert decode_image(flood) == decode_image(data)


def test_more_tables_than_there_can_be_in_a_segment_are_refused():
    tables = (b"\0" + b"\1" * 64) * 900
    segment = b"\xff\xdb" + (len(tables) + 2).to_bytes(2, "big") + tables
    data = FILES["baseline"][:2] + segment * 60 + FILES["baseline"][2:]
    assert cpu_of(lambda: refusal(data)) < 0.1


def test_unused_metadata_is_not_read():
    blocks = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5000
    segment = b"\xff\xed" + (len(blocks) + 2).to_bytes(2, "big") + blocks
    data = FILES["baseline"][:2] + segment * 100 + FILES["baseline"][2:]
    assert cpu_of(lambda: decode_image(data)) < 0.2
    assert decode_image(data) == decode_image(FILES["baseline"])


@pytest.mark.parametrize(
    ("marker", "words"),
    [(0xC9, "arithmetic coding"), (0xCA, "arithmetic coding"), (0xC5, "hierarchical or differential coding")],
)
def test_a_coding_that_is_not_read_is_named(marker, words):
    data = FILES["baseline"].replace(b"\xff\xc0", bytes((0xFF, marker)), 1)
    assert f"is a JPEG with {words}" in refusal(data)


def test_twelve_bits_per_channel_are_named():
    at = FILES["baseline"].index(b"\xff\xc0")
    data = bytearray(FILES["baseline"])
    data[at + 4] = 12
    assert "is a JPEG of 12 bits per channel" in refusal(bytes(data))
