"""The early filter from end to end: a trace replays to the identical image, and the command shows what was seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from careedit import EarlyFilter, EditRequest, EditTrace, load_editor
from careedit.cli import editors
from careedit.cli.main import main
from careedit.errors import InputError
from careedit.images import decode_image, image_sha256
from careedit.scoring import JudgeIdentity, Score
from careedit.selection.judge import Judge
from careedit_tiny.oracle.verdict import judge as oracle
from careedit_tiny.world.samples import draw_sample, request_for

IDENTITY = JudgeIdentity(backend="test", model="picture", revision="1", prompts="none-1")
MIXTURE = {"style": 0.6, "erase": 0.3, "base": 0.1}


class ByPicture:
    """A judge of no taste, but a deterministic one: the score of a picture is a share of its hash."""

    identity = IDENTITY

    def score(self, requests):
        values = [int(image_sha256(request.edited)[:8], 16) / 2**32 for request in requests]
        return [Score(followed=v, preserved=1.0, clean=1.0, overall=v, judge=IDENTITY) for v in values]


class Broken:
    """A judge that has no memory left."""

    identity = IDENTITY

    def score(self, requests):
        raise RuntimeError("no memory")


@pytest.fixture(scope="module")
def fresh(untrained_set):
    """Editors that have edited nothing else and have no judge."""
    return {kind: load_editor(str(untrained_set), device="cpu", application=kind) for kind in ("merged", "shared")}


@pytest.fixture
def judged(open_editor):
    """`judged(application, scorer)`: the shared editors with a judge, until the test ends."""
    lent = []

    def get(application, scorer):
        editor = open_editor(application)
        editor.judge = Judge(scorer)
        lent.append(editor)
        return editor

    yield get
    for editor in lent:
        editor.judge = None


EVERY_PAIR = (
    ("merged", ByPicture(), "restart", {}),
    ("shared", Broken(), "restart", {}),
    ("merged", Broken(), "continue", {"masked": True}),
    ("shared", ByPicture(), "continue", {"masked": True}),
    ("merged", ByPicture(), "halving", {"expert": MIXTURE}),
    ("shared", Broken(), "halving", {"expert": MIXTURE}),
    ("merged", Broken(), "halving", {"expert": MIXTURE, "masked": True, "n": 2}),
    ("shared", ByPicture(), "halving", {"expert": MIXTURE, "masked": True, "n": 2}),
)
"""Every strategy with each application and each judge; every application with each judge."""


@pytest.mark.parametrize(("application", "scorer", "strategy", "fields"), EVERY_PAIR)
def test_a_filtered_trace_replays_to_the_identical_image_without_a_judge(
    application, scorer, strategy, fields, judged, fresh, draw_picture, draw_mask
):
    options = {"expert": "erase", **fields}
    mask = draw_mask() if options.pop("masked", False) else None
    request = EditRequest(
        image=draw_picture(),
        instruction="remove the red circle",
        mask=mask,
        seed=11,
        steps=4,
        early_filter=EarlyFilter(strategy=strategy, candidates=4, preview_steps=2),
        **options,
    )
    result = judged(application, scorer).edit(request)
    assert len(result.images) == request.n
    for image, trace in zip(result.images, result.traces, strict=True):
        read = EditTrace.model_validate_json(trace.model_dump_json())
        assert read == trace
        again = fresh[application].replay(read, image=request.image, mask=mask)
        assert again.image.tobytes() == image.tobytes()
        assert again.trace.model_copy(update={"seconds": {}}) == trace.model_copy(update={"seconds": {}})


@pytest.mark.parametrize("changes", [{"chosen": 4}, {"chosen": -1}, {"looks": [{"steps": 2, "alive": [0, 7]}]}])
def test_a_trace_whose_filter_chose_nobody_it_had_is_refused(changes, judged, draw_picture):
    request = EditRequest(
        image=draw_picture(), instruction="remove it", steps=4, early_filter=EarlyFilter(candidates=2)
    )
    document = judged("merged", ByPicture()).edit(request).trace.model_dump()
    document["filter"] |= changes
    with pytest.raises(InputError, match="give a trace as careedit wrote it"):
        EditTrace.model_validate(document)


@pytest.mark.parametrize("strategy", ["restart", "halving"])
def test_on_the_packaged_set_the_truth_as_a_judge_never_chooses_a_wrong_candidate_over_a_right_one(strategy):
    sample = draw_sample("remove", 3, "test")

    class Truth(ByPicture):
        def score(self, requests):
            verdicts = [oracle(sample, request.edited) for request in requests]
            values = [float(verdict.compliant) for verdict in verdicts]
            return [Score(followed=v, preserved=1.0, clean=1.0, overall=v, judge=IDENTITY) for v in values]

    editor = load_editor("tiny", device="cpu", scorer=Truth())
    request = request_for(sample).model_copy(
        update={"early_filter": EarlyFilter(strategy=strategy, candidates=4, preview_steps=4)}
    )
    trace = editor.edit(request).trace
    compared = [one.score for one in trace.filter.candidates if one.steps == 4]
    assert len(compared) == {"restart": 4, "halving": 2}[strategy]
    assert trace.filter.candidates[trace.filter.chosen].score == max(compared)
    assert trace.nfe == {"restart": 8 + 4 * 4, "halving": 4 * 2 + 2 * 2 + 4}[strategy]
    assert editor.replay(trace, image=request.image).trace.nfe == trace.nfe


@pytest.fixture
def folder(tmp_path, monkeypatch, draw_picture):
    monkeypatch.chdir(tmp_path)
    draw_picture((80, 60)).save("photo.png")
    return tmp_path


@pytest.fixture
def run(untrained_set, capsys, monkeypatch):
    """Runs `careedit edit photo.png ...` on the untrained set with `ByPicture`: exit code, stdout, stderr, judges asked for."""
    asked = []

    def load(name, *, device=None):
        asked.append(name)
        return ByPicture()

    monkeypatch.setattr(editors, "load_scorer", load)

    def call(*arguments):
        code = main(["edit", "photo.png", *arguments, "--expert-set", str(untrained_set), "--device", "cpu"])
        return (code, *capsys.readouterr(), asked)

    return call


FILTER = ["remove it", "--early-filter", "halving", "--candidates", "3", "--preview-steps", "2", "--steps", "4"]


def test_the_command_saves_a_strip_per_image_and_its_trace_replays(run, folder, untrained_set):
    made = ["--save-previews", "seen", "-n", "2", "--seed", "5", "-o", "a.png", "--trace", "t.json", "--json"]
    code, out, err, judges = run(*FILTER, *made)
    document = json.loads(out)
    assert (code, err, judges) == (0, "", ["tiny"])
    assert document["previews"] == ["seen/a-1-previews.png", "seen/a-2-previews.png"]
    assert sorted(path.name for path in Path("seen").iterdir()) == ["a-1-previews.png", "a-2-previews.png"]
    for path, trace in zip(document["previews"], document["traces"], strict=True):
        strip = decode_image(path)
        assert strip.width >= 4 * 128 and strip.height > 96
        assert strip.getcolors(2**16) is None or len(strip.getcolors(2**16)) > 3
        assert trace["filter"]["candidates"][0]["seed"] in (5, 6)
        assert trace["nfe"] == 3 + 2 + 2

    again = ["edit", "photo.png", "--replay", "t.json", "-o", "b.png", "--expert-set", str(untrained_set)]
    assert main(again) == 0
    for i in (1, 2):
        assert Path(f"a-{i}.png").read_bytes() == Path(f"b-{i}.png").read_bytes()


def test_the_command_says_which_seed_was_chosen_and_by_whom_is_a_choice(run, folder):
    code, out, _, judges = run(*FILTER, "--judge", "my/judge", "--seed", "5", "--early-exit", "1.0")
    assert (code, judges) == (0, ["my/judge"])
    assert "Chosen: seed " in out and " of 3 (halving, score 0." in out
    assert not Path("seen").exists()


def test_where_nothing_is_chosen_no_judge_is_loaded_and_no_strip_drawn(run, folder):
    arguments = ["remove it", "--early-filter", "none", "--save-previews", "seen", "--steps", "1", "--json"]
    code, out, _, judges = run(*arguments)
    assert (code, judges) == (0, [])
    assert json.loads(out).keys() == {"version", "images", "traces"} and not Path("seen").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([*FILTER[:1], "--candidates", "3"], "need --early-filter, e.g. halving"),
        ([*FILTER[:1], "--save-previews", "seen"], "need --early-filter, e.g. halving"),
        ([*FILTER[:1], "--judge", "tiny"], "need --early-filter, e.g. halving"),
        ([*FILTER, "--candidates", "0"], "candidates is 0; between 1 and 16 noises can be tried"),
        ([*FILTER, "--preview-steps", "4"], "preview_steps is 4 and the edit has 4 steps"),
        ([*FILTER, "--early-exit", "2"], "EarlyFilter does not accept 2.0 for its field 'early_exit'"),
        ([*FILTER, "--early-filter", "bubble"], "'bubble' is not one of 'none', 'restart', 'continue', 'halving'"),
        ([*FILTER, "--save-previews", "photo.png"], "'photo.png' is a file; name a folder"),
        ([*FILTER, "--save-previews", "no/seen"], "The folder 'no' of the output does not exist"),
    ],
)
def test_what_cannot_be_filtered_is_said_before_a_judge_is_loaded(arguments, sentence, run, folder):
    code, out, err, judges = run(*arguments)
    assert (code, out, judges) == (2, "", [])
    assert sentence in err and len(err.splitlines()) == 1
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


def test_an_installation_without_the_judge_says_so(folder, untrained_set, capsys, monkeypatch):
    from careedit_tiny import plugin

    monkeypatch.setattr(plugin, "WEIGHTS", folder)
    assert main(["edit", "photo.png", *FILTER, "--expert-set", str(untrained_set)]) == 2
    assert "has no tiny judge" in capsys.readouterr().err


def test_a_strip_holds_every_candidate_at_its_own_shape(judged, draw_picture):
    from careedit.selection.strip import preview_strip

    for size in ((64, 64), (300, 100), (20, 200)):
        request = EditRequest(
            image=draw_picture(size), instruction="remove it", steps=4, early_filter=EarlyFilter(candidates=3)
        )
        result = judged("merged", ByPicture()).edit(request)
        strip = preview_strip(request.image, result.trace.filter, result.previews[0])
        assert isinstance(strip, Image.Image) and strip.mode == "RGB"
        assert "#17803d" in {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in strip.getcolors(2**20)}
    with pytest.raises(InputError, match="tried 3 seeds and there are 2 previews"):
        preview_strip(request.image, result.trace.filter, result.previews[0][:2])
