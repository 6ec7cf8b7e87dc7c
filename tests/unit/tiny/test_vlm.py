"""The tiny judge's architecture, untrained."""

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from careedit.scoring import questions_for
from careedit.scoring.scorer import ScoreRequest
from careedit.scoring.vlm import TransformersAsker, load_asker
from careedit_tiny.models.judge import build_judge, save_judge

CORPUS = ["remove the red circle", "add a small blue star at the top left"]


@pytest.fixture(scope="module")
def judge():
    return build_judge(CORPUS)


def test_it_is_qwens_own_class_and_small(judge):
    model, processor = judge
    assert isinstance(model, Qwen2_5_VLForConditionalGeneration) and isinstance(processor, Qwen2_5_VLProcessor)
    assert sum(p.numel() for p in model.parameters()) < 3.2e6


def test_words_of_the_corpus_and_the_questions_are_one_token_each(judge):
    tokenize = judge[1].tokenizer.tokenize
    assert len(tokenize('remove the red circle". Answer yes or no.')) == 11
    assert tokenize("xyzzy")  # any other word is spelt out


def test_a_picture_of_the_tiny_world_is_sixteen_tokens(judge, draw_picture):
    asker = TransformersAsker(*judge, name="untrained", revision="0")
    request = ScoreRequest(source=draw_picture(), edited=draw_picture(seed=1), instruction=CORPUS[0])
    inputs = asker.encode([question for _, question in questions_for(request)])
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 8]] * 6
    assert int((inputs["mm_token_type_ids"] == 1).sum()) == 6 * 16


def test_the_seed_decides_the_weights(judge):
    def first(seed):
        return next(build_judge(CORPUS, seed=seed)[0].parameters())

    assert torch.equal(first(0), next(judge[0].parameters()))
    assert not torch.equal(first(1), first(0))


def test_what_is_saved_is_loaded(judge, tmp_path):
    model, processor = judge
    save_judge(model, processor, tmp_path)
    loaded = load_asker(tmp_path, device="cpu")
    state = loaded.network.state_dict()
    assert all(torch.allclose(state[name], value, atol=1e-3) for name, value in model.state_dict().items())
    assert loaded.processor.chat_template == processor.chat_template
    assert (tmp_path / "model.safetensors").stat().st_size < 6.5e6
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
