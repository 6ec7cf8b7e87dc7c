"""`careedit edit`: where the pictures go, what is said, and that a trace makes them again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from careedit.cli import files
from careedit.cli.main import main
from careedit.errors import InputError
from careedit.images import decode_image
from careedit.provenance.authority import write_authority
from careedit.provenance.reading import read_provenance
from careedit.provenance.watermark import Marking, find_watermark
from careedit.record import help_of
from careedit.records import EarlyFilter, EditRequest

REMOVE = "remove the red circle"


@pytest.fixture
def folder(tmp_path, monkeypatch, draw_picture, draw_mask):
    """The current folder, with a source, a mask and a reference in it."""
    monkeypatch.chdir(tmp_path)
    draw_picture((80, 60)).save("photo.png")
    draw_mask((80, 60)).save("mask.png")
    draw_picture((40, 40), seed=3).save("look.webp", lossless=True)
    return tmp_path


@pytest.fixture
def run(untrained_set, open_editor, capsys, monkeypatch):
    """Runs `careedit edit ...` on the untrained set, whose editors are shared: exit code, stdout, stderr."""
    from careedit.cli import editors

    monkeypatch.setattr(editors, "Editor", lambda _, *, application, **__: open_editor(application or "merged"))

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["edit", *arguments, "--expert-set", str(untrained_set), "--device", "cpu"])
        return (code, *capsys.readouterr())

    return call


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"photo.png", "mask.png", "look.webp"}


def test_by_default_the_picture_is_named_after_its_source_and_lies_in_the_current_folder(run, folder, draw_picture):
    (folder / "sub").mkdir()
    draw_picture((30, 20)).save("sub/other.jpg")

    code, out, err = run("sub/other.jpg", REMOVE, "--seed", "4")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "Expert: erase (rules). 'remove': the erase expert.",
        "Edited: other-edited.png (seed 4, 2 steps, 2 evaluations)",
    ]
    assert names(folder) == {"sub", "other-edited.png"}
    assert names(folder / "sub") == {"other.jpg"}
    assert decode_image("other-edited.png").size == (30, 20)


def test_several_images_are_numbered_and_json_is_one_document(run, folder):
    code, out, err = run("photo.png", REMOVE, "-n", "2", "--seed", "7", "--steps", "1", "-o", "new.webp", "--json")

    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document.keys() == {"version", "images", "traces"} and document["version"] == 1
    assert document["images"] == ["new-1.webp", "new-2.webp"]
    assert [(trace["seed"], trace["steps"], trace["slot"]) for trace in document["traces"]] == [(7, 1, 0), (8, 1, 1)]
    assert names(folder) == {"new-1.webp", "new-2.webp"}


def test_every_option_reaches_the_edit(run, folder):
    fields = ["--mask", "mask.png", "--reference", "look.webp", "--refine-mask", "--application", "shared"]
    code, out, _ = run("photo.png", "x", *fields, "--expert", "style=0.75, erase=0.25", "--steps", "1", "--json")

    (trace,) = json.loads(out)["traces"]
    assert code == 0
    assert trace["routing"]["weights"] == {"style": 0.75, "erase": 0.25}
    assert trace["application"] == "shared" and trace["refine_mask"] and trace["nfe"] == 3
    assert trace["mask_sha256"] and len(trace["reference_sha256"]) == 1


def test_a_mixture_is_told_with_its_weights_and_a_cut_instruction_is_noted(run, folder):
    code, out, err = run("photo.png", f"{REMOVE} and " * 9 + "so on", "--expert", "erase=0.5,style=0.5", "--steps", "1")
    assert code == 0
    assert out.startswith("Expert: erase 0.50 + style 0.50 (fixed).") and "(seed " in out and "1 step," in out
    assert err == "note: instruction: longer than the base reads, its end was cut.\n"


def test_the_router_may_mix_as_many_experts_as_top_k_says(run, folder):
    text = "turn it into a watercolour and remove the star"
    code, out, _ = run("photo.png", text, "--top-k", "2", "--steps", "1", "--json")
    assert code == 0
    assert set(json.loads(out)["traces"][0]["routing"]["weights"]) == {"erase", "style"}


def test_what_trace_wrote_is_replayed_bit_for_bit(run, folder, untrained_set):
    made = ["--mask", "mask.png", "-n", "2", "--steps", "2", "-o", "a.png", "--trace", "trace.json", "--json"]
    code, out, _ = run("photo.png", REMOVE, *made)
    assert code == 0 and json.loads(Path("trace.json").read_text()) == json.loads(out)

    again = ["edit", "photo.png", "--replay", "trace.json", "--mask", "mask.png", "-o", "b.png"]
    assert main([*again, "--expert-set", json.loads(out)["traces"][0]["expert_set"]]) == 2, "no set of that name here"
    assert main([*again, "--expert-set", str(untrained_set)]) == 0
    for i in (1, 2):
        assert Path(f"a-{i}.png").read_bytes() == Path(f"b-{i}.png").read_bytes()


def test_an_existing_answer_is_replaced(run, folder):
    Path("new.png").write_text("old")
    assert run("photo.png", REMOVE, "--steps", "1", "-o", "new.png")[0] == 0
    assert decode_image("new.png").size == (80, 60)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "photo.png"], "would replace the input 'photo.png'; name another"),
        (["-o", "./sub/../photo.png"], "would replace the input 'photo.png'; name another"),
        (["-o", "link.png"], "would replace the input 'photo.png'; name another"),
        (["-o", "hard.png"], "would replace the input 'photo.png'; name another"),
        (["-o", "mask.png", "--mask", "mask.png"], "would replace the input 'mask.png'; name another"),
        (["-o", "look.webp", "--reference", "look.webp"], "would replace the input 'look.webp'; name another"),
        (["-o", "photo.png", "-n", "2", "--trace", "photo.png"], "would replace the input 'photo.png'; name another"),
        (["-o", "a.png", "--trace", "a.png"], "Two outputs would be written to 'a.png'"),
        (["-o", "a.tiff"], "The output 'a.tiff' has no suffix of an image format; use .png, .jpg or .webp"),
        (["-o", "nowhere/a.png"], "The folder 'nowhere' of the output does not exist; create it first"),
        (["-o", "sub.png"], "The output 'sub.png' is a folder; give a file name"),
        (["--trace", "sub"], "The output 'sub' is a folder; give a file name"),
        (["--expert", "erase=0.5,style"], "is not a mixture; write it as erase=0.7,style=0.3"),
        (["--expert", "erase=0.5,erase=0.5"], "names 'erase' twice; give each expert one weight"),
        (["--expert", "erase=0.5,style=0.1"], "must be positive and sum to 1"),
        (["--expert", "erase=nan,style=0.1"], "must be positive and sum to 1"),
        (["--top-k", "0"], "top_k is 0; at least one expert must be allowed"),
        (["-n", "17"], "n is 17; between 1 and 16 images"),
        (["--guidance", "3"], "this base takes none"),
        (["--refine-mask"], "refine_mask needs a mask"),
        (
            ["--reference", "look.webp", "--reference", "photo.png"],
            "2 references were given, but the base flux-fill takes one reference",
        ),
        (["--application", "blended"], "'blended' is not one of 'merged', 'shared'"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(arguments, sentence, run, folder):
    (folder / "sub").mkdir()
    (folder / "sub.png").mkdir()
    (folder / "link.png").symlink_to("photo.png")
    os.link("photo.png", "hard.png")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    code, out, err = run("photo.png", REMOVE, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err and len(err.splitlines()) == 1
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_an_instruction_is_needed_except_for_a_replay_which_takes_none(run, folder, untrained_set, capsys):
    assert run("photo.png")[2].startswith("error: The instruction is missing; say what to change")
    for wish in (["-n", "2"], ["--seed", "1"], ["--refine-mask"], ["--expert", "style"], [REMOVE]):
        assert main(["edit", "photo.png", *wish, "--replay", "trace.json"]) == 2
        assert "A trace has all settings of its edit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "The trace 'trace.json' cannot be read (No such file or directory); check the path."),
        ("", "has no trace; give a file that careedit edit --trace wrote."),
        ("{}", "has no trace"),
        ("[]", "has no trace"),
        ('{"traces": 3}', "has no trace"),
        ('{"traces": []}', "has no trace"),
        ('{"traces": ["a"]}', "has no trace"),
        ("[" * 100_000, "has no trace"),
        ('{"traces": [{"prompt": "a"}]}', "EditTrace needs the field 'expert_set', which is missing"),
        ('{"traces": [{"colour": "a"}]}', "EditTrace has no field 'colour'"),
    ],
)
def test_a_file_without_a_trace_is_refused(content, sentence, folder, capsys):
    if content is not None:
        Path("trace.json").write_text(content)
    assert main(["edit", "photo.png", "--replay", "trace.json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and sentence in shown.err and len(shown.err.splitlines()) == 1


def test_a_replay_of_another_picture_fails_and_writes_nothing(run, folder, untrained_set, draw_picture, capsys):
    run("photo.png", REMOVE, "--steps", "1", "--trace", "trace.json", "-o", "a.png")
    draw_picture((80, 60), seed=9).save("other.png")
    before = names(folder)
    assert main(["edit", "other.png", "--replay", "trace.json", "--expert-set", str(untrained_set)]) == 1
    assert "are not the ones of the trace; give the same pictures." in capsys.readouterr().err
    assert names(folder) == before


def test_files_are_written_all_or_none(tmp_path, draw_picture, monkeypatch):
    (tmp_path / "a.png").write_text("old")
    wanted = {tmp_path / "a.png": draw_picture(), tmp_path / "b.png": draw_picture(), tmp_path / "c.json": "{}"}
    save, saved = files.save_image, []

    def full_disk(image: Image.Image, path: Path) -> None:
        if saved:
            raise InputError("No room.")
        saved.append(path)
        save(image, path)

    monkeypatch.setattr(files, "save_image", full_disk)
    with pytest.raises(InputError, match=r"b.png' cannot be written"):
        files.write_all(wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_text() == "old"

    monkeypatch.undo()
    files.write_all(wanted)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "c.json"}
    assert decode_image(tmp_path / "a.png").size == (64, 64)


def test_the_help_and_a_wrong_picture_need_no_torch(tmp_path):
    script = (
        "import sys; from careedit.cli.main import main\n"
        "codes = main(['edit', '--help']), main(['edit', 'nothing.png', 'remove it'])\n"
        "sys.exit(0 if codes == (0, 2) and 'torch' not in sys.modules else 1)"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "--install-completion" not in answer.stdout


def test_the_help_of_an_option_is_the_description_of_the_field_that_it_sets(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(["edit", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert help_of(EditRequest, "seed") in shown
    assert help_of(EarlyFilter, "candidates") in shown


def test_with_credentials_the_same_pixels_are_signed_and_edits_of_edits_form_a_chain(
    run, folder, untrained_set, monkeypatch
):
    write_authority(folder / "ca")
    trust = (folder / "ca" / "authority.pem").read_text()
    assert run("photo.png", REMOVE, "--seed", "4", "-o", "plain.png")[0] == 0
    monkeypatch.setenv("CAREEDIT_CREDENTIALS", "ca")
    assert run("photo.png", REMOVE, "--seed", "4", "-o", "one.png", "--trace", "one.json")[0] == 0
    assert run("one.png", REMOVE, "-n", "2", "-o", "two.jpg")[0] == 0
    again = ["edit", "photo.png", "--replay", "one.json", "-o", "again.png", "--expert-set", str(untrained_set)]
    assert main(again) == 0

    pixels = {name: decode_image(folder / name).tobytes() for name in ("plain.png", "one.png", "again.png")}
    assert len(set(pixels.values())) == 1
    reads = {name: read_provenance((folder / name).read_bytes(), trust=trust) for name in ("one.png", "two-2.jpg")}
    assert [(read.state, read.marked) for read in reads.values()] == [("trusted", True)] * 2
    one, two = reads["one.png"].chain, reads["two-2.jpg"].chain
    assert two[1:] == one
    assert [link.credit.experts for link in two] == [{"erase": 1.0}] * 2
    assert (
        one[0].credit.expert_set_sha256
        == json.loads((folder / "one.json").read_text())["traces"][0]["expert_set_sha256"]
    )
    assert (one[0].credit.model_licence, one[0].credit.licences.keys()) == (None, {"erase"}), "the base states none"

    damaged = (folder / "one.png").read_bytes()
    at = damaged.index(b"caBX") + 4
    (folder / "damaged.png").write_bytes(damaged[:at] + bytes(64) + damaged[at + 64 :])
    for source, sentence in {"damaged.png": "Content Credentials", "none.png": "none.png' cannot be read"}.items():
        code, _, err = run(source, REMOVE, "-o", "never.png", "--expert", "no such expert")
        assert (code, sentence in err, "no such expert" in err) == (2, True, False), "refused before the edit begins"

    (folder / "ca" / "key.pem").unlink()
    code, _, err = run("photo.png", REMOVE, "-o", "never.png")
    assert (code, "key.pem' cannot be read" in err, (folder / "never.png").exists()) == (2, True, False)


def test_a_watermark_is_put_into_the_output_only_and_a_replay_gives_the_picture_without_it(
    run, folder, untrained_set, draw_picture
):
    draw_picture((400, 384)).save("large.png")
    (folder / "key").write_text("k" * 16)
    given = (REMOVE, "--seed", "4", "--watermark", "key", "--credentials", "ca")
    write_authority(folder / "ca")
    code, out, _ = run("large.png", *given, "-n", "2", "-o", "one.png", "--json")
    assert code == 0
    (folder / "one.json").write_text(out)
    stated = json.loads(out)["watermark"]
    assert stated["payload"] == Marking(b"k" * 16).payload(stated["edit"]).hex()
    again = ["edit", "large.png", "--replay", "one.json", "-o", "again.png", "--expert-set", str(untrained_set)]
    assert main(again) == 0
    for number in (1, 2):
        marked, plain = decode_image(folder / f"one-{number}.png"), decode_image(folder / f"again-{number}.png")
        mark = Marking(b"k" * 16).of(stated["edit"], plain.size)
        assert mark.embed(plain).tobytes() == marked.tobytes() != plain.tobytes()
        assert find_watermark(marked)[1].payload.hex() == stated["payload"]
        assert read_provenance((folder / f"one-{number}.png").read_bytes()).chain[0].credit.edit == stated["edit"]

    code, _, err = run("photo.png", *given, "-o", "small.png")
    assert (code, err.count("note: The result has no watermark: it is 80x60")) == (0, 1)
    code, _, err = run("photo.png", REMOVE, "--watermark", "none", "-o", "never.png")
    assert (code, "none' cannot be read" in err, (folder / "never.png").exists()) == (2, True, False)


def test_a_watermark_alone_reads_the_set_once(run, folder, draw_picture, monkeypatch):
    from careedit import experts

    draw_picture((400, 384)).save("large.png")
    (folder / "key").write_text("k" * 16)
    read = []
    monkeypatch.setattr(experts, "load_expert_set", read.append)  # the editor has its own reference to the function
    assert run("large.png", REMOVE, "--watermark", "key", "-o", "one.png")[0] == 0
    assert (find_watermark(decode_image(folder / "one.png")) is not None, read) == (True, [])
