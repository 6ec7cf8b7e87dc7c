"""The entry points of the tiny family, as other packages use them."""

import subprocess
import sys

import pytest

from careedit import plugins
from careedit.samples import draw_samples


def test_example_edits_are_drawn_without_torch() -> None:
    script = (
        "import sys; from careedit.samples import draw_samples; draw_samples(2, side=64); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_plain_example_edits_have_no_mask_and_no_reference() -> None:
    samples = draw_samples(20, side=32, plain=True)
    assert [sample.kind for sample in samples if sample.request.mask is not None or sample.request.references] == []
    assert {sample.request.image.size for sample in samples} == {sample.target.size for sample in samples} == {(32, 32)}


@pytest.mark.parametrize(
    "group", [plugins.PACKAGED_SETS, plugins.JUDGES, plugins.BACKBONES, plugins.SAMPLES, plugins.RECIPES]
)
def test_every_group_has_an_entry_of_the_tiny_family(group: str) -> None:
    assert [name for name in plugins.names(group) if callable(plugins.load(group, name))]
