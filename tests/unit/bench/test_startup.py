"""`careedit bench start` names the processes of a server for people."""

import psutil
import pytest

from careedit_deployments.bench.memory import name_of
from careedit_deployments.bench.startup import processes


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("ray::ServeReplica:careedit:expert-main-erase.initialize_and_get_metadata", "expert-main-erase"),
        ("ray::ServeReplica:careedit:ingress", "ingress"),
        ("ray::ServeController.listen_for_change", "ServeController"),
        ("/venv/bin/python -u /venv/lib/ray/_private/log_monitor.py --session-dir=/tmp/ray", "log_monitor.py"),
        ("/venv/lib/ray/core/src/ray/raylet/raylet --name=x", "raylet"),
        ("", "unknown"),
    ],
)
def test_a_process_has_a_name_for_people(line: str, name: str) -> None:
    assert name_of(line.split()) == name


def test_a_process_that_has_ended_is_left_out() -> None:
    gone = psutil.Popen(["sleep", "0"])
    gone.wait()
    (row,) = processes(psutil.Process(), [gone])
    assert (row.name, row.born_s) == ("this command", 0.0) and row.cpu_s > 0
