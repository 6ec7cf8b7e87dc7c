"""`PolicyHook` asks the configured checks about an edit, within their time limits and the edit's deadline.

The rule for a check that fails, answers nonsense or takes too long: with `on_failure: refuse` the edit ends with status 503,
because the client did nothing wrong and may try again; with "allow" it goes on.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import import_module

from careedit.errors import CareEditError, InputError
from careedit_deployments.checks import PolicyCheck, PolicyConfig, Stage
from careedit_deployments.errors import DeadlineError, PolicyError, PolicyUnavailableError
from careedit_deployments.policy.contract import Check, PolicyInput, PolicyMark, Verdict
from careedit_deployments.policy.service import PolicyService
from careedit_deployments.telemetry.catalogue import PolicyOutcome
from careedit_deployments.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_COUNTED: Mapping[str, PolicyOutcome] = {"allow": "allowed", "refuse": "refused", "mark": "marked"}
_GENERAL: Mapping[str, str] = {
    "input": "This server's policy does not allow the request; change the prompt or the pictures.",
    "output": "This server's policy does not allow the result; change the prompt or the pictures.",
}


def load_check(config: PolicyCheck) -> Check:
    """The check that a configuration names. Raises `InputError` if it cannot be made."""
    if config.is_service:
        return PolicyService(config)
    module, _, name = config.use.partition(":")
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The policy check {config.use!r} cannot be imported ({error}); set `use` to package.module:function."
        ) from None
    try:
        check = make(**config.options)
    except TypeError as error:
        raise InputError(f"The policy check {config.name!r} cannot be made ({error}); correct its options.") from None
    if not callable(check):
        raise InputError(f"{config.use!r} returns {type(check).__name__}, not a check; it must return a function.")
    return check  # type: ignore[no-any-return]  # what it returns is checked at each call


class _Loaded:
    """A check with what bounds its calls."""

    def __init__(self, config: PolicyCheck) -> None:
        self.config, self._check = config, load_check(config)
        is_async = inspect.iscoroutinefunction(self._check) or inspect.iscoroutinefunction(
            getattr(self._check, "__call__", None)  # noqa: B004 - the method is looked at, not called
        )
        self._at_once = asyncio.Semaphore(config.concurrency)
        # A call that hangs keeps its thread, so a check that always hangs soon gets no calls, and fails by its time limit.
        self._threads = None if is_async else ThreadPoolExecutor(config.concurrency, f"careedit-policy-{config.name}")

    async def ask(self, about: PolicyInput) -> Verdict:
        if self._threads is not None:
            verdict = await asyncio.get_running_loop().run_in_executor(self._threads, self._check, about)
        else:
            async with self._at_once:
                verdict = await self._check(about)  # type: ignore[misc]  # an async function
        if not isinstance(verdict, Verdict):
            raise CareEditError(f"it answered with {type(verdict).__name__}, not with a Verdict")
        return verdict

    async def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if isinstance(self._check, PolicyService):
            await self._check.close()


class PolicyHook:
    """Asks the checks of a configuration; every edit goes through it."""

    def __init__(self, config: PolicyConfig, metrics: Metrics) -> None:
        """Loads the checks. Raises `InputError` for one that cannot be made."""
        self.config, self._metrics = config, metrics
        self._checks = [_Loaded(check) for check in config.checks]

    def asks(self, stage: Stage) -> bool:
        """Whether any check looks at this stage."""
        return any(stage in check.config.stages for check in self._checks)

    async def check(self, about: PolicyInput, *, ends: float, image: int | None = None) -> tuple[PolicyMark, ...]:
        """Ask every check of this stage and level, in order; returns the marks.

        `ends` is the monotonic time of the edit's deadline, `image` the index of a result. Raises `PolicyError` at the first
        refusal, `PolicyUnavailableError` if a check fails that must answer, and `DeadlineError`.
        """
        marks = []
        for check in self._checks:
            config = check.config
            if about.stage not in config.stages or about.level not in config.levels:
                continue
            verdict = await self._ask(check, about, ends)
            if verdict is None or verdict.verdict == "allow":
                continue
            if verdict.verdict == "refuse":
                raise PolicyError(verdict.reason or _GENERAL[about.stage])
            reason = verdict.reason or f"The policy check {config.name} marked this {about.stage}."
            marks.append(PolicyMark(check=config.name, stage=about.stage, image=image, reason=reason))
        return tuple(marks)

    async def _ask(self, check: _Loaded, about: PolicyInput, ends: float) -> Verdict | None:
        """The verdict; None: the check failed and need not answer."""
        config, left = check.config, ends - time.monotonic()
        limit = asyncio.timeout(min(config.timeout_s, left))
        try:
            async with limit:
                verdict = await check.ask(about)
            self._metrics.policy(config.name, about.stage, _COUNTED[verdict.verdict])
            return verdict
        except Exception as error:  # noqa: BLE001 - a check is other people's code
            if limit.expired() and left <= config.timeout_s:
                raise DeadlineError("The edit's deadline passed during a policy check; retry later.") from None
            # Text of an unexpected error may quote the request.
            problem = str(error) if isinstance(error, CareEditError) else type(error).__name__
            problem = f"it took longer than {config.timeout_s:g} s" if limit.expired() else problem
        self._metrics.policy(config.name, about.stage, "failed")
        logger.warning("The policy check %s failed (%s).", config.name, problem)
        if config.on_failure == "allow":
            return None
        raise PolicyUnavailableError(
            f"The policy check {config.name!r} did not answer, so the edit was not made; try again soon."
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A hook of the app: ends threads and connections when it is left."""
        try:
            yield
        finally:
            for check in self._checks:
                await check.close()
