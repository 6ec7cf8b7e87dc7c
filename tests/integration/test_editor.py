"""`Editor`: requests in, pictures of the source's size and their traces out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from careedit import EditRequest, load_editor
from careedit.editor import MAX_BATCH, Editor
from careedit.errors import ExpertError, ImageError, InputError, UnknownExpertError
from careedit.images import decode_image, grow, refine_mask

LONG = "remove the red circle that stands in front of the blue box on the left side of the green meadow " * 2


@pytest.fixture
def editor(open_editor):
    return open_editor("merged")


def difference(first: Image.Image, second: Image.Image) -> int:
    """The largest difference between two pictures, in grey levels."""
    return int(np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).max())


def test_one_request_gives_one_picture_and_its_trace(editor, draw_picture):
    source = draw_picture((96, 64))
    result = editor.edit(EditRequest(image=source, instruction=" remove the red circle ", seed=3))

    (image,), (trace,) = result.images, result.traces
    assert (image.size, image.mode) == ((96, 64), "RGB")
    assert result.image is image and result.trace is trace
    assert (trace.seed, trace.steps, trace.nfe, trace.panel) == (3, 2, 2, (64, 64))
    assert trace.instruction == "remove the red circle"
    assert trace.prompt.endswith(" but remove the red circle")
    assert trace.expert_set == "untrained" and trace.expert_set_sha256 == editor.expert_set.sha256
    assert trace.routing.weights == {"erase": 1.0} and "'remove'" in trace.routing.reason
    assert trace.seconds.keys() == {"route", "prepare", "denoise", "finish"}
    assert trace.degradations == ()
    assert difference(image, source) > 8, "the random weights of this base leave no picture as it was"


def test_the_decision_can_be_had_without_an_edit(editor, draw_picture):
    request = EditRequest(image=draw_picture(), instruction="remove the red circle", seed=3)
    assert editor.route(request) == editor.edit(request).trace.routing


def test_a_list_gives_a_result_per_request_in_their_order(editor, draw_picture):
    requests = [
        EditRequest(image=draw_picture((64, 64)), instruction="remove the circle", seed=1),
        EditRequest(image=draw_picture((80, 60)), instruction="add a star", seed=2, n=2, references=draw_picture()),
        EditRequest(image=draw_picture((30, 64)), instruction="make it a sketch", seed=9, steps=3),
    ]
    results = editor.edit(requests)

    assert [[image.size for image in result.images] for result in results] == [
        [(64, 64)],
        [(80, 60), (80, 60)],
        [(30, 64)],
    ]
    assert [[trace.seed for trace in result.traces] for result in results] == [[1], [2, 3], [9]]
    assert [result.trace.steps for result in results] == [2, 2, 3]
    assert [result.trace.instruction for result in results] == [request.instruction for request in requests]
    assert editor.edit([]) == []


def test_more_images_than_a_batch_holds_are_made_in_several(editor, draw_picture):
    result = editor.edit(EditRequest(image=draw_picture(), instruction="remove it", seed=5, steps=1, n=MAX_BATCH + 1))

    assert [trace.seed for trace in result.traces] == list(range(5, 6 + MAX_BATCH))
    assert [len(trace.batch) for trace in result.traces] == [MAX_BATCH] * MAX_BATCH + [1]
    assert [trace.slot for trace in result.traces] == [*range(MAX_BATCH), 0]
    assert len({image.tobytes() for image in result.images}) == MAX_BATCH + 1


@pytest.mark.parametrize("application", ["merged", "shared"])
def test_a_seeds_image_does_not_depend_on_the_batch_around_it(application, open_editor, draw_picture, draw_mask):
    editor = open_editor(application)
    requests = [
        EditRequest(image=draw_picture(seed=1), instruction="remove the circle", seed=11, steps=3),
        EditRequest(image=draw_picture(seed=2), instruction="add a star", seed=12, n=2, mask=draw_mask()),
        EditRequest(image=draw_picture(seed=3), instruction="x", seed=13, steps=4, expert={"style": 0.6, "erase": 0.4}),
        EditRequest(image=draw_picture(seed=4), instruction="x", seed=14, expert="base"),
    ]
    together = editor.edit(requests)

    for request, result in zip(requests, together, strict=True):
        for i, image in enumerate(result.images):
            fields = {name: getattr(request, name) for name in ("image", "instruction", "mask", "steps", "expert")}
            alone = editor.edit(EditRequest(**fields, seed=request.seed + i))
            assert difference(alone.image, image) <= 1


def test_merged_and_shared_application_make_the_same_image(open_editor, draw_picture):
    request = EditRequest(image=draw_picture(), instruction="x", seed=4, expert={"style": 0.5, "identity": 0.5})
    assert difference(open_editor("merged").edit(request).image, open_editor("shared").edit(request).image) <= 1


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 1), (640, 480), (100, 37), (63, 65), (64, 64), (700, 1100)])
def test_a_picture_of_any_size_is_answered_at_its_size(size, editor, draw_picture):
    request = EditRequest(image=draw_picture((64, 64)).resize(size), instruction="remove the circle", steps=1, seed=0)
    assert editor.edit(request).image.size == size


def test_a_picture_that_is_much_too_long_is_refused():
    with pytest.raises(ImageError, match="at most 16 times the shorter"):
        EditRequest(image=Image.new("RGB", (17, 1)), instruction="remove the circle")


@pytest.mark.parametrize("size", [(64, 64), (100, 37), (640, 540)])
@pytest.mark.parametrize("expert", ["auto", {"erase": 0.5, "style": 0.5}])
def test_pixels_outside_the_mask_are_the_sources_own(size, expert, editor, draw_picture, draw_mask):
    source, mask = draw_picture(size), draw_mask(size)
    result = editor.edit(EditRequest(image=source, instruction="remove the circle", mask=mask, seed=1, expert=expert))

    changed = (np.asarray(result.image) != np.asarray(source)).any(axis=2)
    marked = np.asarray(mask) == 255
    assert not changed[~marked].any()
    assert changed[marked].mean() > 0.9


def test_a_refined_mask_is_what_bounds_the_edit(editor, draw_picture, draw_mask):
    source, mask = draw_picture((128, 128)), draw_mask((128, 128))
    fields = {"image": source, "instruction": "remove the circle", "mask": mask, "seed": 1}
    plain = editor.edit(EditRequest(**fields))
    refined = editor.edit(EditRequest(**fields, refine_mask=True))

    inside = np.asarray(grow(refine_mask(source, mask), 2)) == 255
    changed = (np.asarray(refined.image) != np.asarray(source)).any(axis=2)
    assert not changed[~inside].any() and changed.any()
    assert (np.asarray(plain.image) != np.asarray(source)).any(axis=2).sum() > changed.sum()
    assert refined.trace.refine_mask and refined.trace.mask_sha256 == plain.trace.mask_sha256


def test_a_reference_of_any_size_is_looked_at(editor, draw_picture):
    fields = {"image": draw_picture((70, 64)), "instruction": "make the box look like this", "seed": 6}
    without = editor.edit(EditRequest(**fields))
    with_one, with_another = (
        editor.edit(EditRequest(**fields, references=draw_picture((30, 200), seed=seed), expert="base")).image
        for seed in (1, 5)
    )

    assert difference(with_one, with_another) > 8
    assert editor.route(EditRequest(**fields, references=[draw_picture()])).weights == {"reference": 1.0}
    assert without.trace.reference_sha256 == ()
    assert with_one.size == (70, 64)


def test_an_unknown_expert_is_named_with_the_known_ones_before_anything_is_edited(editor, draw_picture):
    done = []
    good = EditRequest(image=draw_picture(), instruction="remove the circle")
    for expert in ("magic", {"erase": 0.5, "magic": 0.5}):
        bad = EditRequest(image=draw_picture(), instruction="remove the circle", expert=expert)
        with pytest.raises(UnknownExpertError, match=r"'magic'.*erase, compose, style, identity, reference"):
            editor.edit([good, bad], on_step=lambda *counts: done.append(counts))
    assert done == []


def test_a_mapping_of_one_expert_is_that_expert_and_base_is_none(editor, draw_picture):
    def image(expert):
        return editor.edit(EditRequest(image=draw_picture(), instruction="x", seed=2, expert=expert)).image.tobytes()

    assert image("style") == image({"style": 1.0})
    assert image("base") == image({"base": 1.0})
    assert len({image("style"), image("base"), image("erase"), image({"style": 0.5, "erase": 0.5})}) == 4


@pytest.mark.parametrize(
    ("expert", "masked", "nfe"),
    [
        ("style", False, 2),
        ("style", True, 2),
        ({"style": 0.5, "erase": 0.5}, False, 4),
        ({"style": 0.5, "erase": 0.5}, True, 6),
    ],
)
def test_evaluations_are_counted_per_expert_and_step(expert, masked, nfe, editor, draw_picture, draw_mask):
    mask = draw_mask() if masked else None
    result = editor.edit(EditRequest(image=draw_picture(), instruction="x", seed=2, expert=expert, mask=mask))
    assert result.trace.nfe == nfe


def test_a_set_may_start_its_edits_from_less_noise(editor, draw_picture):
    spec = editor.expert_set.spec
    quiet = Editor(
        replace(
            editor.expert_set,
            spec=spec.model_copy(update={"defaults": spec.defaults.model_copy(update={"noise_scale": 0.1})}),
        )
    )
    requests = [EditRequest(image=draw_picture(), instruction="x", seed=seed, expert="style") for seed in (2, 3)]
    apart, near = ([result.image for result in one.edit(requests)] for one in (editor, quiet))

    assert difference(*near) < difference(*apart)
    replayed = quiet.replay(quiet.edit(requests[0]).trace, image=requests[0].image)
    assert difference(replayed.image, near[0]) == 0


def test_the_router_mixes_experts_where_top_k_allows(editor, draw_picture):
    fields = {"image": draw_picture(), "instruction": "turn it into a watercolour and remove the star", "seed": 2}
    one, two = (editor.edit(EditRequest(**fields, top_k=k)) for k in (1, 2))

    assert set(one.trace.routing.weights) == {"erase"}
    assert set(two.trace.routing.weights) == {"erase", "style"}
    assert sum(two.trace.routing.weights.values()) == pytest.approx(1)
    assert difference(one.image, two.image) > 1


def test_a_cut_instruction_is_a_degradation_and_a_foreign_one_is_accepted(editor, draw_picture):
    results = editor.edit(
        [
            EditRequest(image=draw_picture(), instruction=text, steps=1)
            for text in (LONG, "移除红色的圆", "убери круг 🔴")
        ]
    )
    assert [len(result.trace.degradations) for result in results] == [1, 0, 0]
    assert results[0].trace.degradations[0].startswith("instruction: longer than the base reads")


def test_a_seed_that_was_not_given_is_drawn_and_told(editor, draw_picture):
    request = EditRequest(image=draw_picture(), instruction="remove the circle", steps=1)
    first, second = editor.edit([request, request])
    again = editor.edit(
        EditRequest(image=draw_picture(), instruction="remove the circle", steps=1, seed=first.trace.seed)
    )

    assert first.trace.seed != second.trace.seed
    assert difference(again.image, first.image) <= 1


def test_seeds_that_would_run_over_are_refused(editor, draw_picture):
    with pytest.raises(InputError, match="leaves no room for the edit's 2 noises"):
        editor.edit(EditRequest(image=draw_picture(), instruction="x", seed=2**63 - 1, n=2))
    assert editor.edit(EditRequest(image=draw_picture(), instruction="x", seed=2**63 - 1, steps=1)).trace.nfe == 1


def test_guidance_is_refused_where_the_base_takes_none(editor, draw_picture):
    with pytest.raises(InputError, match="takes none"):
        editor.edit(EditRequest(image=draw_picture(), instruction="x", guidance=3.5))


def test_a_bad_request_at_the_end_of_a_long_list_is_refused_before_the_first_is_edited(editor, draw_picture):
    steps = []
    requests = [EditRequest(image=draw_picture(), instruction="remove the circle", steps=1, n=9)]
    requests.append(EditRequest(image=draw_picture(), instruction="remove the circle", steps=1, guidance=30))
    with pytest.raises(InputError, match="guidance"):
        editor.edit(requests, on_step=lambda *done: steps.append(done))
    assert steps == []


def test_steps_are_reported_over_the_whole_call(editor, draw_picture):
    counts = []
    editor.edit(
        [
            EditRequest(image=draw_picture(), instruction="x", steps=2, n=2),
            EditRequest(image=draw_picture(), instruction="x", steps=3),
            EditRequest(image=draw_picture(), instruction="x", steps=1, references=draw_picture()),
        ],
        on_step=lambda done, total: counts.append((done, total)),
    )
    assert counts == [(3, 8), (6, 8), (7, 8), (8, 8)]


def test_a_call_abandoned_between_two_steps_leaves_the_editor_usable(open_editor, draw_picture):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for application in ("merged", "shared"):
        editor = open_editor(application)
        request = EditRequest(image=draw_picture(), instruction="remove the circle", seed=8)
        before = editor.edit(request).image.tobytes()
        with pytest.raises(KeyboardInterrupt):
            editor.edit(request.model_copy(update={"expert": "style"}), on_step=stop)
        assert editor.edit(request).image.tobytes() == before


def test_the_same_call_gives_the_same_bits_whatever_was_edited_before(open_editor, draw_picture):
    for application in ("merged", "shared"):
        editor = open_editor(application)
        requests = [
            EditRequest(image=draw_picture(), instruction="x", seed=8, expert=expert)
            for expert in ("erase", "style", "base")
        ]
        first = [result.image.tobytes() for result in editor.edit(requests)]
        for request in reversed(requests):
            editor.edit(request)
        assert [result.image.tobytes() for result in editor.edit(requests)] == first


def test_a_result_is_saved_as_its_suffix_says(editor, draw_picture, tmp_path):
    result = editor.edit(EditRequest(image=draw_picture(), instruction="x", steps=1))
    result.save(tmp_path / "edited.png")
    assert decode_image(tmp_path / "edited.png").tobytes() == result.image.tobytes()
    with pytest.raises(InputError, match="no suffix that names a format"):
        result.save(tmp_path / "edited.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["edited.png"]


def test_a_budget_too_small_for_an_experts_weights_is_said(untrained_set, draw_picture):
    editor = load_editor(str(untrained_set), device="cpu", byte_budget=1000)
    with pytest.raises(ExpertError, match="raise the budget"):
        editor.edit(EditRequest(image=draw_picture(), instruction="remove the circle"))
    assert editor.edit(EditRequest(image=draw_picture(), instruction="x", steps=1, expert="base")).trace.nfe == 1


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(device, untrained_set):
    with pytest.raises(InputError, match=f"This machine has no device '{device}'"):
        load_editor(str(untrained_set), device=device)


def test_another_base_under_the_same_set_is_noticed_before_its_weights_are_read(untrained_set, tmp_path):
    import shutil

    folder = shutil.copytree(untrained_set, tmp_path / "set")
    config = folder / "base/transformer/config.json"
    config.write_text(config.read_text().replace('"num_single_layers": 4', '"num_single_layers": 3'))
    for weights in itertools.chain(folder.rglob("base/**/*.safetensors")):
        weights.unlink()
    with pytest.raises(ExpertError, match="has the fingerprint"):
        load_editor(str(folder), device="cpu")
