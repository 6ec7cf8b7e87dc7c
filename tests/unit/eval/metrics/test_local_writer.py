"""Judges that write and are run here: EditScore and PVC-Judge as LoRAs in peft's layout, equal to peft's own merge."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from careedit.errors import InputError
from careedit_eval.errors import MetricError
from careedit_eval.metrics import load_metric
from careedit_eval.metrics.local_writer import local_writer
from careedit_eval.metrics.marking import RubricMetric
from careedit_eval.metrics.options import LocalJudge
from careedit_eval.metrics.preferred import PairPrompt, WrittenPreference, read_winner
from careedit_eval.metrics.rubric import load_rubric
from small_judges import lora_of, small_base

CLASSES = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}
SOURCE, EDIT = Image.radial_gradient("L").convert("RGB"), Image.linear_gradient("L").convert("RGB")
QUESTION = "Rate how well it follows: make the sky red"


def judge_folder(folder: Path, kind: str) -> tuple[str, Path, Any]:
    """The model type, a folder with a base and two spellings of one adapter, and the base's processor."""
    model, processor = small_base(folder / "base", kind)
    lora_of(model, folder / "adapter")
    lora_of(model, folder / "older", named_as="older")
    return kind, folder, processor


@pytest.fixture(scope="module", params=list(CLASSES))
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """A judge of each class."""
    return judge_folder(tmp_path_factory.mktemp("judge"), request.param)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """One judge, of PVC-Judge's class."""
    return judge_folder(tmp_path_factory.mktemp("judge"), "qwen3_vl")


def local(folder: Path, adapter: str | None = "adapter", **fields: Any) -> LocalJudge:
    chosen = None if adapter is None else str(folder / adapter)
    return LocalJudge(**{"model": str(folder / "base"), "adapter": chosen, "device": "cpu", **fields})


def plain_answer(kind: str, folder: Path, processor: Any, system: str = "", **options: Any) -> str:
    """As the published scripts: peft adds the adapter, transformers fills in the template and generates."""
    base = CLASSES[kind].from_pretrained(folder / "base", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, about the publisher's path and about transformers
        model = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload().eval()
    default = "You are a helpful assistant." if kind == "qwen2_5_vl" else ""
    first = system or default
    text = f"<|im_start|>system\n{first}<|im_end|>\n" if first else ""
    text += f"<|im_start|>user\n{'<|vision_start|><|image_pad|><|vision_end|>' * 2}{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(text=[text], images=[SOURCE, EDIT], return_tensors="pt")
    torch.manual_seed(42)
    made = model.generate(**inputs, max_new_tokens=12, **options)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)[0].strip()


@pytest.mark.parametrize("sampled", [False, True])
def test_an_answer_is_that_of_the_merged_model(each, sampled: bool) -> None:
    kind, folder, processor = each
    options = {"temperature": 0.7, "top_p": 0.9, "top_k": 20} if sampled else {}
    writer = local_writer(local(folder, **options), max_tokens=12)
    answers = writer.write([(SOURCE, EDIT, QUESTION)] * 2)
    assert answers == [plain_answer(kind, folder, processor, do_sample=sampled, **options)] * 2
    assert writer.write([(SOURCE, EDIT, QUESTION)], turn=1) == answers[:1] or sampled
    assert (
        local_writer(local(folder, "older", **options), max_tokens=12).write([(SOURCE, EDIT, QUESTION)]) == answers[:1]
    )
    if not sampled:
        assert local_writer(local(folder, None), max_tokens=12).write([(SOURCE, EDIT, QUESTION)]) != answers[:1]
        worded = local_writer(local(folder), max_tokens=12, system="Be brief.").write([(SOURCE, EDIT, QUESTION)])
        assert worded == [plain_answer(kind, folder, processor, "Be brief.", do_sample=False)]


def test_the_identity_has_model_adapter_sampling_and_what_is_sent(judge, tmp_path: Path) -> None:
    _, folder, _ = judge
    first = local_writer(local(folder)).settings
    assert set(first) == {"dtype", "request", "sampling", "weights", "adapter"}
    for changes in ({"temperature": 0.7}, {"seed": 1}, {"adapter": str(folder / "older")}, {"pixels": (3136, 3136)}):
        assert local_writer(local(folder, **changes)).settings != first
    assert local_writer(local(folder), max_tokens=9).settings != first
    assert local_writer(local(folder), system="Be brief.").settings != first
    assert local_writer(local(folder)).settings == first


def broken(folder: Path, to: Path, **changes: Any) -> str:
    shutil.copytree(folder / "adapter", to)
    file = to / "adapter_model.safetensors"
    tensors = load_file(file)
    for name, new in changes.pop("tensors", {}).items():
        full = next((one for one in tensors if name in one), None)
        one = tensors.pop(full) if full is not None else None
        if new is not None:
            tensors[new if full is None or not isinstance(new, tuple) else full] = (
                torch.zeros(new) if isinstance(new, tuple) else one.clone()
            )
    save_file(tensors, file)
    settings = json.loads((to / "adapter_config.json").read_text())
    (to / "adapter_config.json").write_text(json.dumps(settings | changes))
    return str(to)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"tensors": {"layers.0.self_attn.q_proj.lora_A": None}},
            "has no tensor 'base_model.model.model.language_model.layers.0.",
        ),
        ({"tensors": {"layers.1.self_attn.v_proj.lora_B": "base_model.model.extra"}}, "'base_model.model.extra'"),
        (
            {"tensors": {"layers.0.self_attn.q_proj.lora_A": (4, 9)}},
            "of [4, 9] and [32, 4], which does not fit [32, 32]",
        ),
        ({"target_modules": ["nothing"]}, "has an unexpected tensor"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "has no tensor"),
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "careedit merges LoRAs"),
    ],
)
def test_an_adapter_that_does_not_belong_is_refused_by_name(judge, tmp_path: Path, changes, words: str) -> None:
    _, folder, _ = judge
    with pytest.raises(InputError, match="The adapter") as refused:
        local_writer(local(folder, adapter=broken(folder, tmp_path / "adapter", **changes)))
    assert words in str(refused.value)
    with pytest.raises(InputError, match=r"give a folder with adapter_config\.json"):
        local_writer(local(folder, adapter=str(tmp_path)))


def test_a_message_that_is_too_long_is_an_error_of_that_message_only(judge) -> None:
    _, folder, _ = judge
    long, short = local_writer(local(folder), max_tokens=4).write([("red " * 5000,), ("red",)])
    assert isinstance(long, MetricError) and "but base with adapter reads 4096" in str(long)
    assert isinstance(short, str)


PROMPTS = '''
_context_no_delimit_reasoning_first = """Answer in JSON."""
_prompts_0shot_two_image_edit_rule = """Two images."""
_prompts_0shot_tie_rule_SC = """From scale 0 to 10: <instruction>"""
_prompts_0shot_rule_PQ = """From 0 to 10."""
unused = """10"""
'''


class Scribe:
    """Answers in turn, and keeps what it is asked."""

    backend, model, revision = "scripted", "pen", "1"

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), []

    def write(self, messages, turn=0):
        self.asked += [(turn, message) for message in messages]
        return [self.answers.pop(0) for _ in messages]


@pytest.mark.parametrize(("name", "labelled"), [("editscore", True), ("editscore_qwen3", False)])
def test_editscore_joins_and_rewords_its_prompts_and_halves_its_scale(
    tmp_path: Path, make_item, name, labelled
) -> None:
    (tmp_path / "vie_prompts.py").write_text(PROMPTS)
    judge = Scribe(
        '{"reasoning": "", "score": [20, 15]}', '{"score": [25, 10]}', '{"score": [10, 5]}', '{"score": [20, 20]}'
    )
    metric = RubricMetric(load_rubric(name, str(tmp_path / "vie_prompts.py")), judge, passes=2)
    (found,) = metric.score([make_item(SOURCE, EDIT.resize((64, 64)), instruction="add 10")])
    passes = [((15 / 2.5) * (10 / 2.5)) ** 0.5, ((5 / 2.5) * (20 / 2.5)) ** 0.5]
    assert found.values == pytest.approx(
        {
            "editscore": sum(passes) / 2, "editscore_following": 6.0, "editscore_consistency": 4.0, "editscore_quality": 6.0,
        }
    )  # fmt: skip
    assert [turn for turn, _ in judge.asked] == [0, 0, 1, 1] and len(found.answers) == 4
    words = [[part if isinstance(part, str) else part.size for part in message] for _, message in judge.asked[:2]]
    source = edit = (256, 256)
    first = ["<img1>: ", source, "<img2>: ", edit] if labelled else [source, edit]
    second = ["<img1>: ", edit] if labelled else [edit]
    assert words == [
        [*first, "Answer in JSON.\nTwo images.\nFrom scale 0 to 25: add 10"], [*second, "Answer in JSON.\nFrom 0 to 25."]
    ]  # fmt: skip
    assert metric.spec.settings["passes"] == "2"


def test_editscore_says_which_text_its_file_lacks_and_takes_one_judge(tmp_path: Path) -> None:
    file = tmp_path / "vie_prompts.py"
    file.write_text(PROMPTS.replace("_prompts_0shot_rule_PQ", "other"))
    with pytest.raises(InputError, match=r"needs the text '_prompts_0shot_rule_PQ'; give editscore/vie_prompts\.py of"):
        load_rubric("editscore", str(file))
    file.write_text(PROMPTS)
    with pytest.raises(MetricError, match="has two judges; remove"):
        load_metric("rubric", rubric="editscore", prompts=str(file), endpoint={}, local={"model": "x"})
    with pytest.raises(InputError, match="give the smaller number first"):
        LocalJudge(model="x", pixels=(2000, 1000))


PAIR = """
prompt_id: some/pairwise
version: v1
system_prompt: You compare.
user_prompt:
  - text: |
      Which is better?
      Instruction: {{ instruction }}
      Original:
  - image: {source: input_image}
  - text: |
      Image A:
  - image: {source: edited_images, index: 0}
  - text: |
      Image B:
  - image: {source: edited_images, index: 1}
metadata: {expected_output_format: json}
"""


@pytest.fixture
def pair_prompt(tmp_path: Path) -> Path:
    file = tmp_path / "v1.yaml"
    file.write_text(PAIR)
    return file


def winner(name: str) -> str:
    return f'```json\n{{"winner": "{name}"}}\n```'


@pytest.mark.parametrize(
    ("replies", "win", "consistent"),
    [
        (("Image A", "Image B"), 1.0, 1.0), (("Image B", "image_a"), 0.0, 1.0), (("Image A", "Image A"), 0.5, 0.0),
        (("Tie", "Tie"), 0.5, 1.0), (("Tie", "Image B"), 0.5, 0.0),
    ],
)  # fmt: skip
def test_a_pair_is_asked_about_in_both_orders(pair_prompt: Path, make_item, replies, win, consistent) -> None:
    judge = Scribe(*map(winner, replies))
    metric = WrittenPreference(PairPrompt.read(str(pair_prompt)), judge)
    (found,) = metric.score(
        [make_item(SOURCE, EDIT.resize((64, 64)), rival=SOURCE.resize((32, 32)), instruction="{{ x }}")]
    )
    assert found.values == {"pvc_win": win, "pvc_consistent": consistent}
    assert [answer.reply for answer in found.answers] == list(map(winner, replies))
    shown = [[part if isinstance(part, str) else part.size for part in message] for _, message in judge.asked]
    words = "Which is better?\nInstruction: {{ x }}\nOriginal:"
    assert shown[0] == [words, (256, 256), "\n", "Image A:", (64, 64), "\n", "Image B:", (32, 32)]
    assert shown[1][4] == (32, 32) and shown[1][7] == (64, 64)


@pytest.mark.parametrize(
    "reply", ["", "Image A", winner("C"), f"{winner('Tie')} {winner('Tie')}", '{"winner": 1}', "{"]
)
def test_a_reply_without_one_winner_is_an_error(reply: str, pair_prompt: Path, make_item) -> None:
    with pytest.raises(MetricError, match="names no winner among Image A, Image B and Tie"):
        read_winner(reply)
    metric = WrittenPreference(PairPrompt.read(str(pair_prompt)), Scribe(winner("Tie"), reply))
    (found,) = metric.score([make_item(SOURCE, EDIT, rival=SOURCE)])
    assert "names no winner" in str(found.error) and found.answers[1].reply == reply


def test_pvc_judge_runs_here_with_its_system_message_and_pixels(judge, pair_prompt: Path, make_item) -> None:
    _, folder, _ = judge
    chosen = local(folder, pixels=(28 * 28 * 9, 28 * 28 * 16)).model_dump()
    metric = load_metric("pvc", prompts=str(pair_prompt), local=chosen)
    assert metric.spec.backbone == "transformers base with adapter" and metric.spec.dtype == "float32"
    served = load_metric(
        "pvc", prompts=str(pair_prompt), endpoint={"base_url": "http://localhost:1/v1", "model": "PVC-Judge"}
    )
    body = served.writer._body(("Which?", SOURCE))
    assert [one["role"] for one in body["messages"]] == ["system", "user"] and body["messages"][0][
        "content"
    ] == "You compare."
    with pytest.raises(MetricError, match="pvc needs one judge"):
        load_metric("pvc", prompts=str(pair_prompt))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("index: 1", "index: 0", "does not show the source and both edits once each"),
        ("source: input_image", "source: mask", "source"),
        ("system_prompt", "system_words", "has no field 'system_words'"),
    ],
)
def test_a_prompt_of_another_kind_is_refused(pair_prompt: Path, old: str, new: str, words: str) -> None:
    pair_prompt.write_text(PAIR.replace(old, new))
    with pytest.raises(InputError, match=words):
        PairPrompt.read(str(pair_prompt))
