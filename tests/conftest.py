"""Shared by all tests: markers, groups, no network, the untrained set."""

import functools
import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import httpcore2
import pytest

from tally import TALLY, Tally

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import: a test that would download fails at once instead of waiting

ROOT = Path(__file__).parent
LAYERS = ("unit", "integration", "e2e", "clients", "cluster", "faults")

CLUSTERS = (
    "cluster",
    "faults",
    "integration/serving",
    "integration/telemetry",
    "integration/eval",
    "e2e/test_demo.py",
    "e2e/test_readme.py",
    "e2e/test_residency.py",
)
"""Tests that start Ray: under pytest-xdist one worker runs them all, so that there is one cluster at a time."""
SESSION_STACK = pytest.StashKey[ExitStack]()
"""Key of the stack that `session_stack` returns."""
TALLIED = "tally"
"""Name of the property of a test's report with what became of its requests."""

EXPERTS = {
    "erase": ("remove",),
    "compose": ("add", "replace", "action", "counting", "relation", "attribute"),
    "style": ("style",),
    "identity": ("identity",),
    "reference": ("reference",),
}
"""Experts of `untrained_set`: name (and competence), and what it handles."""


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its layer and its xdist group: one worker runs all tests of a file."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("clusters" if starts_ray(item) else item.path.name))
        for layer in LAYERS:
            if item.path.is_relative_to(ROOT / layer):
                item.add_marker(layer)


def starts_ray(item: pytest.Item) -> bool:
    """Whether a test is one of `CLUSTERS`."""
    return any(item.path.is_relative_to(ROOT / place) for place in CLUSTERS)


@pytest.fixture(scope="session")
def session_stack(pytestconfig: pytest.Config) -> ExitStack:
    """A stack that closes at the end of the session or, with several workers, after the worker's last test that starts Ray:
    an idle cluster takes a large part of a small machine."""
    return pytestconfig.stash.setdefault(SESSION_STACK, ExitStack())


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Close `session_stack` when it is no longer needed."""
    grouped = "PYTEST_XDIST_WORKER" in os.environ
    if nextitem is None or (grouped and starts_ray(item) and not starts_ray(nextitem)):
        item.config.stash.setdefault(SESSION_STACK, ExitStack()).close()


@pytest.fixture(autouse=True)
def no_request_is_lost(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that counts requests if one of them was lost, doubled or mixed up, and report its counts."""
    TALLY.take()
    yield
    counted = TALLY.take()
    if counted.requests:
        request.node.user_properties.append((TALLIED, asdict(counted)))
    if not request.path.is_relative_to(ROOT / "cluster"):  # there a client sends again until a server is back
        assert counted.is_clean, counted.columns


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what became of the requests of all tests that counted theirs, and of those of each test."""
    tests: dict[str, Tally] = {}
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if getattr(report, "when", None) == "teardown":
            for name, counts in report.user_properties:
                if name == TALLIED:
                    tests.setdefault(report.nodeid.split("[")[0], Tally()).add(Tally(**counts))
    if not tests:
        return
    total = Tally()
    for one in tests.values():
        total.add(one)
    terminalreporter.section("requests under faults")
    terminalreporter.write_line("".join(f"{name:>10}" for name in total.columns))
    for name, one in [*sorted(tests.items()), (f"all {len(tests)} tests", total)]:
        terminalreporter.write_line("".join(f"{count:>10,}" for count in one.columns.values()) + f"  {name}")


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """Load the root certificates once: every HTTP client loads them when it is made (60 ms), and no test uses TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
        yield


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Remove the log handlers of a command after its test."""
    yield
    logging.getLogger("careedit").handlers.clear()
    logging.getLogger("careedit").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_pipeline():
    """The tiny architecture as a `FluxFillPipeline`, untrained; shared, so do not change its weights."""
    from careedit_tiny.models.family import build_pipeline  # here, so that tests without a model import no torch

    pipe = build_pipeline(["remove the red circle", "add a small blue star", "make it look like a pencil sketch"])
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def untrained_set(tiny_pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expert set on disk: the untrained base and five random experts with visible effects; copy it to change it."""
    from careedit.experts import Defaults, PanelSpec
    from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, PANEL
    from random_sets import make_random_set

    return make_random_set(
        tmp_path_factory.mktemp("sets") / "untrained",
        tiny_pipeline,
        EXPERTS,
        length=MAX_SEQUENCE_LENGTH,
        panel=PanelSpec(size=PANEL),
        defaults=Defaults(steps=2),
    )


@pytest.fixture(scope="session")
def open_editor(untrained_set: Path):
    """`open_editor(application="merged")`: an editor on `untrained_set`, made once for each application."""
    from careedit import load_editor

    made = {}

    def get(application: str = "merged"):
        if application not in made:
            made[application] = load_editor(str(untrained_set), device="cpu", application=application)
        return made[application]

    return get


@pytest.fixture(scope="session")
def draw_picture():
    """`draw_picture(size, seed)`: an RGB picture of a few shapes, another one for each seed."""
    from PIL import Image, ImageDraw

    def draw(size: tuple[int, int] = (64, 64), seed: int = 0) -> Image.Image:
        width, height = size
        shade = 37 * seed % 256
        picture = Image.new("RGB", size, (shade, 200 - shade // 2, 90))
        pen = ImageDraw.Draw(picture)
        pen.ellipse((width // 8, height // 8, width // 2, height // 2), fill=(220, shade, 40))
        pen.rectangle((width // 2, height // 2, width - 1 - width // 8, height - 1 - height // 8), fill=(20, 90, 230))
        return picture

    return draw


@pytest.fixture(scope="session")
def draw_mask():
    """`draw_mask(size)`: a mask over the upper left part, where `draw_picture` draws its ellipse."""
    from PIL import Image, ImageDraw

    def draw(size: tuple[int, int] = (64, 64)) -> Image.Image:
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).rectangle((size[0] // 10, size[1] // 10, size[0] // 2, size[1] // 2), fill=255)
        return mask

    return draw
