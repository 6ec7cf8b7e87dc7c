"""EditReward: a checkpoint in the published layout gives the scores of a plain forward pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from careedit.cli.main import main
from careedit.errors import InputError
from careedit.files import png_bytes
from careedit_eval.metrics import load_metric
from careedit_eval.metrics.reward import _load
from careedit_eval.suite import Part
from published import IMAGE, picture
from scripted_eval import suite
from small_judges import reward_heads, reward_prompts, small_base

NAMES = ("editreward", "editreward_following", "editreward_quality")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A folder with base, checkpoint and prompts; the model that its tensors are from, and the processor."""
    return reward_folder(tmp_path_factory.mktemp("reward"), "qwen2_5_vl")


def reward_folder(folder: Path, kind: str) -> tuple[Path, Any, Any]:
    model, processor = small_base(folder / "base", kind)
    processor.tokenizer.add_special_tokens({"extra_special_tokens": ["<|Reward|>"]})
    model.resize_token_embeddings(len(processor.tokenizer))
    model.rm_heads = reward_heads()
    (folder / "EditReward").mkdir()
    save_file({name: one.clone() for name, one in model.state_dict().items()}, folder / "EditReward/model.safetensors")
    reward_prompts(folder / "dataset")
    return folder, model, processor


def options(folder: Path, **changes: str) -> dict[str, str]:
    places = {"weights": "EditReward", "base": "base", "prompts": "dataset"}
    return {name: str(folder / place) for name, place in places.items()} | {"device": "cpu"} | changes


def item_of(make_item: Any, draw_picture: Any, **fields: Any) -> Any:
    return make_item(draw_picture((96, 64)), draw_picture((80, 120), seed=3), **fields)


def plain_rewards(
    model: Any, processor: Any, source: Image.Image, edited: Image.Image, words: str
) -> list[torch.Tensor]:
    """As the published class: image features put in place of their tokens, all tokens numbered in sequence, one head each."""
    found = []
    images = [source.resize((560, 392), Image.BICUBIC), edited.resize((392, 560), Image.BICUBIC)]
    for head, question in zip(model.rm_heads.values(), ("Rate how well it follows", "Rate the look of"), strict=True):
        text = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            + "<|vision_start|><|image_pad|><|vision_end|>" * 2
            + f"\n{question}: {words}\n\nRating: <|Reward|>\n\nEND\n<|im_end|>\n<|im_start|>assistant\n"
        )
        batch = processor(text=[text], images=images, return_tensors="pt")
        ids = batch["input_ids"]
        embedded = model.get_input_embeddings()(ids)
        seen = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"]).pooler_output
        embedded = embedded.masked_scatter((ids == model.config.image_token_id).unsqueeze(-1), torch.cat(tuple(seen)))
        places = torch.arange(ids.shape[1]).view(1, 1, -1).expand(3, 1, -1)
        states = model.model.language_model(inputs_embeds=embedded, position_ids=places).last_hidden_state
        found.append(head.eval()(states)[ids == processor.tokenizer.convert_tokens_to_ids("<|Reward|>")].view(1, -1)[0])
    return found


def test_the_scores_are_those_of_a_plain_forward_pass(made, make_item, draw_picture) -> None:
    folder, model, processor = made
    item = item_of(make_item, draw_picture, instruction="make the sky red")
    metric = load_metric("editreward", **options(folder))
    (found,) = metric.score([item])
    with torch.inference_mode():
        heads = plain_rewards(model, processor, item.pictures.source, item.edited, "make the sky red")
    wanted = torch.stack(heads)[:, 0].tolist()
    assert [found.values[name] for name in NAMES[1:]] == pytest.approx(wanted, abs=1e-5)
    assert found.values["editreward"] == pytest.approx(sum(wanted) / 2, abs=1e-5)
    assert [answer.about for answer in found.answers] == ["following", "quality"]
    assert f"log deviation {heads[0][1].item():.3f}" in found.answers[0].reply


def test_a_checkpoint_with_the_names_of_an_older_release_and_a_pickled_one_give_the_same(
    made, make_item, draw_picture, tmp_path: Path
) -> None:
    folder, _, _ = made
    item = item_of(make_item, draw_picture)
    (first,) = load_metric("editreward", **options(folder)).score([item])
    tensors = load_file(folder / "EditReward/model.safetensors")
    older = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): one
        for name, one in tensors.items()
    }
    save_file(older, tmp_path / "older.safetensors")
    torch.save({"model": tensors}, tmp_path / "model.pth")
    for file in ("older.safetensors", "model.pth"):
        (again,) = load_metric("editreward", **options(folder, weights=str(tmp_path / file))).score([item])
        assert again.values == first.values


def test_a_qwen3_base_numbers_and_resizes_images_itself(tmp_path: Path, make_item, draw_picture) -> None:
    folder, model, processor = reward_folder(tmp_path, "qwen3_vl")
    item = item_of(make_item, draw_picture, instruction="make the sky red")
    (found,) = load_metric("editreward", **options(folder)).score([item])
    text = (
        "<|im_start|>user\n" + "<|vision_start|><|image_pad|><|vision_end|>" * 2
        + "\nRate the look of: make the sky red\n\nRating: <|Reward|>\n\nEND\n<|im_end|>\n<|im_start|>assistant\n"
    )  # fmt: skip
    batch = processor(text=[text], images=[item.pictures.source, item.edited], return_tensors="pt")
    with torch.inference_mode():
        states = model.model(**batch).last_hidden_state
        at = batch["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|Reward|>")
        wanted = model.rm_heads["head_1"].eval()(states[at])[0, 0].item()
    assert found.values["editreward_quality"] == pytest.approx(wanted, abs=1e-5)


def test_the_identity_has_weights_base_prompts_and_what_is_sent(made, tmp_path: Path) -> None:
    folder, _, _ = made
    spec = load_metric("editreward", **options(folder)).spec
    assert (spec.backbone, spec.dtype, set(spec.settings)) == (
        "transformers EditReward", "float32", {"base", "prompts", "request"}
    )  # fmt: skip
    other = reward_prompts(tmp_path / "dataset")
    (other / "prompts.py").write_text((other / "prompts.py").read_text().replace("Rate the", "Judge the"))
    assert load_metric("editreward", **options(folder, prompts=str(other))).spec.key != spec.key
    assert load_metric("editreward", **options(folder)).spec.key == spec.key


def test_an_instruction_with_a_control_token_is_an_error_and_a_reference_does_not_apply(
    made, make_item, draw_picture
) -> None:
    metric = load_metric("editreward", **options(made[0]))
    reference = item_of(make_item, draw_picture).sample.source
    found = metric.score(
        [
            item_of(make_item, draw_picture, instruction="add <|Reward|>"),
            item_of(make_item, draw_picture, references=(reference,)),
        ]
    )
    assert "'<|Reward|>', which the judge reads as a control token" in str(found[0].error)
    assert found[1].not_applicable == "sees no reference image"


def change(tensors: dict[str, torch.Tensor], name: str, to: str | None, shape: tuple[int, ...] | None = None) -> None:
    one = tensors.pop(name)
    if to is not None:
        tensors[to] = one if shape is None else torch.zeros(shape)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("rm_heads.head_1.5.bias", None), "no tensor 'rm_heads.head_1.5.bias'"),
        (("rm_heads.head_1.5.bias", "rm_heads.head_2.5.bias"), "head_"),
        (("rm_heads.head_0.3.weight", "rm_heads.head_0.3.weight", (16, 9)), "'rm_heads.head_0.3.weight' of [16, 9], not [16, 1024]"),
        (("lm_head.weight", None), "no tensor 'lm_head.weight'"),
        (("lm_head.weight", "rm_extra.weight"), "rm_extra.weight"),
        (("model.language_model.norm.weight", "model.language_model.norm.weight", (9,)), "norm.weight"),
        (
            ("model.language_model.embed_tokens.weight", "model.language_model.embed_tokens.weight", (9, 32)),
            "embeddings of 9 words, but the tokenizer of its base has",
        ),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_belong_is_refused_by_name(made, tmp_path: Path, changes, words: str) -> None:
    folder, _, _ = made
    tensors = load_file(folder / "EditReward/model.safetensors")
    change(tensors, *changes)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"The checkpoint .* (has|does not fit)") as refused:
        load_metric("editreward", **options(folder, weights=str(tmp_path)))
    assert words in str(refused.value)


def test_a_suite_with_such_weights_is_refused_before_the_first_edit(made, tmp_path: Path, monkeypatch, capsys) -> None:
    folder, _, _ = made
    monkeypatch.chdir(tmp_path)
    tensors = load_file(folder / "EditReward/model.safetensors")
    change(tensors, "rm_heads.head_1.0.bias", "rm_heads.head_1.0.extra")
    save_file(tensors, tmp_path / "model.safetensors")
    metric = Part(name="editreward", options=options(folder, weights=str(tmp_path)))
    wanted = suite(metrics=(metric,), primary="editreward")
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(json.loads(wanted.model_dump_json())))
    for command in (["run", "suite.yaml"], ["judge-check", "suite.yaml", "--pairs", str(pair_file(tmp_path))]):
        assert main(["eval", *command]) == 2
        assert "no tensor 'rm_heads.head_1.0.bias'" in capsys.readouterr().err
    good = wanted.model_copy(update={"metrics": (metric.model_copy(update={"options": options(folder)}),)})
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(json.loads(good.model_dump_json())))
    assert main(["eval", "judge-check", "suite.yaml", "--pairs", "pairs.parquet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"]["name"] == "editreward" and found["figures"]["retest"]["value"] == 1.0


def pair_file(folder: Path) -> Path:
    """Two pairs in the layout of VCReward-Bench."""
    images = [{"bytes": png_bytes(picture(seed)), "path": None} for seed in range(3)]
    columns = {
        "key": ["a", "b"], "instruction": ["make it red", "make it blue"], "task": ["add", "add"], "winner": ["Image A", "Tie"],
        "source_image": pa.array([images[0]] * 2, type=IMAGE),
        "edited_images": pa.array([images[1:], images[:2]], type=pa.list_(IMAGE)),
    }  # fmt: skip
    parquet.write_table(pa.table(columns), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def test_what_is_not_the_published_layout_is_refused(made, tmp_path: Path) -> None:
    folder, _, _ = made
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    torch.save([1], tmp_path / "model.pth")
    (tmp_path / "some").mkdir()
    (tmp_path / "prompts.py").write_text('INSTRUCTION_EDIT_FOLLOWING = "{text_prompt}"')
    (tmp_path / "data_collator_qwen_edit.py").write_text('prompt_with_special_token = "no token"')
    for changes, words in (
        ({"weights": tmp_path}, "cannot be read"),
        ({"weights": tmp_path / "model.pth"}, "holds no tensors by name"),
        ({"weights": tmp_path / "some"}, "has no model.safetensors and no model.pth"),
        ({"prompts": tmp_path / "some"}, "prompts.py' cannot be read"),
        ({"prompts": tmp_path}, "has no prompt 'INSTRUCTION_EDIT_QUALITY'"),
        ({"base": tmp_path}, "has no processor that can be loaded"),
    ):
        with pytest.raises(InputError) as refused:
            load_metric("editreward", **options(folder, **{name: str(path) for name, path in changes.items()}))
        assert words in str(refused.value)
    _load.cache_clear()
