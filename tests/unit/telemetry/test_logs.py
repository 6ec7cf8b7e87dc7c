import asyncio
import base64
import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.records import EditRequest
from careedit_deployments.config import Telemetry
from careedit_deployments.telemetry.logs import (
    LOGGERS,
    get_request_id,
    set_request_id,
    set_up_logging,
)

logger = logging.getLogger("careedit_deployments.test")


@pytest.fixture
def lines() -> Iterator[Callable[..., list[dict]]]:
    """`lines(**settings)` sets the logs up; called again without any it returns what was written."""
    stream = io.StringIO()

    def get(**settings: object) -> list[dict]:
        if settings or not stream.getvalue():
            set_up_logging(Telemetry(**settings), stream)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield get
    for name in LOGGERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_line_is_one_object_with_time_level_logger_and_the_fields_given(lines) -> None:
    lines(log_level="INFO")
    logger.info("Edited %s.", "edit_1", extra={"arm": "a", "seconds": 1.5, "experts": {"erase": 1.0}})
    (line,) = lines()
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "careedit_deployments.test",
        "message": "Edited edit_1.",
        "arm": "a",
        "seconds": 1.5,
        "experts": {"erase": 1.0},
    }


def test_what_is_below_the_level_is_not_written_and_setting_up_again_writes_no_line_twice(lines) -> None:
    lines(log_level="WARNING")
    lines(log_level="WARNING")
    logger.info("Small talk.")
    logger.warning("Trouble.")
    assert [line["message"] for line in lines()] == ["Trouble."]


def test_each_task_logs_its_own_request_and_so_do_the_tasks_it_starts(lines) -> None:
    lines(log_level="INFO")

    async def work(name: str) -> None:
        set_request_id(name)
        await asyncio.sleep(0)
        await asyncio.create_task(asyncio.to_thread(logger.info, name))  # type: ignore[arg-type]

    async def both() -> None:
        await asyncio.gather(work("req_1"), work("req_2"))

    asyncio.run(both())
    assert {(line["message"], line["request_id"]) for line in lines()} == {("req_1", "req_1"), ("req_2", "req_2")}
    assert get_request_id() == ""


def test_no_bytes_of_a_picture_are_written_whatever_way_they_come(lines) -> None:
    lines(log_level="INFO")
    data = bytes(range(256)) * 8
    text = base64.b64encode(data).decode()
    logger.info(
        "Got %s", text, extra={"image": data, "picture": Image.new("RGB", (3, 2)), "all": [data, {"b64": text}]}
    )
    (line,) = lines()
    assert text[:64] not in json.dumps(line)
    assert line["image"] == "<2048 bytes>"
    assert line["picture"] == "<picture 3x2>"
    assert line["all"] == ["<2048 bytes>", {"b64": f"<{len(text)} characters of base64>"}]
    assert line["message"] == f"Got <{len(text)} characters of base64>"


def test_a_very_long_text_is_cut(lines) -> None:
    lines(log_level="INFO")
    logger.info("word " * 1000)
    assert lines()[0]["message"].endswith("... (5000 characters)") and len(lines()[0]["message"]) < 2100


@pytest.mark.parametrize(("wanted", "shown"), [(False, False), (True, True)])
def test_prompts_are_written_only_where_wanted(lines, wanted: bool, shown: bool) -> None:
    lines(log_prompts=wanted)
    logger.info("Edited.", extra={"instruction": "remove Kowalski", "order": {"prompt": "remove Kowalski", "steps": 3}})
    assert ("Kowalski" in json.dumps(lines())) is shown
    assert lines()[0]["order"]["steps"] == 3


@pytest.mark.parametrize(("wanted", "shown"), [(False, False), (True, True)])
def test_an_error_that_quotes_its_input_is_written_without_its_text(lines, wanted: bool, shown: bool) -> None:
    lines(log_prompts=wanted)
    try:
        EditRequest(image=Image.new("RGB", (64, 64)), instruction=["remove Kowalski"])
    except InputError as error:
        logger.exception("Refused.")
        logger.warning("Refused.", extra={"reason": error})
    first, second = lines()
    assert first["error"]["type"] == "InputError" and first["error"]["cause"]["type"] == "ValidationError"
    assert any(__file__ in place for place in first["error"]["at"])
    assert ("Kowalski" in json.dumps(first)) is shown
    assert ("Kowalski" in json.dumps(second)) is shown


def test_an_error_of_our_own_making_keeps_its_text(lines) -> None:
    lines(log_level="INFO")
    try:
        raise RuntimeError("The disk is full.")
    except RuntimeError:
        logger.exception("Failed.")
    assert lines()[0]["error"]["text"] == "RuntimeError: The disk is full."


def test_numbers_that_json_lacks_do_not_break_the_line(lines) -> None:
    lines(log_level="INFO")
    logger.info("Odd.", extra={"a": float("nan"), "b": float("inf"), "c": None})
    assert lines()[0] | {"time": 0} == {
        "time": 0,
        "level": "INFO",
        "logger": "careedit_deployments.test",
        "message": "Odd.",
        "a": "nan",
        "b": "inf",
        "c": None,
    }


def test_a_librarys_notes_to_itself_are_left_out(lines) -> None:
    lines(log_level="INFO")
    logger.info("Done.", extra={"_stamp": 1, "edit": "e"})
    assert lines()[0].keys() == {"time", "level", "logger", "message", "edit"}
