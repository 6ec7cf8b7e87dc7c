"""Environment of every Ray process that serves: `careedit serve` sets it before it imports Ray, the pods have it, too."""

from __future__ import annotations

from careedit_deployments.telemetry.catalogue import SERVE_LATENCY_BUCKETS_MS

CALLBACK = "careedit_deployments.cluster.proxy:middlewares"
"""Where Serve's proxies find what they add; a name, because reading it here must not take the web framework."""

SERVING = {
    "RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS": SERVE_LATENCY_BUCKETS_MS,
    # A proxy has 5 seconds to come up, which is too short on a machine that loads models meanwhile.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": CALLBACK,
    # Workers yield to everything else on the machine, though they are what is wanted there.
    "RAY_worker_niceness": "0",
}
"""Variables and their values."""
