"""What is simulated: seconds of the parts of an edit, what is asked for, and how it is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from careedit.errors import InputError
from careedit.files import parse_yaml
from careedit.record import Record

EXPERTS = ("erase", "compose", "style", "identity", "reference")
"""Experts of the tiny family; a workload's, unless it says otherwise."""

Share = Annotated[float, Field(ge=0, le=1)]

Layout = Literal["merged", "shared"]
"""Which pools there are. "merged": one per expert, its LoRA merged into the weights. "shared": one for all experts, with the
LoRA next to the weights; a step takes `Profile.shared_ratio` times as long."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Profile(Record):
    """Seconds of the parts of an edit on one kind of machine."""

    name: str
    """Its name in `profiles.yaml`."""
    source: str
    """Where the numbers come from, and which of them are assumed."""
    step_s: PositiveFloat
    """One denoising step of one row, expert merged."""
    fixed: Share = 0.0
    """Part of a step's time that does not grow with rows: a step of b rows takes step_s x (fixed + (1 - fixed) x b)."""
    encode_s: NonNegativeFloat
    """Encoders of text and picture, once per edit."""
    decode_s: NonNegativeFloat
    """Latents to picture, once per picture or preview."""
    judge_s: NonNegativeFloat
    """One judgement of one preview by one judge."""
    overhead_s: NonNegativeFloat = 0.02
    """HTTP, router and handle calls."""
    start_s: PositiveFloat
    """From asking for a replica to its first edit: pod, weights, warm-up."""
    shared_ratio: Annotated[float, Field(ge=1)]
    """A step with the LoRA beside the weights over one with it merged into them."""
    gpus: PositiveFloat
    """GPUs of an editing replica."""
    judge_gpus: NonNegativeFloat
    """GPUs of a judge."""
    price: str | None = None
    """Entry of `prices.yaml` that fits; None: to be given."""

    def slowdown(self, rows: float) -> float:
        """Time of a step with `rows` rows over that of a step with one."""
        return self.fixed + (1 - self.fixed) * rows


class Price(Record):
    """What an hour of one device costs."""

    name: str
    """Its name in `prices.yaml`."""
    usd_per_hour: PositiveFloat
    """US dollars, on demand, for one GPU (its share of a machine)."""
    region: str
    """Where."""
    date: str
    """Day on which the price was read."""
    source: str
    """Where it was read."""


class Filter(Record):
    """The early filter of an edit, strategy `continue`: M noises share the first m steps, the best one goes on."""

    candidates: Annotated[int, Field(ge=2, le=16)] = 6
    """M."""
    preview_steps: PositiveInt = 4
    """m."""


class Workload(Record):
    """What is asked for."""

    rate: PositiveFloat
    """Edits per second, arriving at random (Poisson) unless a trace is given."""
    steps: Mapping[int, PositiveFloat] = Field(default_factory=lambda: {28: 1.0})
    """Steps of an edit, and how often."""
    experts: Mapping[str, PositiveFloat] = Field(default_factory=lambda: dict.fromkeys(EXPERTS, 1.0))
    """Experts, and how often each is routed to."""
    filter: Filter | None = None
    """The early filter; None: every edit makes one picture from one noise."""
    filter_share: Share = 1.0
    """Part of the edits that use it."""


def load_profiles() -> dict[str, Profile]:
    """The machines in `profiles.yaml`, by name."""
    return {name: Profile(name=name, **fields) for name, fields in _data("profiles.yaml").items()}


def load_prices() -> dict[str, Price]:
    """The prices in `prices.yaml`, by name."""
    return {name: Price(name=name, **fields) for name, fields in _data("prices.yaml").items()}


def choose(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """The entry `name` of a data file. Raises `InputError` with the names that there are."""
    if name not in known:
        raise InputError(f"There is no {kind} {name!r}; choose one of {', '.join(known)}.")
    return known[name]


def _data(file: str) -> dict[str, dict[str, Any]]:
    return parse_yaml(files(__package__).joinpath(file).read_text("utf-8"), file)
