"""The recipes of encoder and router, a few steps each: whole, resumable, and taught without forgetting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from careedit.cli.main import main
from careedit.editor import Editor
from careedit.encoders import OpenClipEncoder, load_encoder
from careedit.errors import CareEditError
from careedit.experts import install_router, load_expert_set, transformer_spec, verify_expert_set
from careedit.finetune import loop as training_loop
from careedit.finetune.router import fit as router_fit
from careedit.finetune.router import teach as router_teach
from careedit.finetune.router.examples import read_examples
from careedit.routing import TransformerOptions
from careedit_tiny.models.clip import save_clip, tokenizer, untrained_encoder
from careedit_tiny.recipes.clip import train as clip_recipe
from careedit_tiny.recipes.router import outcomes as outcomes_recipe
from careedit_tiny.recipes.router import run as router_run
from careedit_tiny.recipes.router.run import put_into_set, train_router
from careedit_tiny.world.samples import draw_sample, request_for


@pytest.fixture(scope="module")
def encoder():
    return untrained_encoder()


@pytest.fixture(scope="module")
def routed(encoder, untrained_set, tmp_path_factory):
    """The untrained set with a learned router of a few steps."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router_fit, "BATCH", 2)
        train_router(runs, encoder, steps=4, per_group=2, measured=2)
    root = tmp_path_factory.mktemp("routed") / "set"
    shutil.copytree(untrained_set, root)
    save_clip(encoder.model, runs / "clip")
    put_into_set(runs, root)
    return root


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    """The folder of what is taught: pools of rehearsed edits are drawn and encoded once for all lessons."""
    return tmp_path_factory.mktemp("lessons")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(router_fit, "BATCH", 2)


def test_the_clip_recipe_makes_a_whole_model_and_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_recipe, "BATCH", 4)
    config = replace(clip_recipe.DEFAULT, steps=2, warmup=1)
    model, report = clip_recipe.train_clip(tmp_path / "a", config, pool=8)
    again, _ = clip_recipe.train_clip(tmp_path / "b", config, pool=8)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))

    figures = clip_recipe.measure(OpenClipEncoder(model, tokenizer()), 12)
    assert 0 <= figures.image_to_text_1 <= figures.image_to_text_5 <= 1
    clip_recipe.save(model, report, tmp_path, figures)
    loaded = load_encoder(tmp_path / "clip")
    table = loaded.model.token_embedding.weight
    seen, unseen = tokenizer().encode("circle eliminate")
    assert table[seen].abs().sum() > 0
    assert table[unseen].abs().sum() == 0
    assert "recall at 1 and 5" in (tmp_path / "clip" / "README.md").read_text("utf-8")


def test_a_router_learns_and_writes_its_files_and_card(encoder, tmp_path):
    model, quality = train_router(tmp_path, encoder, steps=3, per_group=2, measured=2)
    again, _ = train_router(tmp_path, encoder, steps=3, per_group=2, measured=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert {path.name for path in (tmp_path / "router").iterdir()} == {
        "README.md", "loss.png", "router.json", "router.safetensors"
    }  # fmt: skip
    card = (tmp_path / "router" / "README.md").read_text("utf-8")
    for figure in ("held-out phrasings", "calibration error", "Infeasible instructions recognised", "Temperature"):
        assert figure in card
    assert quality.count == 24


def stopping_at(last: int) -> Callable[[int, int], torch.Generator]:
    """The loop's own generators, and an interrupt at step `last`."""
    original = training_loop.step_generator

    def generator(seed: int, step: int) -> torch.Generator:
        if step == last:
            raise KeyboardInterrupt
        return original(seed, step)

    return generator


def test_an_interrupted_router_goes_on_to_the_same_weights(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(router_run, "DEFAULT", replace(router_run.DEFAULT, checkpoint_seconds=0.0))
    monkeypatch.setattr(training_loop, "CURVE_EVERY", 5)
    whole, _ = train_router(tmp_path / "whole", encoder, steps=12, per_group=1, measured=1)
    with pytest.MonkeyPatch.context() as patch:
        # The loop asks for a generator at each step; the last checkpoint is at step 5.
        patch.setattr(training_loop, "step_generator", stopping_at(8))
        with pytest.raises(KeyboardInterrupt):
            train_router(tmp_path / "cut", encoder, steps=12, per_group=1, measured=1)
    resumed, _ = train_router(tmp_path / "cut", encoder, steps=12, per_group=1, measured=1)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_set_with_a_learned_router_edits_and_says_why(routed):
    editor = Editor(load_expert_set(routed))
    trace = editor.edit(request_for(draw_sample("remove", 3), seed=1)).trace
    assert trace.routing.router == "transformer"
    assert set(trace.routing.probabilities) == {"erase", "compose", "style", "identity", "reference"}
    assert 0 < trace.routing.feasible < 1
    assert trace.routing.reason.endswith(".")


def test_a_changed_router_file_is_found_and_refused(routed, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(routed, root)
    before = load_expert_set(root).sha256
    assert verify_expert_set(root) == ()
    data = bytearray((root / "router" / "router.safetensors").read_bytes())
    data[-1] ^= 1
    (root / "router" / "router.safetensors").write_bytes(data)
    (finding,) = verify_expert_set(root)
    assert (finding.code, finding.subject) == ("router", "router")
    with pytest.raises(CareEditError, match="has the hash"):
        _ = Editor(load_expert_set(root)).router
    assert install_router(root, transformer_spec(root)).sha256 != before


def test_a_remote_sets_router_is_fetched_and_checked(routed, tmp_path, monkeypatch):
    import fsspec

    from careedit.experts import router_options

    monkeypatch.setenv("CAREEDIT_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.put(str(routed), "/routed-set", recursive=True)
    remote = load_expert_set("memory://routed-set")
    options = TransformerOptions(**router_options(remote.spec, remote.folder))
    assert Path(options.config).is_relative_to(tmp_path / "cache")
    assert (Path(options.encoder) / "open_clip_config.json").is_file()
    store.pipe_file("/routed-set/router/router.json", b"{}")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(CareEditError, match="has the hash"):
        router_options(remote.spec, remote.folder)


def test_outcomes_are_measured_once_and_go_on_where_they_stopped(open_editor, encoder, tmp_path):
    path = tmp_path / "outcomes.jsonl"
    editor = open_editor()
    first = outcomes_recipe.measure_outcomes(editor, 3, path)
    text = path.read_text("utf-8")
    path.write_text(text + text.splitlines()[0][:20], "utf-8")  # a run killed while it wrote
    more = outcomes_recipe.measure_outcomes(editor, 4, path)
    assert more[:3] == first
    assert path.read_text("utf-8").startswith(text)
    assert len(path.read_text("utf-8").splitlines()) == 4
    assert set(more[0].scores) == set(editor.expert_set.names)
    pool = outcomes_recipe.outcome_pool(more, encoder, editor.expert_set.names)
    assert pool.targets.sum(dim=1).tolist() == pytest.approx([1.0] * 4)


def test_a_broken_line_of_outcomes_is_named(open_editor, tmp_path):
    path = tmp_path / "outcomes.jsonl"
    path.write_text("{}\nnonsense\n", "utf-8")
    with pytest.raises(CareEditError, match="Line 2 of"):
        outcomes_recipe.measure_outcomes(open_editor(), 1, path)


def test_targets_prefer_who_did_better_and_else_the_kinds_expert():
    names = ("erase", "compose")
    target = outcomes_recipe.soft_target
    assert target(outcomes_recipe.Outcome("remove", 0, {"erase": 0.0, "compose": 0.0}), "erase", names) == [1.0, 0.0]
    assert target(outcomes_recipe.Outcome("remove", 0, {"erase": 1.0, "compose": 1.0}), "erase", names) == [1.0, 0.0]
    better = target(outcomes_recipe.Outcome("remove", 0, {"erase": 0.0, "compose": 1.0}), "erase", names)
    assert better[1] > 0.9
    assert sum(better) == pytest.approx(1)


def with_a_new_expert(routed: Path, root: Path) -> Path:
    """A copy of the set in which the style expert's weights also serve as a new expert, "logo"."""
    shutil.copytree(routed, root)
    from careedit.experts import add_expert

    made = load_expert_set(root)
    manifest = made.manifest("style").model_copy(update={"name": "logo", "competence": "logo", "handles": ("logo",)})
    add_expert(root, manifest, made.adapter_path("style"))
    return root


def write_examples(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    lines = []
    for i in range(count):
        draw_sample("add", i).source_image().save(folder / f"{i}.png")
        lines.append({"instruction": f"put our logo on item {i}", "image": f"{i}.png", "expert": "logo"})
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return folder / "examples.jsonl"


def test_a_new_expert_is_taught_and_the_old_ones_are_measured(routed, lessons, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(router_teach, "LARGEST_DROP", 1.0)
    monkeypatch.setattr(router_run, "REHEARSAL", 2)
    root = with_a_new_expert(routed, tmp_path / "set")
    before = load_expert_set(root).sha256
    examples = write_examples(tmp_path / "examples", 10)
    command = ["train", "router", "--expert-set", str(root), "--examples", str(examples)]
    code = main([*command, "--out", str(lessons), "--steps", "3", "--json"])
    said = json.loads(capsys.readouterr().out)

    assert code == 0
    assert said["new"] == ["logo"]
    assert {"old_before", "old_after", "new_after"} <= set(said)
    assert said["expert_set_sha256"] == load_expert_set(root).sha256 != before
    assert verify_expert_set(root) == ()
    assert not (root / "router").exists()
    decision = Editor(load_expert_set(root)).route(request_for(draw_sample("remove", 3)))
    assert "logo" in decision.probabilities


def test_a_lesson_that_makes_it_forget_is_refused_and_the_old_router_kept(
    routed, lessons, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(router_teach, "LARGEST_DROP", -1.1)  # no accuracy rises by that much
    monkeypatch.setattr(router_run, "REHEARSAL", 2)
    root = with_a_new_expert(routed, tmp_path / "set")
    before = load_expert_set(root).sha256
    examples = write_examples(tmp_path / "examples", 10)
    command = ["train", "router", "--expert-set", str(root), "--examples", str(examples)]
    code = main([*command, "--out", str(lessons), "--steps", "2"])

    assert code == 1
    assert "The router would forget" in capsys.readouterr().err
    assert load_expert_set(root).sha256 == before
    assert verify_expert_set(root) == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "line 1: It is not JSON"),
        ('{"instruction": "x", "image": "0.png"}', "The field 'expert' is missing"),
        ('{"instruction": "x", "image": "gone.png", "expert": "logo"}', r"gone\.png"),
        ('{"instruction": "x", "image": "0.png", "expert": "logo", "masc": "m.png"}', "field 'masc' is unknown"),
    ],
)
def test_examples_that_cannot_be_used_are_named_or_left_out(tmp_path, line, said):
    path = write_examples(tmp_path, 2)
    path.write_text(line + "\n" + path.read_text("utf-8"), "utf-8")
    with pytest.raises(CareEditError, match=said):
        read_examples(path)
    found, bad = read_examples(path, skip_bad=True)
    assert len(found) == 2
    assert [line.line for line in bad] == [1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expert": "unknown"}, "which the set lacks"),
        ({"expert": "erase"}, "nothing to teach"),
    ],
)
def test_a_lesson_without_a_point_is_a_sentence(routed, tmp_path, change, said):
    found, _ = read_examples(write_examples(tmp_path / "examples", 2))
    with pytest.raises(CareEditError, match=said):
        router_teach.teach(routed, [replace(example, **change) for example in found], tmp_path / "runs")


def test_a_set_without_a_learned_router_cannot_be_taught(untrained_set, tmp_path):
    found, _ = read_examples(write_examples(tmp_path / "examples", 2))
    with pytest.raises(CareEditError, match="'rules' router, which is not trained"):
        router_teach.teach(untrained_set, found, tmp_path / "runs")
