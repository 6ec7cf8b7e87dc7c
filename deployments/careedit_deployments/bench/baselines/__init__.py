"""What a team would write without the platform: one editor behind a server, its adapter switched for each request.

Both servers speak as much of `POST /v1/images/edits` as the benchmark sends, and `GET /health`. Each runs in a process of
its own: `python -m careedit_deployments.bench.baselines NAME SETTINGS`, SETTINGS being `BaselineSettings` as JSON.
"""

from careedit_deployments.bench.baselines.settings import NAMES, BaselineSettings

__all__ = ["NAMES", "BaselineSettings"]
