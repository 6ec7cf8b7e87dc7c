import json
import sqlite3

from careedit.errors import InputError
from careedit_deployments.cli import audit, keys
from careedit_deployments.state.audit import AuditError


def test_the_audit_log_is_whole_until_an_entry_is_changed_or_deleted(call, tmp_path):
    for name in ("anna", "bert", "carl"):
        assert call(keys, "add", name).exit_code == 0
    told = json.loads(call(audit, "verify", "--json").stdout)
    assert told["entries"] == 3
    assert told["head"] in call(audit, "verify", "--head", told["head"]).stdout
    assert isinstance(call(audit, "verify", "--head", "3").exception, InputError)
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("DELETE FROM audit WHERE number = 3")
    connection.close()
    assert call(audit, "verify").exit_code == 0, "an end that is missing is found with an earlier head only"
    assert "was cut" in str(call(audit, "verify", "--head", told["head"]).exception)
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE audit SET actor = 'eve' WHERE number = 1")
    connection.close()
    changed = call(audit, "verify").exception
    assert isinstance(changed, AuditError)
    assert "entry 1" in str(changed)
