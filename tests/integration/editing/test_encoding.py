"""Encoding: once per content, cut as the pipeline cuts, refused in sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from PIL import Image

from careedit.editing import EditState, EncodingCache, Engine
from careedit.editing.families.fill import DIPTYCH, TRIPTYCH
from careedit.editing.latents import unpack
from careedit.errors import ImageError, InputError
from careedit.experts.applier import NoExperts
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH


@pytest.fixture
def calls(base, monkeypatch) -> Counter[str]:
    """How often each encoder ran."""
    counter: Counter[str] = Counter()

    def counted(name, function):
        def call(*args, **kwargs):
            counter[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(base.vae, "encode", counted("vae", base.vae.encode))
    monkeypatch.setattr(base.text_encoder, "forward", counted("clip", base.text_encoder.forward))
    monkeypatch.setattr(base.text_encoder_2, "forward", counted("t5", base.text_encoder_2.forward))
    return counter


def test_many_seeds_of_one_edit_are_encoded_once(engine, make_job, calls):
    states = [engine.prepare(make_job(seed=seed)) for seed in range(5)]

    assert calls == {"vae": 1, "clip": 1, "t5": 1}
    assert len({state.latents.sum().item() for state in states}) == 5


def test_the_noise_scale_scales_what_denoising_starts_from_and_nothing_else(engine, make_job):
    whole, half = (engine.prepare(make_job(seed=3, noise_scale=scale)) for scale in (1.0, 0.5))

    assert torch.equal(half.latents, 0.5 * whole.latents)
    assert torch.equal(half.condition, whole.condition)


def test_an_edit_may_start_from_its_source_with_noise_upon_it(engine, make_job):
    noise, bridged = (engine.prepare(make_job(seed=3, start=start, noise_scale=0.25)) for start in ("noise", "source"))

    assert torch.equal(bridged.condition, noise.condition)
    rows, columns = bridged.encoded.grid
    left, right = unpack(bridged.latents - noise.latents, 2 * rows, 2 * columns).chunk(2, dim=3)
    seam = 3  # latents there depend on the other panel
    difference = (left - right)[..., seam:-seam].square().mean() / left.var()
    assert difference < 0.05


def test_another_turn_on_the_same_picture_encodes_only_the_new_text(engine, make_job, calls):
    engine.prepare(make_job(instruction="remove the red circle"))
    engine.prepare(make_job(instruction="add a small blue star"))

    assert calls == {"vae": 1, "clip": 2, "t5": 2}


@pytest.mark.parametrize("change", [{"masked": True}, {"reference": True}, {"size": (96, 72)}, {"shade": 121}])
def test_another_picture_mask_or_reference_is_encoded_anew(engine, make_job, calls, change):
    engine.prepare(make_job())
    engine.prepare(make_job(**change))

    assert calls["vae"] == 2


def test_a_cached_encoding_gives_the_same_edit_as_a_fresh_one(base, make_job):
    uncached = Engine(base, NoExperts(base.transformer), cache=EncodingCache(max_bytes=0))
    cached = Engine(base, NoExperts(base.transformer))
    cached.prepare(make_job(seed=3))

    fresh, again = uncached.prepare(make_job(seed=4)), cached.prepare(make_job(seed=4))

    assert cached.cache.hits == 2 and len(uncached.cache) == 0
    assert torch.equal(fresh.latents, again.latents) and torch.equal(fresh.condition, again.condition)
    for name, value in fresh.encoded.texts[0].items():
        assert torch.equal(value, again.encoded.texts[0][name])


def words_of(state: EditState) -> torch.Tensor:
    return state.encoded.texts[0]["encoder_hidden_states"]


@pytest.mark.parametrize(("words", "cut"), [(1, False), (60, True)])
def test_a_text_that_was_cut_says_so(engine, make_job, words, cut):
    state = engine.prepare(make_job(instruction="remove " + "circle " * words))

    assert state.encoded.truncated is cut
    assert words_of(state).shape[1] == MAX_SEQUENCE_LENGTH


def test_the_end_of_a_cut_text_does_not_matter_and_its_start_does(engine, make_job):
    long = "remove the red circle " * 20
    states = [engine.prepare(make_job(instruction=text)) for text in (long, long + "star", "add " + long)]

    assert torch.equal(words_of(states[0]), words_of(states[1]))
    assert not torch.equal(words_of(states[0]), words_of(states[2]))


def test_a_long_text_is_reported_by_the_flag_and_not_by_a_log(engine, make_job, caplog):
    engine.prepare(make_job(instruction="remove the red circle " * 20))

    assert caplog.records == []


def test_with_a_mask_only_the_masked_region_is_free(engine, make_job):
    state, whole = engine.prepare(make_job(masked=True)), engine.prepare(make_job())

    # 31 x 32 pixels of the target panel, whose tokens are the right half of every row.
    free = state.condition[..., 32:].sum(dim=-1).view(8, 16)
    assert whole.condition[..., 32:].sum() == 64 * 64
    assert free.sum() == 31 * 32 and free[:, :8].sum() == 0


def test_guidance_is_refused_by_a_base_that_takes_none(engine, make_job):
    with pytest.raises(InputError, match=r"guidance is 3\.5, but this base"):
        engine.prepare(make_job(guidance=3.5))


def test_a_panel_that_is_not_a_whole_number_of_tokens_is_refused(engine, make_job):
    with pytest.raises(ImageError, match="60x64; its sides must be multiples of 8"):
        engine.prepare(make_job(size=(60, 64)))


def test_a_reference_makes_the_canvas_a_triptych(engine, make_job):
    plain, referring = make_job(), make_job(reference=True)

    assert engine.base.prompt(plain) == f"{DIPTYCH} remove the red circle"
    assert engine.base.prompt(referring) == f"{TRIPTYCH} remove the red circle"
    assert [engine.prepare(job).encoded.grid for job in (plain, referring)] == [(8, 16), (8, 24)]


@pytest.mark.parametrize(
    ("sizes", "says"), [([(64, 64), (64, 64)], "takes one reference"), ([(32, 32)], "fitted to the source's panel")]
)
def test_references_that_do_not_fit_the_canvas_are_refused(engine, make_job, sizes, says):
    references = tuple(Image.new("RGB", size) for size in sizes)
    with pytest.raises(InputError, match=says):
        engine.check(replace(make_job(), references=references))
