"""The loss curve beside a report and in a card."""

import sys

import pytest
from PIL import Image

from careedit.errors import CareEditError
from careedit.finetune.card import Card, render
from careedit.finetune.curve import check_curve, draw_curve, save_report
from careedit.finetune.loop import TrainConfig, TrainReport

REPORT = TrainReport("line", TrainConfig(steps=150, learning_rate=0.1), 3.0, 2, ((50, 2.0), (100, 0.5), (150, 0.01)))
CARD = Card("A line", "Fits.", "careedit train line", "Points.", {"Error": "small"}, ("Lines only.",))


def test_a_report_has_its_curve_beside_it(tmp_path):
    curve = save_report(REPORT, tmp_path / "line.json")
    assert TrainReport.load(tmp_path / "line.json") == REPORT
    assert curve == tmp_path / "line.png"
    colours = Image.open(curve).convert("RGB").getcolors(100_000)
    assert colours is not None
    assert len(colours) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["line.json", "line.png"]


def test_the_same_curve_is_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        draw_curve(REPORT, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_missing_matplotlib_is_told_before_training(monkeypatch):
    check_curve()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(CareEditError, match=r"pip install 'careedit\[train\]'"):
        check_curve()


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(CareEditError, match="cannot be written"):
        draw_curve(REPORT, tmp_path / "nowhere" / "line.png")


@pytest.mark.parametrize("curve", [None, "loss.png"])
def test_a_card_shows_the_curve_it_has(curve):
    card = Card(CARD.title, CARD.summary, CARD.recipe, CARD.data, CARD.quality, CARD.limits, curve=curve)
    assert ("![Loss over steps](loss.png)" in render(card, REPORT, licence="MIT")) == (curve is not None)
