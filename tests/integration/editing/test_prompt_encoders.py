"""Text encoders that are loaded apart from transformer and VAE give the edits of the whole base."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import small_bases
from careedit.editing import EditJob, EncodingCache, Engine, load_base, load_prompt_encoder
from careedit.errors import CareEditError
from careedit.experts.applier import NoExperts
from careedit_tiny.models.family import build_pipeline

BUILDERS = {
    "fill": partial(build_pipeline, ["remove the red circle"], seed=0),
    "kontext": small_bases.kontext,
    "klein base": partial(small_bases.klein, distilled=False),
    "qwen 2511": small_bases.qwen,
    "longcat": small_bases.longcat,
}


@pytest.fixture(scope="module", params=list(BUILDERS))
def halves(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, the same without the weights of its text encoders, and the same without all other weights."""
    pipe: Any = BUILDERS[request.param]()
    folder = tmp_path_factory.mktemp("bases")
    found = {part: folder / part for part in ("whole", "edits", "reads")}
    for path in found.values():
        pipe.save_pretrained(path)
    for name in ("text_encoder", "text_encoder_2"):
        shutil.rmtree(found["edits"] / name, ignore_errors=True)
    for name in ("transformer", "vae"):
        shutil.rmtree(found["reads"] / name)
    return found


@pytest.fixture(autouse=True)
def _small_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    small_bases.use_small_areas(monkeypatch)


def test_an_edit_with_texts_from_elsewhere_equals_the_whole_base_to_the_bit(halves, make_job):
    load = partial(load_base, max_sequence_length=small_bases.TEXT_LENGTH)
    whole, edits = load(halves["whole"]), load(halves["edits"], text_encoders=False)
    reader = load_prompt_encoder(halves["reads"], max_sequence_length=small_bases.TEXT_LENGTH)
    job: EditJob = make_job(steps=2, instruction="remove the red circle " * 9)
    texts = [reader.encode_prompts([one])[0] for one in edits.prompts(job)]

    states = []
    for base, own in ((whole, None), (edits, texts)):
        engine = Engine(base, NoExperts(base.transformer))
        states.append(engine.prepare(job, own))
        engine.advance(states[-1:])

    assert torch.equal(states[0].latents, states[1].latents)
    assert states[0].encoded.truncated and states[1].encoded.truncated
    with pytest.raises(CareEditError, match="loaded without its text encoders"):
        edits.encode(job, EncodingCache())


def test_a_batch_of_prompts_gives_each_the_numbers_that_it_has_alone(halves, make_job):
    base = load_base(halves["edits"], text_encoders=False, max_sequence_length=small_bases.TEXT_LENGTH)
    reader = load_prompt_encoder(halves["reads"], max_sequence_length=small_bases.TEXT_LENGTH)
    texts = ("add a star", "remove the red circle on the left", "add a moon")  # two of one length
    prompts = [one for index, text in enumerate(texts) for one in base.prompts(make_job(90 + index, instruction=text))]

    for prompt, together in zip(prompts, reader.encode_prompts(prompts), strict=True):
        (alone,) = reader.encode_prompts([prompt])
        assert len(alone) == len(together)
        for one, other in zip(alone, together, strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
