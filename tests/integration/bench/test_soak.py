"""The soak's own bookkeeping, against a server that edits at once: what became of every request, and who is watched."""

import pytest

from careedit_deployments.bench.soak import work
from fake_backend import FakeBackend
from served import serve


@pytest.mark.parametrize("broken", [False, True])
def test_the_soak_counts_what_became_of_every_request(broken, tmp_path, capsys):
    backend = FakeBackend(judge=False)
    if broken:
        backend.broken.add("tiny")
    with serve(tmp_path, backend) as served:
        document = work(served.url, served.services.config, seconds=3, clients=2)
    outcomes = document["outcomes"]
    assert outcomes["left"] > 0 and outcomes["refused"] == 0
    assert (outcomes["failed"] > 0, outcomes["made"] > 0) == (broken, not broken)
    assert sum(outcomes.values()) <= len(backend.calls) + outcomes["left"]
    assert document["seconds"] >= 3
    assert ("An edit failed: No replica of 'tiny' answers" in capsys.readouterr().err) is broken
