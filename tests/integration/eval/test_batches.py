"""`careedit edit --workers`: the same images as in one process, made by Ray Data."""

import csv
from pathlib import Path

import pytest

from careedit.cli.main import main

pytestmark = pytest.mark.filterwarnings(r"ignore:.*deprecated:DeprecationWarning:ray\.data\.context")


def test_workers_make_what_one_process_makes(ray_runner, untrained_set, draw_picture, tmp_path: Path, capsys) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        draw_picture((64, 48), seed=seed).save(tmp_path / "photos" / f"{seed}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")

    found = []
    for workers in ("2", "1"):
        out = tmp_path / workers
        command = ["edit", str(tmp_path / "photos"), "remove the red circle", "--out", str(out), "--seed", "3"]
        assert main([*command, "--device", "cpu", "--expert-set", str(untrained_set), "--workers", workers]) == 1
        assert "5 images: 4 made, 1 failed." in capsys.readouterr().out
        with (out / "results.csv").open(newline="") as stream:
            rows = [{**row, "seconds": ""} for row in csv.DictReader(stream)]
        found.append((rows, [(out / f"{seed}.png").read_bytes() for seed in range(4)]))
    assert found[0] == found[1]

    code = main([*command[:-2], "--workers", "64", "--out", str(tmp_path / "many")])
    assert code == 2 and "there is room for" in capsys.readouterr().err
