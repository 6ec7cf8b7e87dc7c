import hashlib

import numpy as np
import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.images import image_sha256
from careedit_deployments.policy.contract import PolicyInput, PolicyPicture
from careedit_deployments.policy.hashes import difference_hash, hash_list
from careedit_deployments.policy.words import words_list


def about(instruction="remove it", *pictures, file_sha256=None):
    shown = [PolicyPicture(role="source", picture=one, file_sha256=file_sha256) for one in pictures]
    return PolicyInput(
        stage="input", level="auto", instruction=instruction, pictures=tuple(shown), edit="edit_1", tenant="t"
    )


def picture(seed=1, size=(90, 80)):
    """A picture with large soft shapes, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def verdict_on(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("# a comment\nass\nBad Thing\nStraße\ncafé\n*禁止*\nनमस्ते\nnaked*\n", encoding="utf-8")
    check = words_list(str(file))
    return lambda text: check(about(text)).verdict


@pytest.mark.parametrize(
    "text",
    [
        "an ass.",
        "ASS",
        "a\u200bs\u200ds",
        "a\u00ads\u2060s",
        "ａｓｓ",
        "𝐚𝐬𝐬",
        "a\u0336s\u0336s\u0336",
        "a\ufe0fs\u034fs",
        "bad\n\u3000thing",
        "bad-thing",
        "bad_thing",
        "STRASSE",
        "cafe\u0301",
        "这是禁止的",
        "say नमस्ते now",
        "nakedness",
    ],
)
def test_a_listed_word_is_found_however_it_is_disguised(verdict_on, text):
    assert verdict_on(text) == "refuse"


@pytest.mark.parametrize("text", ["a glass of grass", "assess it", "bad other thing", "cafe", "unnaked", "नमस", ""])
def test_other_words_are_allowed(verdict_on, text):
    assert verdict_on(text) == "allow"


def test_a_known_file_or_its_pixels_are_found(tmp_path):
    known, other = picture(1), picture(2)
    data = b"the file as it was sent"
    file = tmp_path / "hashes.txt"
    file.write_text(f"# known\nsha256:{hashlib.sha256(data).hexdigest()}\nSHA256:{image_sha256(known).upper()}\n")
    check = hash_list(str(file), verdict="mark")
    assert check(about("x", known)).verdict == "mark"
    assert check(about("x", other)).verdict == "allow"
    assert check(about("x", other, file_sha256=hashlib.sha256(data).hexdigest())).verdict == "mark"


def test_a_difference_hash_finds_scaled_compressed_and_brightened_copies_and_no_other_picture(tmp_path):
    known = picture(1)
    known.save(tmp_path / "copy.jpg", quality=40)
    with Image.open(tmp_path / "copy.jpg") as opened:
        copies = [known.resize((45, 40)), opened.convert("RGB"), known.point(lambda value: min(255, value + 8))]
    file = tmp_path / "hashes.txt"
    file.write_text(f"dhash:{difference_hash(known):016x}\n")
    check = hash_list(str(file))
    assert [check(about("x", copy)).verdict for copy in copies] == ["refuse"] * 3
    assert {check(about("x", picture(seed))).verdict for seed in range(2, 40)} == {"allow"}
    assert check(about("x", Image.new("RGB", (64, 64), "red"))).verdict == "allow"


def test_a_difference_hash_is_the_one_that_imagehash_computes():
    ramp = Image.fromarray(np.tile(np.arange(0, 252, 28, dtype=np.uint8), (8, 1)))
    assert ramp.size == (9, 8)
    assert difference_hash(ramp) == 2**64 - 1, "every pixel is darker than its right neighbour"
    assert difference_hash(ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0


@pytest.mark.parametrize(
    ("make", "content", "words"),
    [
        (words_list, None, "cannot be read"),
        (words_list, "# nothing\n\n", "has no words"),
        (words_list, "***\n", "is not a word"),
        (hash_list, None, "cannot be read"),
        (hash_list, "", "has no hashes"),
        (hash_list, "md5:12\n", "Line 1"),
        (hash_list, f"dhash:{0:016x}\n", "every flat picture"),
    ],
)
def test_a_list_that_is_wrong_is_refused_with_a_sentence(tmp_path, make, content, words):
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=words):
        make(str(file))
