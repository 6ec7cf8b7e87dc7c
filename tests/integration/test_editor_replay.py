"""A trace is enough to make its image again, bit for bit, and what does not fit it is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
from PIL import ImageOps

from careedit import EditRequest, EditTrace, load_editor
from careedit.errors import InputError, ReplayError

MIXTURE = {"style": 0.6, "erase": 0.3, "base": 0.1}
SMALL, WIDE = (64, 64), (120, 50)

# Each call is a list of requests: (size, masked, reference, other fields).
CALLS = {
    "one": [(SMALL, False, False, {})],
    "one at another size": [(WIDE, False, False, {"steps": 3})],
    "several seeds": [(SMALL, False, False, {"n": 3})],
    "one masked": [(WIDE, True, False, {})],
    "a refined mask": [((128, 128), True, False, {"refine_mask": True})],
    "a reference": [(SMALL, False, True, {"expert": "reference"})],
    "a mixture": [(SMALL, False, False, {"expert": MIXTURE})],
    "a masked mixture": [(SMALL, True, False, {"expert": MIXTURE})],
    "a mixture of the router's": [
        (SMALL, True, False, {"top_k": 3, "instruction": "turn it into a watercolour and remove the star"})
    ],
    "a mixed batch": [
        (SMALL, False, False, {}),
        (WIDE, True, False, {"expert": "style", "steps": 1, "n": 2}),
        (SMALL, True, False, {"expert": MIXTURE, "steps": 3}),
        (SMALL, False, True, {"expert": {"identity": 0.7, "reference": 0.3}, "steps": 2}),
        (SMALL, False, False, {"expert": "base", "steps": 1}),
        (SMALL, False, True, {}),
    ],
}


@pytest.fixture(scope="module")
def fresh(untrained_set):
    """A second editor per application, which has edited nothing else."""
    return {kind: load_editor(str(untrained_set), device="cpu", application=kind) for kind in ("merged", "shared")}


@pytest.fixture
def make(draw_picture, draw_mask):
    def requests(call):
        return [
            EditRequest(
                image=draw_picture(size, seed=i),
                mask=draw_mask(size) if masked else None,
                references=(draw_picture(WIDE, seed=i + 20),) if reference else (),
                **{"instruction": "remove the red circle", "seed": 100 * i, **fields},
            )
            for i, (size, masked, reference, fields) in enumerate(call)
        ]

    return requests


@pytest.mark.parametrize("application", ["merged", "shared"])
@pytest.mark.parametrize("call", CALLS)
def test_a_trace_from_json_replays_to_the_identical_image(call, application, open_editor, fresh, make):
    requests = make(CALLS[call])
    for request, result in zip(requests, open_editor(application).edit(requests), strict=True):
        for image, trace in zip(result.images, result.traces, strict=True):
            read = EditTrace.model_validate_json(trace.model_dump_json())
            assert read == trace
            again = fresh[application].replay(
                read, image=request.image, mask=request.mask, references=request.references
            )
            assert again.image.tobytes() == image.tobytes()
            assert again.trace.model_copy(update={"seconds": {}}) == trace.model_copy(update={"seconds": {}})
            if "router" in call:
                assert len(trace.routing.weights) == 3


@pytest.fixture
def with_threads():
    """`with_threads(n)` until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_replay_rounds_as_the_edit_did_whatever_the_number_of_threads(with_threads, open_editor, draw_picture):
    editor = open_editor("merged")
    request = EditRequest(image=draw_picture((640, 480)), instruction="remove the circle", seed=5, steps=4)
    with_threads(1)
    result = editor.edit(request)
    with_threads(2)
    again = editor.replay(result.trace, image=request.image)

    assert again.image.tobytes() == result.image.tobytes()
    assert again.trace.threads == 1
    assert torch.get_num_threads() == 2


def test_a_replay_with_other_software_or_another_processor_says_so(open_editor, draw_picture):
    request = EditRequest(image=draw_picture(), instruction="remove the circle", seed=5)
    trace = open_editor("merged").edit(request).trace.model_copy(update={"runtime": "torch 1.0, abacus"})
    (degradation,) = open_editor("merged").replay(trace, image=request.image).trace.degradations
    assert degradation.startswith("replay: made with torch 1.0, abacus, again with torch ")


@pytest.fixture
def masked_edit(open_editor, make):
    request = make([(SMALL, True, True, {})])[0]
    return request, open_editor("merged").edit(request).trace


@pytest.mark.parametrize("other", ["image", "mask", "references", "no mask", "no references", "size"])
def test_other_pictures_are_refused(other, masked_edit, open_editor, draw_picture, draw_mask):
    request, trace = masked_edit
    pictures = {"image": request.image, "mask": request.mask, "references": request.references}
    pictures |= {
        "image": {"image": draw_picture(seed=9)},
        "mask": {"mask": ImageOps.invert(draw_mask())},
        "references": {"references": [draw_picture(seed=9)]},
        "no mask": {"mask": None},
        "no references": {"references": ()},
        "size": {"image": draw_picture(WIDE), "mask": draw_mask(WIDE)},
    }[other]
    with pytest.raises(ReplayError, match="give the same pictures"):
        open_editor("merged").replay(trace, **pictures)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expert_set_sha256": "0" * 64}, "expert_set_sha256 '0000"),
        ({"application": "shared"}, "application 'shared', this editor has 'merged'"),
        ({"device": "cuda"}, "device 'cuda', this editor has 'cpu'"),
        ({"dtype": "bfloat16"}, "dtype 'bfloat16', this editor has 'float32'"),
    ],
)
def test_another_set_application_device_or_number_format_is_refused(changes, said, masked_edit, open_editor):
    request, trace = masked_edit
    with pytest.raises(ReplayError, match=said):
        open_editor("merged").replay(
            trace.model_copy(update=changes), image=request.image, mask=request.mask, references=request.references
        )


def test_an_editor_of_another_number_format_refuses_the_trace(masked_edit, untrained_set):
    request, trace = masked_edit
    editor = load_editor(str(untrained_set), device="cpu", dtype=torch.bfloat16)
    with pytest.raises(ReplayError, match="dtype 'float32', this editor has 'bfloat16'"):
        editor.replay(trace, image=request.image, mask=request.mask, references=request.references)
    result = editor.edit(request)
    again = editor.replay(result.trace, image=request.image, mask=request.mask, references=request.references)
    assert again.image.tobytes() == result.image.tobytes()


def test_a_set_with_another_default_is_another_set_and_a_moved_one_is_the_same(masked_edit, untrained_set, tmp_path):
    request, trace = masked_edit
    pictures = {"image": request.image, "mask": request.mask, "references": request.references}
    folder = shutil.copytree(untrained_set, tmp_path / "moved")
    again = load_editor(str(folder), device="cpu").replay(trace, **pictures)
    assert again.trace.image_sha256 == trace.image_sha256

    file = folder / "expert_set.yaml"
    file.write_text(file.read_text().replace("steps: 2", "steps: 3"))
    with pytest.raises(ReplayError, match="expert_set_sha256"):
        load_editor(str(folder), device="cpu").replay(trace, **pictures)


@pytest.mark.parametrize("slot", [-1, 1])
def test_a_trace_that_names_no_slot_of_its_batch_is_refused(slot, masked_edit):
    with pytest.raises(InputError, match=f"names slot {slot} of a batch of 1"):
        EditTrace.model_validate({**masked_edit[1].model_dump(), "slot": slot})
