"""Input of the simulation: seconds of the parts of an edit, prices, the load, and the layout of the experts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from careedit.errors import InputError
from careedit.files import parse_yaml
from careedit.record import Record

EXPERTS = ("erase", "compose", "style", "identity", "reference")
"""Default experts of a workload and of trace rows without an expert: those of the tiny family."""

Share = Annotated[float, Field(ge=0, le=1)]

Layout = Literal["merged", "shared"]
"""The pools of replicas. "merged": one pool per expert, with its LoRA merged into the weights. "shared": one pool for all
experts, with the LoRA separate from the weights; a step takes `Profile.shared_ratio` times as long."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Profile(Record):
    """Seconds of the parts of an edit on one kind of machine."""

    name: str
    """Name of the profile in `profiles.yaml`."""
    source: str
    """Origin of the numbers, and which of them are assumed."""
    step_s: PositiveFloat
    """Seconds of one denoising step of one row with a merged expert."""
    fixed: Share = 0.0
    """Share of a step's time that does not grow with the batch: a step of b rows takes step_s x (fixed + (1 - fixed) x b)."""
    encode_s: NonNegativeFloat
    """Seconds of the text and image encoders, once per edit."""
    decode_s: NonNegativeFloat
    """Seconds to decode latents, once per image or preview."""
    judge_s: NonNegativeFloat
    """Seconds in which a judge scores one preview."""
    overhead_s: NonNegativeFloat = 0.02
    """Seconds of HTTP, router and handle calls, per edit."""
    start_s: PositiveFloat
    """Seconds from requesting a replica to its first edit: pod, weights, warm-up."""
    shared_ratio: Annotated[float, Field(ge=1)]
    """Time of a step with the LoRA separate from the weights, divided by the time of a step with it merged."""
    gpus: PositiveFloat
    """Number of GPUs of an editing replica."""
    judge_gpus: NonNegativeFloat
    """Number of GPUs of a judge; may be a fraction."""
    price: str | None = None
    """Default entry of `prices.yaml`. None: the user must give a price."""

    def slowdown(self, rows: float) -> float:
        """Time of a step with `rows` rows, divided by the time of a step with one row."""
        return self.fixed + (1 - self.fixed) * rows


class Price(Record):
    """Price of an hour of one GPU."""

    name: str
    """Name of the price in `prices.yaml`."""
    usd_per_hour: PositiveFloat
    """US dollars per hour, on demand, for one GPU (its share of a machine)."""
    region: str
    """Region to which the price applies."""
    date: str
    """Day on which the price was read, as YYYY-MM-DD."""
    source: str
    """Address of the page with the price."""


class Filter(Record):
    """The early filter of an edit with the strategy `continue`: all candidates run the first steps, the best one continues."""

    candidates: Annotated[int, Field(ge=2, le=16)] = 6
    """Number of candidates per image. Default: 6."""
    preview_steps: PositiveInt = 4
    """Steps before the previews are judged. Default: 4."""


class Workload(Record):
    """The load that the platform must serve."""

    rate: PositiveFloat
    """Edits per second, as a Poisson process."""
    steps: Mapping[int, PositiveFloat] = Field(default_factory=lambda: {28: 1.0})
    """Relative frequency of each number of denoising steps. Default: always 28."""
    experts: Mapping[str, PositiveFloat] = Field(default_factory=lambda: dict.fromkeys(EXPERTS, 1.0))
    """Relative frequency of each expert. Default: all equal."""
    filter: Filter | None = None
    """The early filter. None: every edit has a single candidate."""
    filter_share: Share = 1.0
    """Share of the edits that use the early filter, from 0 to 1."""


def measured_profile(machine: Profile, path: Path) -> Profile:
    """`machine` with the seconds of a document of `careedit bench gpu --out`.

    Raises `InputError` for another document, the reduced form, or a run that measured no steps or edits.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        bench = document["kind"] == "bench gpu"
    except (OSError, ValueError, TypeError, KeyError):
        bench = False
    if not bench:
        raise InputError(f"{str(path)!r} has no measurement; give a file of `careedit bench gpu --out`.")
    if document.get("reduced"):
        raise InputError(f"{str(path)!r} is a reduced run, which measures nothing; run `careedit bench gpu` on a GPU.")
    found = document.get("profile")
    if not found:
        raise InputError(f"The run of {str(path)!r} ended before steps and edits were measured; repeat it.")
    known = {name: value for name, value in found.items() if name != "blocks" and value is not None}
    device = document["environment"]["device_name"] or document["environment"]["device"]
    source = f"measured by careedit bench gpu: {document['family']} on {device}, {found.get('blocks')} blocks"
    return Profile(**{**machine.model_dump(), **known, "source": f"{source}; the rest as in {machine.name}"})


def load_profiles() -> dict[str, Profile]:
    """The profiles in `profiles.yaml`, by name."""
    return {name: Profile(name=name, **fields) for name, fields in _data("profiles.yaml").items()}


def load_prices() -> dict[str, Price]:
    """The prices in `prices.yaml`, by name."""
    return {name: Price(name=name, **fields) for name, fields in _data("prices.yaml").items()}


def choose(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """The entry `name` of `known`. Raises `InputError` with the known names."""
    if name not in known:
        raise InputError(f"The {kind} {name!r} does not exist; choose one of {', '.join(known)}.")
    return known[name]


def _data(file: str) -> dict[str, dict[str, Any]]:
    return parse_yaml(files(__package__).joinpath(file).read_text("utf-8"), file)
