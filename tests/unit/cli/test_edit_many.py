"""`careedit edit` for a folder or a table: what is made, what is made again, and how failures are reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from careedit import editor as editing
from careedit.cli.main import main
from careedit.images import decode_image
from careedit.provenance.authority import write_authority
from careedit.provenance.reading import read_provenance
from careedit.provenance.watermark import Marking, find_watermark, key_from_file
from careedit.records import EditRequest

REMOVE = "remove the red circle"


@pytest.fixture
def folder(tmp_path, monkeypatch, draw_picture, draw_mask):
    """The current folder, with three pictures in `photos`, one of them in a sub-folder, and a mask."""
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    draw_picture((80, 60)).save("photos/a.png")
    draw_picture((40, 40), seed=3).save("photos/sub/a.jpg")
    draw_picture((50, 40), seed=5).save("photos/sub/c.avif")
    draw_mask((80, 60)).save("mask.png")
    return tmp_path


@pytest.fixture
def edits(untrained_set, open_editor, capsys, monkeypatch):
    """Runs `careedit edit ...` on the untrained set; `edits.requests` are the requests that reached the editor."""

    shared = open_editor()  # before the class is replaced

    class Recorder:
        def __init__(self, loaded, **_):
            self.expert_set = loaded

        def edit(self, request):
            call.requests.append(request)
            if request.instruction == "interrupt":
                raise KeyboardInterrupt
            return shared.edit(request)

    monkeypatch.setattr(editing, "Editor", Recorder)

    def call(*arguments: str) -> tuple[int, str, str]:
        call.requests.clear()
        code = main(["edit", *arguments, "--expert-set", str(untrained_set), "--device", "cpu"])
        return (code, *capsys.readouterr())

    call.requests = []
    return call


def results(folder: str) -> dict[str, dict[str, str]]:
    with (Path(folder) / "results.csv").open(newline="") as stream:
        return {row["output"]: row for row in csv.DictReader(stream)}


def table(name: str, *lines: str) -> str:
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def test_every_picture_of_a_folder_keeps_its_name_and_size_and_has_a_row(folder, edits, open_editor):
    code, out, err = edits("photos", REMOVE, "--out", "new", "--seed", "4")

    assert (code, err) == (0, "3 rows to edit.\n")
    assert out == "3 images: 3 made. Each is a row of new/results.csv.\n"
    rows = results("new")
    assert list(rows) == ["a.png", "sub/a.jpg", "sub/c.avif.png"]
    assert [decode_image(f"new/{name}").size for name in rows] == [(80, 60), (40, 40), (50, 40)]
    row = rows["sub/a.jpg"]
    assert (row["row"], row["source"], row["status"], row["error"]) == ("sub/a.jpg", "sub/a.jpg", "done", "")
    assert (row["seed"], json.loads(row["experts"]), row["instruction"]) == ("4", {"erase": 1.0}, REMOVE)
    assert float(row["seconds"]) > 0 and row["expert_set"].startswith("untrained ")

    single = open_editor().edit(EditRequest(image="photos/a.png", instruction=REMOVE, seed=4))
    assert decode_image("new/a.png").tobytes() == single.image.tobytes()


def test_a_second_run_makes_only_what_has_changed_is_new_or_has_failed(folder, edits, draw_picture):
    Path("photos/broken.png").write_bytes(b"no picture")
    code, out, err = edits("photos", REMOVE, "--out", "new")
    assert (code, len(edits.requests)) == (1, 3)
    assert "failed: broken.png: " in err
    assert out.startswith("4 images: 3 made, 1 failed.")
    before = results("new")
    assert before["broken.png"]["status"] == "failed" and "not a picture" in before["broken.png"]["error"]
    assert not Path("new/broken.png").exists()

    draw_picture((30, 30), seed=8).save("photos/broken.png")  # mended
    draw_picture((80, 60), seed=9).save("photos/a.png")  # changed
    Path("new/sub/a.jpg").unlink()  # lost
    code, out, _ = edits("photos", REMOVE, "--out", "new")
    assert (code, [request.image.size for request in edits.requests]) == (0, [(80, 60), (30, 30), (40, 40)])
    assert out.startswith("4 images: 3 made, 1 kept.")
    after = results("new")
    assert after["sub/c.avif.png"] == before["sub/c.avif.png"]
    assert after["a.png"]["key"] != before["a.png"]["key"]

    code, out, err = edits("photos", REMOVE, "--out", "new", "--json")
    assert (code, edits.requests, err) == (0, [], "")
    assert json.loads(out) == {
        "version": 1, "total": 4, "kept": 4, "made": 0, "failed": 0, "results": "new/results.csv",
    }  # fmt: skip
    assert results("new") == after
    edits("photos", "make it winter", "--out", "new")
    assert len(edits.requests) == 4, "another instruction is another edit"


def test_a_table_states_each_edit_and_its_empty_cells_take_the_options(folder, edits):
    rows = table(
        "rows.csv",
        "source,instruction,mask,reference,seed,steps,n,expert,refine_mask,output,price",
        f"photos/a.png,{REMOVE},mask.png,photos/sub/a.jpg,7,1,2,base,true,first.webp,3",
        "photos/sub/a.jpg,,,,,,,\"erase=0.75,style=0.25\",,deep/second.jpg,4",
    )  # fmt: skip
    code, _, err = edits(rows, "make it winter", "--out", "new", "--seed", "11")

    assert code == 0 and err.startswith("note: these columns are not read: price.\n")
    first, second = edits.requests
    assert (first.instruction, first.seed, first.steps, first.n, first.expert) == (REMOVE, 7, 1, 2, "base")
    assert first.mask.size == (80, 60) and first.refine_mask and [one.size for one in first.references] == [(40, 40)]
    assert (second.instruction, second.seed, second.n) == ("make it winter", 11, 1)
    assert second.expert == {"erase": 0.75, "style": 0.25} and second.mask is None
    made = results("new")
    assert list(made) == ["first-1.webp", "first-2.webp", "deep/second.jpg"]
    assert [row["seed"] for row in made.values()] == ["7", "8", "11"]
    assert made["first-2.webp"]["row"] == "rows.csv, line 2"
    assert all((folder / "new" / name).is_file() for name in made)


def test_a_row_that_cannot_be_edited_is_an_error_row_and_the_others_are_made(folder, edits):
    rows = table(
        "rows.jsonl",
        json.dumps({"source": "photos/a.png", "instruction": REMOVE, "id": "good"}),
        "no object",
        json.dumps({"source": "gone.png", "instruction": REMOVE, "id": "gone"}),
        json.dumps({"source": "photos/a.png", "instruction": "", "id": "silent"}),
        json.dumps({"source": "photos/a.png", "instruction": REMOVE, "output": "../out.png"}),
        json.dumps({"source": "photos/a.png", "instruction": REMOVE, "id": "who", "expert": "nobody"}),
        json.dumps({"source": "photos/a.png", "instruction": REMOVE, "id": "many", "n": 17}),
    )
    code, out, _ = edits(rows, "--out", "new")
    assert code == 1 and out.startswith("7 images: 1 made, 6 failed.")
    errors = [row["error"] for row in results("new").values()]
    for error, words in zip(errors, ["", "object", "exist", "instruction", "leads out", "nobody", "17"], strict=True):
        assert words in error and bool(error) == bool(words)
    assert sorted(path.name for path in Path("new").iterdir()) == ["good.png", "results.csv"]


def test_rows_of_parquet_may_hold_their_pictures_and_get_results_in_parquet(folder, edits):
    import pyarrow
    import pyarrow.parquet

    cells = [{"bytes": Path("photos/a.png").read_bytes(), "path": None}, {"bytes": None, "path": "photos/sub/a.jpg"}]
    written = pyarrow.table({"image": cells, "instruction": [REMOVE] * 2, "seed": [3.0, None], "id": [1, 2]})
    pyarrow.parquet.write_table(written, "rows.parquet")

    assert edits("rows.parquet", "--out", "new")[0] == 0
    assert edits("rows.parquet", "--out", "new")[0] == 0 and edits.requests == []
    made = pyarrow.parquet.read_table("new/results.parquet").to_pylist()
    assert [(row["output"], row["status"], row["source"]) for row in made] == [
        ("1.png", "done", ""),
        ("2.png", "done", "photos/sub/a.jpg"),
    ]
    assert made[0]["seed"] == 3 and made[1]["seconds"] > 0


def test_an_interrupted_run_says_what_is_kept_and_the_next_one_goes_on(folder, edits):
    lines = (
        "source,instruction,id",
        f"photos/a.png,{REMOVE},1",
        "photos/a.png,interrupt,2",
        f"photos/a.png,{REMOVE},3",
    )
    rows = table("rows.csv", *lines)
    code, _, err = edits(rows, "--out", "new")
    assert code == 130, err
    assert "1 of 3 images are in new; run the same command again to make the others.\n" in err
    assert list(results("new")) == ["1.png"]

    killed = Path("new/results.csv")
    killed.write_text(killed.read_text() + 'rows.csv,"3.png,done')  # in the middle of a row
    table("rows.csv", *(line.replace("interrupt", REMOVE) for line in lines))
    assert edits(rows, "--out", "new")[0] == 0 and len(edits.requests) == 2
    assert list(results("new")) == ["1.png", "2.png", "3.png"]


def test_results_of_a_batch_are_signed_and_unsigned_ones_are_made_again(folder, edits, draw_picture):
    write_authority(folder / "cred", "Studio")
    edits("photos", REMOVE, "--out", "new", "--seed", "1")
    code, *_ = edits("photos", REMOVE, "--out", "new", "--seed", "1", "--credentials", "cred")
    assert (code, len(edits.requests)) == (0, 3)
    assert read_provenance(Path("new/sub/a.jpg").read_bytes()).state == "valid"


def test_a_batch_with_a_watermark_says_which_results_are_too_small_for_one(folder, edits, draw_picture):
    Path("key").write_text("a secret key of the studio, long enough")
    draw_picture((400, 384)).save("photos/large.png")
    assert edits("photos", REMOVE, "--out", "new", "--watermark", "key")[0] == 0
    rows = results("new")
    found = find_watermark(decode_image(Path("new/large.png")))
    assert found is not None
    assert found[1].payload == Marking(key_from_file(Path("key"))).payload(rows["large.png"]["edit"])
    assert rows["large.png"]["notes"] == ""
    assert "a watermark needs 384 pixels" in rows["a.png"]["notes"]
    assert edits("photos", REMOVE, "--out", "new")[0] == 0
    assert find_watermark(decode_image(Path("new/large.png"))) is None, "made again without the mark"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", REMOVE], "give one with --out"),
        (["photos", "--out", "new"], "do not show source and instruction"),
        (["photos", REMOVE, "--out", "photos/new"], "inside"),
        (["photos", REMOVE, "--out", "mask.png"], "is a file"),
        (["photos", REMOVE, "--out", "."], "has files but no results.csv"),
        (["photos", REMOVE, "--out", "new", "--trace", "t.json"], "--trace is for one image"),
        (["photos", REMOVE, "--out", "new", "--steps", "999"], "steps is 999"),
        (["photos", REMOVE, "--out", "new", "--expert", "nobody"], "nobody"),
        (["photos", REMOVE, "--out", "new", "--mask", "gone.png"], "does not exist"),
        (["photos/a.png", REMOVE, "--workers", "2"], "--workers is for many images"),
        (["gone.csv", "--out", "new"], "does not exist"),
        (["twice.csv", "--out", "new"], "the same output 'x.png'"),
        (["filter.csv", "--out", "new"], "'early_filter' cannot differ per row"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_work_is_refused_before_anything_is_edited(folder, edits, arguments, words):
    table("twice.csv", "source,instruction,id", "photos/a.png,a,x", "photos/a.png,b,x")
    table("filter.csv", "source,instruction,early_filter", "photos/a.png,a,halving")
    code, out, err = edits(*arguments)
    assert (code, out, edits.requests) == (2, "", [])
    assert words in err and err.count("\n") == 1
    assert not Path("new").exists()


def test_a_source_is_never_replaced(folder, edits):
    Path("new").mkdir()
    Path("new/results.csv").touch()
    Path("photos/a.png").rename("new/a.png")
    rows = table("rows.csv", "source,instruction,output", f"new/a.png,{REMOVE},a.png")
    code, _, err = edits(rows, "--out", "new")
    assert code == 2 and "would replace the source 'new/a.png'" in err
