import hashlib
import io
import stat

import pytest
from PIL import Image

from careedit.errors import InputError, ManifestError
from careedit.files import (
    atomic_path,
    file_digest,
    folder_digest,
    json_digest,
    parse_yaml,
    png_base64,
    png_bytes,
    png_data_url,
    read_yaml,
    write_atomic,
)


def test_a_file_is_replaced_as_a_whole_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    write_atomic(path, "zwölf\r\n")

    assert path.read_bytes() == "zwölf\r\n".encode()
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_a_writer_that_fails_leaves_the_old_content_and_no_temporary_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError

    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_png_keeps_its_pixels_and_is_the_same_in_every_form():
    image = Image.linear_gradient("L").convert("RGB")
    data = png_bytes(image)

    assert Image.open(io.BytesIO(data)).tobytes() == image.tobytes()
    assert png_data_url(image) == f"data:image/png;base64,{png_base64(image)}"
    assert len(png_bytes(image, compress_level=0)) > len(data)


def test_a_json_digest_does_not_depend_on_the_order_of_keys():
    assert json_digest({"a": 1, "b": "ä"}) == json_digest({"b": "ä", "a": 1})
    assert json_digest({"a": "ä"}) == hashlib.sha256('{"a": "ä"}'.encode()).hexdigest()
    assert json_digest({"a": "ä"}, ensure_ascii=True) == hashlib.sha256(b'{"a": "\\u00e4"}').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_digest(float("nan"))


def test_a_folder_digest_covers_names_and_contents(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.bin").write_bytes(b"b")
    (tmp_path / "a.txt").write_bytes(b"a")
    a, b = hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b"b").hexdigest()

    assert file_digest(tmp_path / "a.txt") == a
    assert folder_digest(tmp_path) == hashlib.sha256(f"a.txt {a}\nsub/b.bin {b}\n".encode()).hexdigest()
    assert folder_digest(tmp_path, "*") == hashlib.sha256(f"a.txt {a}\n".encode()).hexdigest()
    assert folder_digest(tmp_path, suffixes=(".bin",)) == hashlib.sha256(f"sub/b.bin {b}\n".encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "x.yaml, line 4 is not valid YAML (the field 'c' is given twice); correct it."),
        ("a: &x 1\nb: *x\n", "x.yaml, line 2 is not valid YAML (aliases (*name) are not allowed); correct it."),
        ("on: 1\n", "x.yaml, line 1 is not valid YAML (the field name True is not text, put it in quotes)"),
        ("a: 1\nb: [\n", "x.yaml, line 3 is not valid YAML (while parsing"),
        ("a: !!python/object:os.system 8", "x.yaml, line 1 is not valid YAML (could not determine a constructor"),
        ("- 1\n", "x.yaml must hold fields and values, but it is a list"),
        ("", "x.yaml must hold fields and values, but it is empty"),
        ("#" * (2 << 20), "x.yaml is larger than 1,048,576 bytes"),
        ("a: " + "[" * 5000, "x.yaml is not valid YAML"),
    ],
)
def test_yaml_that_hides_mistakes_is_refused_with_file_and_line(text, said):
    with pytest.raises(ManifestError) as caught:
        parse_yaml(text, "x.yaml", error=ManifestError)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_yaml_file_that_cannot_be_read_is_an_error_with_its_path(tmp_path):
    path = tmp_path / "suite.yaml"
    with pytest.raises(InputError, match=r"The suite '.*suite.yaml' cannot be read \(No such file or directory\)"):
        read_yaml(path, "suite")
    path.write_bytes(b"a: \xff")
    with pytest.raises(InputError, match=r"suite.yaml' is not UTF-8 text"):
        read_yaml(path, "suite")
    path.write_text("a: 1\na: 2")
    with pytest.raises(InputError, match=r"The suite '.*suite.yaml', line 2 is not valid YAML"):
        read_yaml(path, "suite")
