import pytest

import stores
from careedit_deployments.cli.session_key import NAME, session_key
from careedit_deployments.config import ServeConfig
from careedit_deployments.http.auth import hash_key
from careedit_deployments.state.records import ANONYMOUS


@pytest.fixture
def config(tmp_path):
    state = {"database": f"sqlite+aiosqlite:///{tmp_path}/state.db", "blobs": str(tmp_path / "blobs")}
    return ServeConfig(arms={"tiny": {"expert_set": "tiny"}}, state=state)


def test_a_key_of_one_run_is_valid_until_its_end_and_replaces_that_of_a_crashed_run(config):
    def owner_of(key):
        found = stores.with_store(config.state)(lambda store: store.keys.find(hash_key(key)))
        return None if found is None else (found.tenant.id, found.key.name)

    crashed = session_key(config)
    first = crashed.__enter__()
    assert owner_of(first) == (ANONYMOUS, NAME)
    with session_key(config) as second:
        assert (owner_of(first), owner_of(second)) == (None, (ANONYMOUS, NAME))
    assert owner_of(second) is None
    crashed.gen.close()
