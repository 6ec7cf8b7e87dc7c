"""Rubrics: what a judge is asked about each benchmark's edits, how its marks are read, and what is made of them."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.files import parse_yaml, png_bytes
from careedit_eval.benchmarks import load_benchmark
from careedit_eval.errors import MetricError
from careedit_eval.metrics import ScoreItem, load_metric
from careedit_eval.metrics.marking import RubricMetric, read_marks
from careedit_eval.metrics.rubric import FOLDER, Rubric, load_rubric
from careedit_eval.records import EditRow
from published import imgedit, kris, picture, rise

ENDPOINT = {"base_url": "http://localhost:1/v1", "model": "m", "answers": "json", "revision": "2026-08"}
EDIT = picture(3, (40, 30))
PUBLISHED = ("editscore", "editscore_qwen3", "gedit", "imgedit", "imgedit_uge", "kris", "rise", "vie")


class Scribe:
    """Answers by a rule of the message's text, and keeps what it is asked."""

    backend, model, revision = "scripted", "pen", "1"

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def write(self, messages, turn=0):
        self.asked += messages
        return [self.rule(next(part for part in message if isinstance(part, str))) for message in messages]


def items_of(benchmark, path, **options):
    """Every sample of a benchmark with one edit."""
    row = {"edit_key": "k", "kind": "x", "group": "g", "arm": "A", "seed": 0}
    made = EditRow(sample_id="s", picture="a.png", picture_sha256="0" * 64, **row)
    samples = load_benchmark(benchmark, path=str(path), **options).rows()
    return {sample.id: ScoreItem(sample, made, png_bytes(EDIT)) for sample in samples}


def prompts_file(rubric, folder, text="{name}: {{instruct}}", kinds=()):
    """A file with a prompt for every name that a rubric uses; each says its own name."""
    data = parse_yaml((FOLDER / f"{rubric}.yaml").read_text("utf-8"), rubric)
    names = [*kinds, *(one["prompt"] for one in data["questions"] if "prompt" in one)]
    file = folder / f"{rubric}-prompts.json"
    file.write_text(json.dumps({name: text.format(name=name) for name in names}))
    return str(file)


def said(message):
    """A message in words: texts as they are, images by what they are like."""
    return [part if isinstance(part, str) else part.size for part in message]


def test_viescore_is_the_metric_that_it_was_before_there_were_rubrics():
    spec = load_metric("viescore", endpoint=ENDPOINT).spec
    assert spec.key == "3871f44051f8c273114e2e073083168a4a6dadaa0f5c46fd8434ae9096025b14"
    assert "rubric" not in spec.settings
    assert load_metric("rubric", rubric="vie", endpoint=ENDPOINT).spec == spec


def test_gedits_prompts_are_the_published_ones_to_the_character():
    digests = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in load_rubric("gedit").prompts.values()]
    assert digests == ["8f529562c2f89f8d", "2473ff2c7406e065"]
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(PUBLISHED)


def test_gedit_shows_both_images_at_the_sources_size_after_the_prompt(make_item):
    judge = Scribe(lambda text: '{"score": [8, 6], "reasoning": ""}' if "over" in text else '{"score": [9, 7]}')
    item = make_item(picture(0), picture(1, (128, 96)), instruction="换 <instruction>")
    (found,) = RubricMetric(load_rubric("gedit"), judge).score([item])
    assert found.values == pytest.approx({"gedit_sc": 6, "gedit_pq": 7, "gedit": math.sqrt(42)})
    assert found.notes == ("the edit is 128x96, resized to 64x48",)
    first, second = map(said, judge.asked)
    assert first[1:] == [(64, 48), (64, 48)] and second[1:] == [(64, 48)]
    assert "Editing instruction: 换 <instruction>\n" in first[0]


ANSWERS = {
    "imgedit": [
        (
            "Brief reasoning: fine.\nPrompt Compliance: 3\nVisual Naturalness: 5\nPhysical & Detail Integrity: 4",
            (3, 5, 4),
        ),
        ("**Compliance:** 3\n- *Natural*: **5**\nPhysical: 4/5", (3, 5, 4)),
        ("Compliance: 3.5\r\nNatural: 5.\r\nPhysical: 4", (3.5, 5, 4)),
        ("Compliance: 3\nNatural: 5", None),
        ("Brief reasoning: 4\nCompliance: 3\nNatural: 5\nPhysical: 4", None),
        ("Compliance: 3\nNatural: 6\nPhysical: 4", None),
        ("Compliance: 3 to 4\nNatural: 5\nPhysical: 4", None),
        ("I would say 3, 5 and 4.", None),
    ],
    "imgedit_uge": [
        ("Brief reasoning: unnatural. Score: 2.", (2,)),
        ("Logos replaced. **Score:** 3 (Acceptable)", (3,)),
        ("Score: 3-4", None),
        ("Score: 3, on reflection Score: 4", None),
        ("The score is good.", None),
    ],
    "rise": [
        ("Step by step.\n\n**Final Score:** **4**", (4,)),
        ("**Final Score**: 4/5. So, final score: 4", (4,)),
        ("Final Scores: 4", (4,)),
        ("**Final Score:** **1-5**", None),
        ("**Final Score:** 12", None),
        ("Final Score: 4 ... Final Score: 5", None),
        ("<think>Final Score: 1</think>Final Score: 5", (5,)),
        ("Score: 4", None),
    ],
}


@pytest.mark.parametrize(("name", "reply", "marks"), [(n, *one) for n, many in ANSWERS.items() for one in many])
def test_marks_are_read_strictly_and_never_made_up(name, reply, marks, tmp_path):
    rubric = Rubric(**parse_yaml((FOLDER / f"{name}.yaml").read_text("utf-8"), name))
    question = rubric.questions[0]
    arguments = (reply, rubric.reading(question), len(question.marks), question.scale or rubric.scale)
    if marks is not None:
        assert read_marks(*arguments) == marks
    else:
        with pytest.raises(MetricError, match=r"^The judge's reply .* from 1 to 5; use a judge that writes them"):
            read_marks(*arguments)


def test_imgedit_asks_by_type_and_caps_by_the_first_mark_only_in_its_own_number(tmp_path):
    items = items_of("imgedit", imgedit(tmp_path, ["add", "style", "odd"]))
    rubric = load_rubric("imgedit", prompts_file("imgedit", tmp_path, "{name} <edit_prompt>", ("add", "style")))
    judge = Scribe(lambda text: "A: 1\nB: 4\nC: 4")
    found = RubricMetric(rubric, judge).score(list(items.values()))
    assert said(judge.asked[1]) == ["style do 1", (64, 48), (40, 30)]
    assert (found[0].values["imgedit"], found[0].values["imgedit_capped"]) == (3.0, 1.0)
    assert found[0].notes == (), "the edit is judged in its own size"
    assert "no prompt 'odd'" in found[2].error


def test_rise_asks_what_each_row_needs_and_combines_as_published(tmp_path):
    items = items_of("rise", rise(tmp_path))
    rubric = load_rubric("rise", prompts_file("rise", tmp_path, "{name} {{{{}}}}: {{instruct}} {{reference}}"[:16]))
    marks = {
        "prompt_logical_img": "1",
        "prompt_logical_cons": "1",
        "prompt_logical_txt": "0",
        "prompt_logical_cons_ans": "1",
    }
    low = {"prompt_reasoning": "1", "prompt_spatial_ref": "4"}
    judge = Scribe(lambda text: f"Final Score: {(marks | low).get(text.split()[0], '5')}")
    found = dict(zip(items, RubricMetric(rubric, judge).score(list(items.values())), strict=True))
    asked = {name: [] for name in items}
    for name, item in items.items():
        asked[name] = [one.prompt for one, _ in RubricMetric(rubric, judge).messages(item)]
    assert asked == {
        "temporal_1": ["prompt_consist", "prompt_reasoning", "prompt_generation"],
        "temporal_2": ["prompt_reasoning", "prompt_generation"],
        "causal_1": ["prompt_consist", "prompt_reasoning_w_input", "prompt_generation"],
        "spatial_1": ["prompt_spatial_cons", "prompt_spatial_ref", "prompt_spatial_qual"],
        "spatial_2": ["prompt_spatial_cons", "prompt_spatial_ref_img", "prompt_spatial_qual"],
        "logical_1": ["prompt_logical_cons_ans", "prompt_logical_txt"],
        "logical_2": ["prompt_logical_cons", "prompt_logical_img"],
    }
    overall = {name: (round(one.values["rise"], 6), one.values["rise_accuracy"]) for name, one in found.items()}
    assert overall == {
        "temporal_1": (1.5, 0),  # (0.3 x 5 + 0.5 x 1 + 0.2 x 5) / 2
        "temporal_2": (1.0, 0),  # (0.8 x 1 + 0.2 x 5) / 2 is below 1
        "causal_1": (5.0, 1),
        "spatial_1": (4.5, 0),
        "spatial_2": (5.0, 1),
        "logical_1": (1.1, 0),  # 0.3 x 5 + 0.7 x 1 = 2.2, halved
        "logical_2": (5.0, 1),
    }
    assert found["temporal_2"].absent == {"rise_consistency": "was not asked for"}
    assert "rise_plausibility" in found["logical_1"].absent


def test_published_prompts_are_filled_in_one_pass_and_their_doubled_braces_are_single(tmp_path):
    (item, *_) = items_of("rise", rise(tmp_path)).values()
    file = tmp_path / "utils.py"
    names = [one.prompt for one in load_rubric("rise", prompts_file("rise", tmp_path)).questions]
    file.write_text("import nowhere\nraise SystemExit\n" + "".join(
        f'{name} = """{{{{"score": 1}}}} {{instruct}} | {{reference}}"""\n' for name in names
    ))  # fmt: skip
    ((_, message), *_) = RubricMetric(load_rubric("rise", str(file)), Scribe(None)).messages(item)
    assert message[0] == '{"score": 1} think 0 | a rotten {banana}'


def test_kris_shows_frames_in_order_and_scales_to_a_hundred(tmp_path):
    items = items_of("kris", kris(tmp_path))
    rubric = load_rubric("kris", prompts_file("kris", tmp_path, "{name}"))
    reply = {
        "consistency_score": 5,
        "instruction_score": 4,
        "knowledge_score": 2,
        "quality_score": 3,
        "reasoning": "{}",
    }
    judge = Scribe(lambda text: f"```json\n{json.dumps(reply)}\n```")
    metric = RubricMetric(rubric, judge)
    found = dict(zip(items, metric.score(list(items.values())), strict=True))
    assert found["biology-1"].values == {
        "kris_consistency": 100, "kris_instruction": 75, "kris_knowledge": 25, "kris_quality": 50, "kris": 62.5
    }  # fmt: skip
    assert found["color_change-1"].values["kris"] == 75 and set(found["color_change-1"].absent) == {"kris_knowledge"}
    asked = {name: [said(message) for _, message in metric.messages(item)] for name, item in items.items()}
    size, edit = (64, 48), (40, 30)
    assert asked["temporal_prediction-1"][0] == [
        "prompt_consist_temporal", "Frame 1:", size, "Frame 2:", edit, "Frame 3:", size, "Frame 4:", size
    ]  # fmt: skip
    assert asked["multi-element_composition-1"][1] == [
        "prompt_instruction_multi", "Given image 1:", size, "Given image 2:", size, "Edited image:", edit
    ]  # fmt: skip
    assert asked["viewpoint_change-1"][1][-2:] == ["Right result:", size]
    assert [one[0] for one in asked["biology-1"]] == ["prompt_consist", "prompt_dual_evaluation", "prompt_quality"]


def test_an_edit_is_an_error_as_a_whole_if_one_of_its_replies_is_not_read(tmp_path):
    (item, *_) = items_of("kris", kris(tmp_path)).values()
    rubric = load_rubric("kris", prompts_file("kris", tmp_path, "{name}"))
    judge = Scribe(
        lambda text: (
            "4 out of 5"
            if text == "prompt_quality"
            else '{"consistency_score": 4, "instruction_score": 4, "knowledge_score": 4}'
        )
    )
    (found,) = RubricMetric(rubric, judge).score([item])
    assert (
        found.values == {} and "'4 out of 5' holds no mark from 1 to 5; use a judge that keeps to JSON" in found.error
    )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", "x", "not a file of prompts"),
        ("p.json", "[1]", "holds no prompts"),
        ("p.json", "{", "cannot be read"),
        ("p.py", "prompt = (", "cannot be read"),
        ("p.py", "prompt = 3", "holds no prompts"),
        ("p.yaml", "a: &b x\nc: *b", "aliases"),
        ("p.json", '{"other": "x"}', "needs the prompt 'prompt'; give Benchmark/UGE/UGE_bench.py"),
        (None, "", "cannot be read"),
    ],
)
def test_prompts_that_cannot_be_used_are_a_sentence(name, content, says, tmp_path):
    if name is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says):
        load_rubric("imgedit_uge", str(tmp_path / (name or "gone.json")))


def test_a_rubric_without_its_prompts_says_which_file_to_give():
    with pytest.raises(InputError, match=r"licence does not allow a copy; download utils.py of PhoenixZ810/RISEBench"):
        load_metric("rubric", rubric="rise", endpoint=ENDPOINT)
    with pytest.raises(InputError, match="has its own prompts"):
        load_rubric("gedit", "x.json")
    with pytest.raises(InputError, match="choose from editscore, editscore_qwen3, gedit"):
        load_rubric("nothing")
    with pytest.raises(MetricError, match="gedit needs a judge that writes"):
        load_metric("rubric", rubric="gedit")


OWN = """\
name: mine
protocol: mine-1
scale: [1, 5]
fill: {"[I]": instruction}
prompts: {ask: "Is [I] done?"}
questions:
  - {marks: [done], prompt: ask, message: [source, edit, prompt], read: {fields: [done]}}
values:
  - {name: mine, value: done, better: higher}
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("value: done", "value: kept", "uses 'kept', which is not known there"),
        ("value: done", 'value: "done +"', "cannot be read"),
        ("value: done", "value: row.kind", "uses 'row'"),
        ("value: done", "value: done, passes: perhaps", "passes"),
        (", better: higher", "", "reports no number"),
        ("name: mine, value", "name: done, value", "'done' occurs twice"),
        ("[source, edit, prompt]", "[source, thing]", "message"),
        ("read: {fields: [done]}", "read: {fields: [done], array: x}", "exactly one of them"),
        (", read: {fields: [done]}", "", "does not say how it is read"),
        ("fields: [done]", "fields: [a, b]", "one key per mark"),
        ("{fields: [done]}", "{pattern: '(a)(b)'}", "has 2 groups"),
        ("{fields: [done]}", "{pattern: '('}", "not a regular expression"),
        ("prompt: ask", "prompt: other", "needs the prompt 'other'"),
        ("prompt: ask", "prompt: ask, prompt_of: kind", "exactly one of them"),
        ("prompt: ask", 'prompt: ask, when: "done > 1"', "uses 'done'"),
        ("prompt: ask", "prompt: ask, extra: 1", "extra"),
    ],
)  # fmt: skip
def test_a_rubric_that_cannot_work_is_refused_when_it_is_read(old, new, says, tmp_path):
    assert OWN.count(old) == 1
    (tmp_path / "mine.yaml").write_text(OWN.replace(old, new))
    with pytest.raises(InputError, match=says):
        load_rubric(str(tmp_path / "mine.yaml"))


def test_whatever_changes_a_number_changes_the_metric(tmp_path):
    file = tmp_path / "mine.yaml"
    changes = [("Is [I]", "Was [I]"), ("[1, 5]", "[0, 5]"), ("mine-1", "mine-2"), ("[source, edit", "[edit, source"),
               ("value: done", 'value: "done / 5"'), ("fill:", "longest_side: 99\nfill:"), ("fill:", "edit_size: source\nfill:")]  # fmt: skip
    keys = set()
    for old, new in [("", ""), *changes]:
        file.write_text(OWN.replace(old, new))
        keys.add(RubricMetric(load_rubric(str(file)), Scribe(None)).spec.key)
    assert len(keys) == 1 + len(changes)
    file.write_text(OWN.replace("protocol: mine-1", "protocol: mine-1\ndescription: in words"))
    assert RubricMetric(load_rubric(str(file)), Scribe(None)).spec.key in keys


@pytest.mark.parametrize(
    ("value", "says"),
    [("done / 0", "cannot be computed"), ('"much"', "not a number"), ("sqrt(-done)", "cannot be computed"),
     ("min(done, none)", "cannot be computed"), ("done * 1e308 * 10", "not a number")],
)  # fmt: skip
def test_a_value_that_cannot_be_computed_is_an_error_and_no_number(value, says, tmp_path, make_item):
    (tmp_path / "mine.yaml").write_text(OWN.replace("value: done", f"value: '{value}'"))
    metric = RubricMetric(load_rubric(str(tmp_path / "mine.yaml")), Scribe(lambda text: '{"done": 4}'))
    (found,) = metric.score([make_item(picture(0), picture(1))])
    assert found.values == {}
    with pytest.raises(MetricError, match=says):
        raise MetricError(found.error)


def test_large_images_are_reduced_only_where_the_rubric_says_so(tmp_path, make_item):
    item = make_item(Image.new("RGB", (200, 100)), Image.new("RGB", (80, 40)))
    for extra, sizes in (("", [(200, 100), (80, 40)]), ("longest_side: 100\n", [(100, 50), (80, 40)])):
        (tmp_path / "mine.yaml").write_text(extra + OWN)
        judge = Scribe(lambda text: '{"done": 4}')
        (found,) = RubricMetric(load_rubric(str(tmp_path / "mine.yaml")), judge).score([item])
        assert said(judge.asked[0])[:2] == sizes and found.values == {"mine": 4.0}
