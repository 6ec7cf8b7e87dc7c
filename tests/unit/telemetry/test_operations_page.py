from pathlib import Path

from careedit_deployments.telemetry.catalogue import METRICS

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def test_the_table_of_metrics_is_the_catalogue() -> None:
    text = PAGE.read_text("utf-8")
    table = text.split("<!-- metrics: begin -->\n")[1].split("\n<!-- metrics: end -->")[0]
    wanted = ["| metric | kind | labels | help |", "| --- | --- | --- | --- |"]
    wanted += [
        f"| `{info.prometheus}` | {info.kind} | {', '.join(info.labels) or '-'} | {info.help} |" for info in METRICS
    ]
    assert table.splitlines() == wanted
