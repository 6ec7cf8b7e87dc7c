"""The records: what is accepted, and that every refusal is one of our sentences."""

from __future__ import annotations

import io
from typing import Annotated, Any

import pytest
from PIL import Image
from pydantic import Field, ValidationError

from careedit.errors import ImageError, InputError, MaskError
from careedit.record import BaseRecord, error_sentence, help_of
from careedit.records import (
    MAX_IMAGES,
    MAX_INSTRUCTION_CHARACTERS,
    MAX_SEED,
    MAX_STEPS,
    BatchSlot,
    EditRequest,
    EditResult,
    EditTrace,
    RoutingDecision,
)

IMAGE = Image.new("RGB", (8, 6), (10, 20, 30))
MASK = Image.new("L", (8, 6), 255)


def request(**fields: Any) -> EditRequest:
    return EditRequest(**{"image": IMAGE, "instruction": "remove the dog", **fields})


def trace(**changes: Any) -> EditTrace:
    fields: dict[str, Any] = {
        "expert_set": "tiny",
        "expert_set_sha256": "0" * 64,
        "instruction": "remove the dog",
        "prompt": "A diptych ... remove the dog",
        "image_sha256": "1" * 64,
        "routing": RoutingDecision(weights={"erase": 0.1 + 0.2, "base": 0.7}, router="rules", reason="'remove'."),
        "application": "merged",
        "seed": MAX_SEED,
        "steps": 4,
        "guidance": None,
        "panel": (64, 64),
        "nfe": 8,
        "batch": (BatchSlot(steps=4, weights={"erase": 0.1 + 0.2, "base": 0.7}),),
        "slot": 0,
        "device": "cpu",
        "dtype": "float32",
        "runtime": "torch 2.14.1, x86_64 AVX2",
        "threads": 2,
        "seconds": {"denoise": 0.25},
    }
    return EditTrace(**(fields | changes))


def test_a_request_needs_a_picture_and_an_instruction_only():
    plain = request()
    assert (plain.mask, plain.references, plain.seed, plain.steps, plain.guidance, plain.top_k) == (
        None,
        (),
        *[None] * 4,
    )
    assert (plain.n, plain.expert, plain.refine_mask) == (1, "auto", False)


def test_pictures_are_taken_as_images_paths_and_bytes(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for picture in (IMAGE, tmp_path / "a.png", str(tmp_path / "a.png"), data, bytearray(data), memoryview(data)):
        for made in (request(image=picture).image, request(references=picture).references[0]):
            assert made.mode == "RGB" and made.tobytes() == IMAGE.tobytes()
    assert len(request(references=[IMAGE]).references) == len(request(references=iter([data])).references) == 1


def test_a_mask_becomes_two_valued():
    grey = Image.new("L", (8, 6), 127)
    grey.putpixel((3, 2), 128)
    assert sorted(request(mask=grey).mask.getcolors()) == [(1, 255), (47, 0)]


def test_an_instruction_is_stripped_and_any_script_is_text():
    assert request(instruction="  移除狗  \n").instruction == "移除狗"
    assert len(request(instruction="x" * MAX_INSTRUCTION_CHARACTERS).instruction) == MAX_INSTRUCTION_CHARACTERS


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        ({"instruction": ""}, InputError, "The instruction is empty; say what to change"),
        ({"instruction": " \n\t "}, InputError, "The instruction is empty"),
        ({"instruction": "x" * 100_000}, InputError, "has 100,000 characters; the limit is 2,000"),
        ({"instruction": "a\udcff"}, InputError, "is not valid text"),
        (
            {"instruction": 5},
            InputError,
            "does not accept 5 for its field 'instruction': input should be a valid string",
        ),
        ({"instruction": None}, InputError, "does not accept None for its field 'instruction'"),
        ({"seed": -1}, InputError, "The seed is -1; it must lie between 0 and 2^63 - 1"),
        ({"seed": MAX_SEED + 1}, InputError, "The seed is 9223372036854775808"),
        ({"seed": "x"}, InputError, "does not accept 'x' for its field 'seed': input should be a valid integer"),
        ({"seed": 1.5}, InputError, "does not accept 1.5 for its field 'seed'"),
        ({"steps": 0}, InputError, "steps is 0; it must lie between 1 and 200"),
        ({"steps": MAX_STEPS + 1}, InputError, "steps is 201"),
        ({"steps": "x"}, InputError, "does not accept 'x' for its field 'steps'"),
        ({"steps": float("inf")}, InputError, "does not accept inf for its field 'steps'"),
        ({"n": 0}, InputError, "n is 0; between 1 and 16 images"),
        ({"n": MAX_IMAGES + 1}, InputError, "n is 17"),
        ({"n": None}, InputError, "does not accept None for its field 'n'"),
        ({"top_k": 0}, InputError, "top_k is 0; at least one expert must be allowed"),
        ({"guidance": -0.1}, InputError, "guidance is -0.1; it must lie between 0 and 1000"),
        ({"guidance": float("nan")}, InputError, "guidance is nan"),
        ({"guidance": float("inf")}, InputError, "guidance is inf"),
        ({"expert": {}}, InputError, "must be positive and sum to 1"),
        ({"expert": {"a": 0.5}}, InputError, "must be positive and sum to 1"),
        ({"expert": {"a": 1.5, "b": -0.5}}, InputError, "must be positive and sum to 1"),
        ({"expert": {"a": float("nan")}}, InputError, "must be positive and sum to 1"),
        ({"expert": {"a": "much"}}, InputError, "for its field 'expert'"),
        ({"expert": 3}, InputError, "does not accept 3 for its field 'expert'"),
        ({"references": None}, InputError, "references is a NoneType; give one or more pictures"),
        ({"references": 3}, InputError, "references is a int"),
        ({"references": [3]}, ImageError, "is a int; give a path"),
        ({"references": [IMAGE] * 16}, InputError, "16 references were given; give at most 15"),
        ({"image": None}, ImageError, "is a NoneType; give a path"),
        ({"image": "no/such.png"}, ImageError, "does not exist"),
        ({"image": b"hello"}, ImageError, "is not a picture that is recognised"),
        ({"mask": b"hello"}, ImageError, "The mask is not a picture that is recognised"),
        ({"mask": MASK.resize((6, 8))}, MaskError, "The mask is 6x8 but the image is 8x6"),
        ({"mask": Image.new("L", (8, 6), 0)}, MaskError, "The mask marks nothing"),
        ({"refine_mask": True}, MaskError, "refine_mask needs a mask"),
        ({"refine_mask": "maybe"}, InputError, "does not accept 'maybe' for its field 'refine_mask'"),
        ({"colour": "red"}, InputError, "EditRequest has no field 'colour'; its fields are image, instruction, mask"),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(fields, kind, said):
    with pytest.raises(kind) as caught:
        request(**fields)
    text = str(caught.value)
    assert said in text
    assert not text[0].islower() or text.split()[0] in fields
    assert text.endswith(".") and "\n" not in text and len(text) < 300


def test_a_missing_field_is_named():
    with pytest.raises(InputError, match="EditRequest needs the field 'instruction', which is missing; add it"):
        EditRequest(image=IMAGE)
    with pytest.raises(InputError, match="RoutingDecision needs the field 'reason'"):
        RoutingDecision(weights={"base": 1.0}, router="rules")


def test_the_validation_report_stays_the_cause():
    with pytest.raises(InputError) as caught:
        request(steps="x")
    assert isinstance(caught.value.__cause__, ValidationError)


@pytest.mark.parametrize("validate", [EditRequest.model_validate, lambda fields: EditRequest(**fields)])
def test_validation_and_construction_refuse_alike(validate):
    with pytest.raises(InputError, match="does not accept 'x' for its field 'n'"):
        validate({"image": IMAGE, "instruction": "x", "n": "x"})
    with pytest.raises(InputError, match="has no field 'mood'"):
        validate({"image": IMAGE, "instruction": "x", "mood": 1})


class Loose(BaseRecord):
    """A record with fields of several types."""

    size: Annotated[float, Field(gt=0)] | dict[str, float] = 1.0
    """Size of the thing, in meters; default 1."""
    parts: tuple[int, ...] = ()


def test_the_base_of_records_converts_nothing_and_describes_its_fields():
    with pytest.raises(ValidationError):
        Loose(size="1")  # type: ignore[arg-type]
    assert Loose.model_json_schema()["properties"]["size"]["description"] == "Size of the thing, in meters; default 1."
    assert help_of(Loose, "size") == "Size of the thing, in meters; default 1."
    with pytest.raises(LookupError, match=r"Loose\.parts has no docstring"):
        help_of(Loose, "parts")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": "1"}, "The thing does not accept '1' for its field 'size': input should be a valid number."),
        ({"size": {"a": "x"}}, "The thing does not accept {'a': 'x'} for its field 'size'"),
        (
            {"parts": (1, "x")},
            "The thing does not accept 'x' for its field 'parts.1': input should be a valid integer.",
        ),
        ({"colour": 1}, "The thing has no field 'colour'; remove it or correct its spelling."),
    ],
)
def test_a_validation_error_becomes_one_sentence_that_names_the_field(fields, said):
    with pytest.raises(ValidationError) as caught:
        Loose.model_validate(fields)
    assert error_sentence(caught.value, "The thing").startswith(said)


def test_a_record_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        request().seed = 3


def test_a_trace_survives_json_to_the_last_bit():
    made = trace(mask_sha256="2" * 64, reference_sha256=("3" * 64,), guidance=0.1 + 0.2, degradations=("a: b",))
    read = EditTrace.model_validate_json(made.model_dump_json())

    assert read == made
    assert read.seed == MAX_SEED
    assert read.routing.weights["erase"] == read.batch[0].weights["erase"] == 0.1 + 0.2
    assert type(read.panel) is tuple and type(read.batch[0]) is BatchSlot


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "does not accept 2 for its field 'version': input should be 1"),
        ({"slot": 1}, "names slot 1 of a batch of 1"),
        ({"slot": -1}, "names slot -1 of a batch of 1"),
        ({"batch": ()}, "names slot 0 of a batch of 0"),
        ({"threads": 0}, "does not accept 0 for its field 'threads'"),
        ({"threads": 100_000}, "does not accept 100000 for its field 'threads'"),
        ({"application": "blended"}, "for its field 'application'"),
        ({"routing": {"weights": {}, "router": "x", "reason": "x", "mood": 1}}, "RoutingDecision has no field 'mood'"),
        ({"batch": [{"steps": 1}]}, "BatchSlot needs the field 'weights'"),
    ],
)
def test_a_trace_that_cannot_be_is_refused(changes, said):
    with pytest.raises(InputError) as caught:
        trace(**changes)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_results_first_image_is_the_image(tmp_path):
    result = EditResult(images=(IMAGE, MASK), traces=(trace(), trace(seed=1)))
    assert result.image is IMAGE and result.trace.seed == MAX_SEED
    result.save(tmp_path / "a.png")
    assert Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())).tobytes() == IMAGE.tobytes()
