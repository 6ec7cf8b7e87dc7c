"""Times of a tenant, and the report of what is kept."""

import json

from careedit_deployments.cli import privacy, tenants


def test_a_tenant_gets_times_of_its_own_and_the_report_shows_them(call):
    tenant = json.loads(call(tenants, "add", "studio", "--json").stdout)["tenant"]["id"]
    assert "kept as given" in call(tenants, "retention", tenant, "--jobs", "2", "--edits", "30").stdout
    report = json.loads(call(privacy, "report", "--json").stdout)
    assert report["tenants"] == {tenant: {"jobs": 2.0, "sessions": None, "edits": 30.0, "assignments": None}}
    assert (report["kinds"]["edits"], report["kinds"]["audit"]["stored"]) == (
        {"days": 90.0, "stored": 0, "oldest": None},
        2,
    )
    assert (report["swept_at"], report["swept"]) == (None, {})
    shown = call(privacy, "report").stdout
    assert f"{tenant} has days of its own: jobs 2, edits 30." in shown and "has not deleted anything yet" in shown
    assert "as the configuration says" in call(tenants, "retention", tenant).stdout
    assert json.loads(call(privacy, "report", "--json").stdout)["tenants"] == {}
    assert "'tenant_x' does not exist" in str(call(tenants, "retention", "tenant_x", "--jobs", "1").exception)
    for days in ("0", "inf", "40000"):
        assert "Retention does not accept" in str(call(tenants, "retention", tenant, "--jobs", days).exception)
