"""An expert set on a base of each family: routed edits, replays, the early filter and masks, through `Editor`."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageDraw

import small_bases
from careedit.editor import Editor, load_editor
from careedit.errors import InputError
from careedit.experts import Defaults, PanelSpec
from careedit.records import EarlyFilter, EditRequest, StepCache
from judging import ByPlace
from random_sets import make_random_set

BUILDERS = {
    "kontext": small_bases.kontext,
    "klein": small_bases.klein,
    "klein-base": partial(small_bases.klein, distilled=False),
    "qwen": small_bases.qwen,
    "longcat": small_bases.longcat,
}


@pytest.fixture(scope="module", params=list(BUILDERS))
def editor(request, tmp_path_factory):
    pipe = BUILDERS[request.param]()
    folder = make_random_set(
        tmp_path_factory.mktemp("sets") / request.param,
        pipe,
        {"erase": ("remove",), "style": ("style",)},
        length=small_bases.TEXT_LENGTH if hasattr(pipe, "text_encoder_2") else 512,
        panel=PanelSpec(size=96, fit="bucket", multiple=32),
        defaults=Defaults(steps=3),
    )
    return load_editor(str(folder), application="shared", scorer=ByPlace())


def picture(size=(90, 60), shade=120):
    image = Image.new("RGB", size, (shade, 255 - shade, 90))
    ImageDraw.Draw(image).ellipse((8, 12, 40, 44), fill=(200, shade, 40))
    return image


def request(instruction="remove the red circle", **fields):
    return EditRequest(image=fields.pop("image", picture()), instruction=instruction, seed=5, **fields)


def guided(editor: Editor, **fields):
    """A request with a guidance scale, where the base takes one."""
    return request(**fields, **({"guidance": 3.0} if editor.expert_set.takes_guidance else {}))


def test_an_edit_has_the_size_of_its_source_and_the_panel_is_a_bucket(editor):
    result = editor.edit(request())
    assert result.image.size == (90, 60)
    assert result.trace.panel == (128, 64)
    assert dict(result.trace.routing.weights) == {"erase": 1.0}


def test_edits_by_several_experts_in_one_batch_replay_bit_for_bit(editor):
    requests = [
        guided(editor),
        guided(editor, instruction="make the whole picture look like a pencil sketch, please", steps=4),
        request("remove it", expert={"erase": 0.5, "style": 0.5}),
    ]
    results = editor.edit(requests)
    assert {len(result.trace.batch) for result in results} == {3}
    assert len({result.image.tobytes() for result in results}) == 3
    for result in results:
        again = editor.replay(result.trace, image=picture())
        assert again.image.tobytes() == result.image.tobytes()


def test_outside_the_mask_the_pixels_are_the_sources(editor):
    mask = Image.new("L", (90, 60))
    mask.paste(255, (0, 0, 45, 60))
    result = editor.edit(guided(editor, mask=mask))
    before, after = np.asarray(picture()), np.asarray(result.image)
    assert np.array_equal(before[:, 46:], after[:, 46:])
    assert not np.array_equal(before[:, :44], after[:, :44])


def test_the_judge_chooses_between_previews_and_the_choice_replays(editor):
    result = editor.edit(guided(editor, early_filter=EarlyFilter(strategy="continue", candidates=2, preview_steps=1)))
    assert result.trace.filter.chosen == 1
    assert editor.replay(result.trace, image=picture()).image.tobytes() == result.image.tobytes()


def test_a_step_cache_saves_evaluations_and_replays(editor):
    whole, cached = (editor.edit(guided(editor, steps=8, step_cache=cache)) for cache in (None, StepCache()))
    assert cached.trace.nfe < whole.trace.nfe
    assert cached.trace.step_cache == StepCache()
    assert editor.replay(cached.trace, image=picture()).image.tobytes() == cached.image.tobytes()


def test_references_up_to_the_familys_limit_are_taken(editor):
    most = editor.expert_set.references
    references = tuple(picture((40 + 30 * index, 50), 30 * index) for index in range(most + 1))
    if most:
        one, other = (editor.edit(request(references=chosen)) for chosen in (references[:most], references[:1] * most))
        assert one.image.tobytes() != other.image.tobytes()
        assert (
            editor.replay(one.trace, image=picture(), references=references[:most]).image.tobytes()
            == one.image.tobytes()
        )
    with pytest.raises(InputError, match="references were given, but the base"):
        editor.edit(request(references=references))
