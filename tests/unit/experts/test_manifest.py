from __future__ import annotations

from typing import Any

import pytest

from careedit.errors import AdapterError, ManifestError
from careedit.experts import ExpertManifest

GOLDEN = """\
format_version: 1
name: erase
competence: erase
description: Removes an object and fills in what was behind it.
handles:
- remove
- mask
file: adapter.safetensors
sha256: '0000000000000000000000000000000000000000000000000000000000000000'
rank: 8
alpha: 8.0
format: diffusers
base:
  name: tiny base
  fingerprint: 52c0
licence: Apache-2.0
provenance: Drawn at random for a test.
"""


def test_the_written_format_is_the_golden_one(manifest):
    made = manifest()
    assert made.to_yaml() == GOLDEN.replace("52c0", made.base.fingerprint)


def test_a_manifest_survives_writing_and_reading(manifest):
    made = manifest(description="Löscht Objekte: 'alles'.", alpha=16.5)
    assert ExpertManifest.from_yaml(made.to_yaml(), "expert.yaml") == made


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rank: 8", "rank: 8\ncolour: red", "has no field 'colour'"),
        ("  name: tiny base", "  name: tiny base\n  size: 3", "has no field 'base.size'"),
        ("licence: Apache-2.0\n", "", "needs the field 'licence', which is missing; add it"),
        ("rank: 8", "rank: '8'", "does not accept '8' for its field 'rank'"),
        ("rank: 8", "rank: 0", "does not accept 0 for its field 'rank'"),
        ("alpha: 8.0", "alpha: .nan", "has a value that no field accepts"),
        ("alpha: 8.0", "alpha: -1", "for its field 'alpha'"),
        ("format: diffusers", "format: pickle", "for its field 'format'"),
        ("format_version: 1", "format_version: 2", "for its field 'format_version'"),
        ("handles:", "handles: &a\n- x\nmore: *a\nrest:", "aliases"),
        ("rank: 8", "rank: 8\nrank: 16", "line 11 is not valid YAML (the field 'rank' is given twice)"),
        ("name: erase", "name: [", "not valid YAML"),
        ("name: erase", "name: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("licence: Apache-2.0", "licence: 2024-01-01", "has a value that no field accepts"),
    ],
)
def test_a_flawed_manifest_is_refused_in_a_sentence_that_names_the_flaw(manifest, old, new, words):
    text = manifest().to_yaml()
    assert old in text
    with pytest.raises(ManifestError) as caught:
        ExpertManifest.from_yaml(text.replace(old, new, 1), "expert.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1\n- 2", "just text", "#" * 2_000_000])
def test_a_file_that_is_no_manifest_is_refused(text):
    with pytest.raises(ManifestError):
        ExpertManifest.from_yaml(text, "expert.yaml")


@pytest.mark.parametrize("name", ["", "Erase", "../erase", "a/b", "-a", "a" * 65, "a b", "ä", "base", "auto", "a\n"])
def test_a_name_that_is_unsafe_or_taken_is_refused(manifest, name):
    with pytest.raises(ManifestError):
        manifest(name=name)


@pytest.mark.parametrize(
    "file",
    ["../a.safetensors", "/a.safetensors", "a/../../b.safetensors", "a\\b.safetensors", "C:a.safetensors", "a.bin", ""],
)
def test_a_file_name_that_leads_out_or_is_no_safetensors_is_refused(manifest, file):
    with pytest.raises(AdapterError):
        manifest(file=file)


def test_a_manifest_cannot_be_changed(manifest):
    made: Any = manifest()
    with pytest.raises(ValueError, match="frozen"):
        made.rank = 16
