"""A server with the default configuration sends nothing to any other machine, whatever the tests before ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connections import open_connections, own_names, recorded

if TYPE_CHECKING:
    from conftest import Demo

WHICH_CLOUD = {"169.254.169.254", "metadata.google.internal"}
"""Ray's dashboard asks the machine's own link which cloud it runs in, for its report of use, also if reports are off."""
OWN_ADDRESS = {"8.8.8.8", "2001:4860:4860::8888"}
"""Ray connects a UDP socket to one of these to see which address this machine has. Such a socket sends no packet."""


def test_a_default_server_connects_to_this_machine_only(demo: Demo) -> None:
    found, ours = recorded(demo.folder), own_names()
    started = " ".join(found["start"][""])
    for part in ("careedit demo", "dashboard.py", "default_worker.py", "monitor.py"):
        assert part in started, "the command, Ray's own processes and its workers are recorded"
    assert {host: by for host, by in found["tcp"].items() if host not in ours | WHICH_CLOUD} == {}
    assert {host: by for host, by in found["lookup"].items() if host not in ours | WHICH_CLOUD} == {}
    assert set(found["udp"]) <= OWN_ADDRESS | ours
    asked = {process for host in WHICH_CLOUD for process in found["tcp"].get(host, ())}
    assert all("dashboard.py" in process for process in asked)
    connected = open_connections(demo.pid)  # of raylet and GCS too, which are no Python
    assert connected
    assert connected <= ours | WHICH_CLOUD
