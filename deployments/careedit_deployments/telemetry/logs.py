"""JSON logs: one object per line, with the request's id, without images, and without prompts by default.

Log as usual: `logger.info("Edited.", extra={"edit": edit_id, "seconds": 1.2})`. Every entry of `extra` becomes a field. No
line contains the bytes of an image: bytes and images are replaced by a description, and long base64 text is removed. Text
that may quote the user's words belongs into one of `PROMPT_FIELDS`. These fields are omitted unless
`telemetry.log_prompts` is on, and so is the text of an error that may quote its input.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO

from PIL import Image
from pydantic import ValidationError

from careedit.errors import InputError
from careedit_deployments.config import Telemetry

LOGGERS = ("careedit", "careedit_deployments")
"""Roots of the logs that are ours; Serve's own are set by `serve_logging`."""

PROMPT_FIELDS = frozenset({"instruction", "prompt", "comment"})
"""Fields that hold a person's words."""

LONGEST_TEXT = 2_000
"""Characters of a text that are logged."""

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_request_id: ContextVar[str] = ContextVar("careedit_request_id", default="")


def set_request_id(request_id: str) -> None:
    """Set the request id of all later log lines of this task and of the tasks that it starts.

    Call it where a request begins. Each request runs in its own task, so the id need not be reset.
    """
    _request_id.set(request_id)


def get_request_id() -> str:
    """The id of the request that this task works on; empty outside a request."""
    return _request_id.get()


class JsonFormatter(logging.Formatter):
    """One line of JSON per record: time, level, logger, message, request_id, the extra fields, and the error if any."""

    def __init__(self, *, log_prompts: bool = False) -> None:
        super().__init__()
        self._log_prompts = log_prompts

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        # What starts with an underscore is a library's note to itself: Ray stamps every record of a process that imports it.
        fields = {name: value for name, value in vars(record).items() if name not in _OWN and not name.startswith("_")}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _plain(record.getMessage()),
            "request_id": fields.pop("request_id", "") or get_request_id(),
        }
        for name, value in fields.items():
            if self._log_prompts or name not in PROMPT_FIELDS:
                line.setdefault(name, self._shown(value))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe_error(record.exc_info[1], log_prompts=self._log_prompts)
        return json.dumps({name: value for name, value in line.items() if value != ""}, ensure_ascii=False)

    def _shown(self, value: object) -> object:
        if isinstance(value, BaseException):
            return describe_error(value, log_prompts=self._log_prompts)["text"]
        if isinstance(value, Mapping):
            kept = {str(key): part for key, part in value.items() if self._log_prompts or key not in PROMPT_FIELDS}
            return {key: self._shown(part) for key, part in kept.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._shown(part) for part in value]
        return _plain(value)


def describe_error(error: BaseException, *, log_prompts: bool = False) -> dict[str, object]:
    """An error for a log line: its class, its text where that quotes no request, and where it was raised."""
    quotes = isinstance(error, InputError | ValidationError) and not log_prompts
    text = "its text is left out, it may quote the request" if quotes else str(error)
    told: dict[str, object] = {
        "type": type(error).__name__,
        "text": f"{type(error).__name__}: {_plain(text)}",
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)],
    }
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        told["cause"] = describe_error(cause, log_prompts=log_prompts)
    return told


def set_up_logging(telemetry: Telemetry, stream: IO[str] | None = None) -> None:
    """Write careedit's logs as JSON lines to `stream` (stderr, which Ray keeps per worker). Again: replaces the first."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(log_prompts=telemetry.log_prompts))
    handler.set_name("careedit-json")
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in [old for old in logger.handlers if old.get_name() == handler.get_name()]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(telemetry.log_level)
        logger.propagate = False


def serve_logging(telemetry: Telemetry) -> dict[str, object]:
    """Serve's own logs in the same manner: fields of its `LoggingConfig` (deployment, replica, request id, JSON)."""
    return {"encoding": "JSON", "log_level": telemetry.log_level, "enable_access_log": telemetry.log_level == "DEBUG"}


def _plain(value: object) -> object:
    """`value` in a form that JSON has and that holds no picture."""
    if isinstance(value, bool | int | float) or value is None:
        return value if not isinstance(value, float) or abs(value) < float("inf") else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Image.Image):
        return f"<picture {value.width}x{value.height}>"
    text = _BASE64.sub(lambda run: f"<{len(run.group())} characters of base64>", str(value))
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}... ({len(text)} characters)"
