"""Sample folders: what is written is read back, what is damaged is refused by a sentence."""

import json

import pytest
from PIL import Image

from careedit.errors import InputError
from careedit_tiny import KINDS, draw_sample
from careedit_tiny.world.store import (
    DRAWABLE,
    LISTING,
    SEED_STRIDE,
    draw_many,
    extra_files,
    judge_folder,
    parse_kinds,
    read_samples,
    write_samples,
)


def write(folder, kinds=("add", "masked", "reference"), count=6, **options):
    return list(write_samples(draw_many(kinds, count), folder, **options))


def edit_listing(folder, change):
    rows = [json.loads(line) for line in (folder / LISTING).read_text().splitlines()]
    change(rows)
    (folder / LISTING).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_is_written_is_read_back(tmp_path):
    written = write(tmp_path / "deep" / "folder", size=48)
    assert read_samples(tmp_path / "deep" / "folder") == written
    for stored in written:
        for role, name in stored.files.items():
            drawn = getattr(stored.sample, f"{role}_image")(48)
            with Image.open(tmp_path / "deep" / "folder" / name) as saved:
                assert saved.tobytes() == drawn.tobytes(), name


def test_a_sample_has_a_mask_or_a_reference_only_where_its_edit_takes_one(tmp_path):
    roles = {stored.sample.operation.split(".")[0]: set(stored.files) for stored in write(tmp_path)}
    assert roles == {
        "add": {"source", "target"},
        "masked": {"source", "target", "mask"},
        "reference": {"source", "target", "reference"},
    }


def test_the_listing_is_written_last_and_no_temporary_file_stays(tmp_path):
    drawing = write_samples(draw_many(("add",), 3), tmp_path)
    next(drawing)
    assert not (tmp_path / LISTING).exists()
    list(drawing)
    assert (tmp_path / LISTING).exists()
    assert not list(tmp_path.glob(".*"))


def test_the_format_of_a_row_is_version_1(tmp_path):
    write(tmp_path, ("remove",), 1)
    row = json.loads((tmp_path / LISTING).read_text())
    assert list(row) == ["version", "size", "files", "sample"]
    assert (row["version"], row["size"]) == (1, 64)
    identity = row["sample"]["id"]
    assert row["files"] == {"source": f"{identity}-source.png", "target": f"{identity}-target.png"}
    fields = [
        "id",
        "kind",
        "operation",
        "expert",
        "instruction",
        "held_out_phrasing",
        "box",
        "source",
        "target",
        "reference",
    ]
    assert list(row["sample"]) == fields
    assert row["sample"] == json.loads(json.dumps(draw_sample("remove", 0, "test").to_dict()))


def test_two_seeds_share_no_sample():
    ids = [{sample.id for sample in draw_many(("add", "chain"), 6, seed=seed)} for seed in (0, 1, 2)]
    assert not ids[0] & ids[1] and not ids[1] & ids[2]
    assert all(len(each) == 3 + 3 * 3 for each in ids)


def test_kinds_are_parsed():
    assert parse_kinds("remove, add,remove") == ("remove", "add")
    assert parse_kinds("all") == DRAWABLE == (*KINDS, "infeasible", "chain")
    assert parse_kinds("masked.add") == ("masked.add",)


@pytest.mark.parametrize(
    ("text", "words"), [("paint", "'paint' is not a kind of edit; choose from all, add"), (" ,", "No kind")]
)
def test_an_unknown_kind_is_refused_with_the_known_ones(text, words):
    with pytest.raises(InputError, match=words):
        parse_kinds(text)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((("add",), 0), {}, "n is 0"),
        ((("add",), -3), {}, "n is -3"),
        ((("add",), SEED_STRIDE + 1), {}, "at most 10,000"),
        ((("add",), 1), {"seed": -1}, "seeds of 0 to 99"),
        ((("add",), 1), {"seed": 100}, "seeds of 0 to 99"),
        ((("add",), 1), {"split": "holiday"}, "'holiday' is not a split"),
        ((("masked", "masked.add"), 2), {}, "name only one of them"),
    ],
)
def test_draws_out_of_range_are_refused(arguments, options, words):
    with pytest.raises(InputError, match=words):
        draw_many(*arguments, **options)


@pytest.mark.parametrize("size", [0, 31, 1025])
def test_a_size_that_cannot_be_judged_is_not_drawn(tmp_path, size):
    with pytest.raises(InputError, match=f"The size is {size}"):
        write(tmp_path / "out", size=size)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_refused_unless_forced(tmp_path):
    write(tmp_path, ("add",), 2)
    (tmp_path / "mine.txt").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match="is not empty"):
        write(tmp_path, ("remove",), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    write(tmp_path, ("remove",), 1, force=True)
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"remove", LISTING, "mine.txt"}


def test_force_replaces_a_damaged_listing(tmp_path):
    (tmp_path / LISTING).write_text("not json")
    written = write(tmp_path, ("add",), 1, force=True)
    assert read_samples(tmp_path) == written


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        write(tmp_path / "file")


def test_the_truth_judged_against_itself_is_all_compliant(tmp_path):
    stored = write(tmp_path, DRAWABLE, len(DRAWABLE))
    judged = list(judge_folder(stored, tmp_path))
    assert [entry.stored for entry in judged] == stored
    assert all(entry.verdict.compliant for entry in judged)
    assert extra_files(stored, tmp_path) == []


def test_missing_unreadable_and_extra_pictures_are_named(tmp_path):
    stored = write(tmp_path / "samples", ("add",), 3)
    edited = tmp_path / "edited"
    edited.mkdir()
    missing, unreadable, wrong = (entry.sample.id for entry in stored)
    (edited / f"{unreadable}.png").write_bytes(b"no picture")
    stored[2].sample.source_image().save(edited / f"{wrong}.png")
    stored[2].sample.target_image().save(edited / f"{wrong}-target.png")
    stored[2].sample.target_image().save(edited / "zebra.png")
    judged = {entry.stored.sample.id: entry for entry in judge_folder(stored, edited)}
    assert judged[missing].file is None and judged[missing].problem == f"{missing}.png is missing."
    assert judged[unreadable].verdict is None and judged[unreadable].file == f"{unreadable}.png"
    assert judged[unreadable].problem.endswith(".")
    assert judged[wrong].file == f"{wrong}.png" and not judged[wrong].verdict.followed
    assert extra_files(stored, edited) == ["zebra.png"]


def test_a_picture_that_is_not_square_counts_as_unreadable(tmp_path):
    stored = write(tmp_path, ("add",), 1)
    Image.new("RGB", (64, 32)).save(tmp_path / f"{stored[0].sample.id}.png")
    (entry,) = judge_folder(stored, tmp_path)
    assert entry.verdict is None and "64x32" in entry.problem


def test_an_edited_folder_that_does_not_exist_is_refused(tmp_path):
    stored = write(tmp_path, ("add",), 1)
    with pytest.raises(InputError, match="of edited pictures does not exist"):
        list(judge_folder(stored, tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[0].update(version=2), "Line 1 .* is of format 2, and this careedit reads format 1"),
        (lambda rows: rows[1].pop("sample"), "Line 2 .* is damaged"),
        (lambda rows: rows[0]["sample"].update(colour="red"), "Line 1 .* is damaged"),
        (lambda rows: rows[0]["sample"]["source"].update(sky="blue"), "Line 1 .* is damaged"),
        (lambda rows: rows[0]["files"].update(source="../source.png"), "outside its folder"),
        (lambda rows: rows[0]["sample"].update(id="../../etc/x"), "outside its folder"),
        (lambda rows: rows.append(rows[0]), "lists a sample twice"),
        (lambda rows: rows.clear(), "lists no sample"),
    ],
)
def test_a_damaged_listing_is_refused_by_a_sentence(tmp_path, change, words):
    write(tmp_path, ("add",), 2)
    edit_listing(tmp_path, change)
    with pytest.raises(InputError, match=words):
        read_samples(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "{", "{}"])
def test_a_line_that_is_no_row_is_refused(tmp_path, text):
    (tmp_path / LISTING).write_text(text + "\n")
    with pytest.raises(InputError, match=r"Line 1 .* is damaged"):
        read_samples(tmp_path)


def test_a_folder_without_samples_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"has no readable {LISTING}"):
        read_samples(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_samples(tmp_path / "nowhere")
