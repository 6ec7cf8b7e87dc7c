"""The environment of serving processes, a watch over a running application, and its ordered end.

Serve by itself stops all deployments at once. An edit that has not reached its expert would then fail, and a job worker would
go on to claim jobs. Here job workers and requests in progress end first, and then the deployments that they use.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import httpx2
import psutil

from careedit_deployments.cluster.fleet import INGRESS
from careedit_deployments.config import ServeConfig
from careedit_deployments.telemetry.catalogue import SERVE_LATENCY_BUCKETS_MS

logger = logging.getLogger(__name__)

SERVING = {
    "RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS": SERVE_LATENCY_BUCKETS_MS,
    # A proxy must start within 5 seconds by default, which is too short on a machine that loads models at the same time.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # A proxy that died is replaced after three failed checks. By default they are 10 seconds apart, in which nothing listens.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # A name: importing the module here would import the web framework.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "careedit_deployments.cluster.proxy:middlewares",
    # Deployments call each other directly by gRPC instead of through Ray's actor calls and object store. The replicas' gRPC
    # servers run in any case, with Ray's TLS and token authentication if they are on.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # gRPC's own limit is 4 MiB, which a picture of 1.4 megapixels exceeds; what a request may send is limited before.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    # Ray runs workers at niceness 15; serving is the only work here.
    "RAY_worker_niceness": "0",
}
"""Environment of every Ray process that serves: `careedit serve` sets it before it imports Ray, and so do the pods."""

HEAD_PROCESSES = frozenset({"raylet", "gcs_server"})
"""Names of the processes that a cluster cannot do without; Ray starts them as children of `careedit serve`."""
SILENT_S = 120.0
"""Seconds without any answer after which a server counts as lost although its head processes run. A lost proxy or ingress
replica is replaced well before."""
POLL_S = 0.25
"""Seconds between two checks of what is still in progress."""
ANSWER_S = 10.0
"""Seconds that the ingress has to say what is in progress."""
DELETE_S = 30.0
"""Seconds that deployments have to end once nothing is in progress, and that Ray has after them."""


class Watch:
    """Checks whether a cluster that this process started still works: its head processes, and whether the server answers.

    If Ray's own processes are lost, a server accepts connections but never answers, and the process that started it goes on.
    The server is asked from a thread of its own, at intervals.
    """

    def __init__(self, url: str, *, every_s: float = 5.0, patience_s: float = 30.0) -> None:
        self._url, self._every_s, self._patience_s = f"{url}/healthz", every_s, patience_s
        self._answered = time.monotonic()
        self._head = [(one, name) for one in psutil.Process().children() if (name := one.name()) in HEAD_PROCESSES]
        threading.Thread(target=self._run, daemon=True, name="careedit-watch").start()

    @property
    def lost(self) -> str | None:
        """Why the cluster is lost, as a sentence; None while it works."""
        for process, name in self._head:
            if _has_ended(process):
                return f"Ray's {name} has ended, so the cluster is lost; this process ends too."
        if time.monotonic() - self._answered > SILENT_S:
            return f"The server has not answered for {SILENT_S:g} seconds; its cluster is lost, so this process ends."
        return None

    def kill_rest(self) -> None:
        """Kill what is left of the lost cluster. Without its GCS, Ray's other processes would wait for it for a minute."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _run(self) -> None:
        with httpx2.Client(timeout=self._patience_s, trust_env=False) as client:
            while True:
                try:
                    client.get(self._url)  # any response counts
                    self._answered = time.monotonic()
                except httpx2.HTTPError as error:
                    logger.debug("The server does not answer (%s).", type(error).__name__)
                time.sleep(self._every_s)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def take_down(config: ServeConfig) -> bool:
    """End an application of the Ray cluster that this process is connected to. Returns whether all work ended in time.

    Requests in progress have `ingress.graceful_shutdown_s` seconds to end. Jobs that do not end within seconds go back into
    the queue. New requests get status 503.
    """
    from ray import serve

    idle = _drain(config)
    serve.delete(config.name, _blocking=False)  # the blocking one gives up after a minute
    end = time.monotonic() + DELETE_S + (0.0 if idle else config.ingress.graceful_shutdown_s)
    while config.name in serve.status().applications and time.monotonic() < end:
        time.sleep(POLL_S)
    return idle


def within(work: Callable[[], object], seconds: float) -> bool:
    """Do `work` in a thread and raise what it raises. Returns False if it has not ended after `seconds`.

    The main thread stays free to handle signals, which it could not while it waits for a cluster that is gone.
    """
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True, name="careedit-shutdown")
    thread.start()
    end = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < end:
        thread.join(0.2)
    if failure:
        raise failure[0]
    return not thread.is_alive()


def _drain(config: ServeConfig) -> bool:
    """Tell the ingress to accept nothing new, and wait until it has nothing in progress. Returns whether it has."""
    from ray import serve

    now = time.monotonic()
    end, answered = now + config.ingress.graceful_shutdown_s, now
    while time.monotonic() < end:
        try:
            ingress = serve.get_deployment_handle(INGRESS, config.name)
            if not sum(ingress.broadcast("begin_stopping").results(timeout_s=ANSWER_S)):
                return True
            answered = time.monotonic()
        except Exception as error:  # noqa: BLE001 - a new handle does not know a replica yet, or no replica exists
            if time.monotonic() - answered > ANSWER_S:
                logger.warning("The ingress does not answer; it is ended without waiting (%s).", type(error).__name__)
                return False
        time.sleep(POLL_S)
    return False
