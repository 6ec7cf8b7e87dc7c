"""The end of a served application, in order: job workers, requests in progress, and only then what they stand on; and a
watch over one whose cluster is gone.

Serve by itself takes all deployments away at once. An edit that has not reached its expert yet would then find none, and a
job worker would go on to claim jobs that nobody can make.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import httpx2

from careedit_deployments.cluster.fleet import INGRESS
from careedit_deployments.config import ServeConfig

logger = logging.getLogger(__name__)

SILENT_S = 120.0
"""Seconds without any answer after which a server counts as lost; a proxy that died is back within half a minute."""
LOOK_S = 0.25
"""Seconds between two looks at what is still in progress."""
ANSWER_S = 10.0
"""Seconds that the ingress may take to say what it has in progress."""
DELETE_S = 30.0
"""Seconds that deployments may take to end once nothing is in progress, and Ray after them."""


class Watch:
    """Asks a server every so often, from a thread of its own, whether it answers at all.

    Where Ray's own processes are lost, a server takes connections and never answers, and nobody who supervises the process
    that started it would see that.
    """

    def __init__(self, url: str, *, every_s: float = 5.0, patience_s: float = 30.0) -> None:
        self._url, self._every_s, self._patience_s = f"{url}/healthz", every_s, patience_s
        self._answered = time.monotonic()
        threading.Thread(target=self._run, daemon=True, name="careedit-watch").start()

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._answered

    def _run(self) -> None:
        while True:
            try:
                httpx2.get(self._url, timeout=self._patience_s, trust_env=False)  # any answer is a sign of life
                self._answered = time.monotonic()
            except httpx2.HTTPError as error:
                logger.debug("The server does not answer (%s).", type(error).__name__)
            time.sleep(self._every_s)


def take_down(config: ServeConfig) -> bool:
    """End an application of the Ray cluster that this process is connected to.

    Requests in progress have `ingress.graceful_shutdown_s` seconds to end; jobs that are not done within seconds go back
    into the queue. New requests are answered 503. False: something was still in progress when that time was over.
    """
    from ray import serve

    emptied = _empty(config)
    serve.delete(config.name, _blocking=False)  # the blocking one gives up after a minute
    end = time.monotonic() + DELETE_S + (0.0 if emptied else config.ingress.graceful_shutdown_s)
    while config.name in serve.status().applications and time.monotonic() < end:
        time.sleep(LOOK_S)
    return emptied


def within(work: Callable[[], object], seconds: float) -> bool:
    """Do `work` in a thread; False if it has not ended after `seconds`. What it raises is raised here.

    The main thread stays free to hear signals, which it does not while it waits for a cluster that is gone.
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


def _empty(config: ServeConfig) -> bool:
    """Have the ingress finish what it has in progress and begin nothing; whether it has."""
    from ray import serve

    now = time.monotonic()
    end, answered = now + config.ingress.graceful_shutdown_s, now
    while time.monotonic() < end:
        try:
            ingress = serve.get_deployment_handle(INGRESS, config.name)
            if not sum(ingress.broadcast("begin_stopping").results(timeout_s=ANSWER_S)):
                return True
            answered = time.monotonic()
        except Exception as error:  # noqa: BLE001 - a fresh handle knows no replica yet; or there is none
            if time.monotonic() - answered > ANSWER_S:
                logger.warning("The ingress does not answer and is ended without care (%s).", type(error).__name__)
                return False
        time.sleep(LOOK_S)
    return False
