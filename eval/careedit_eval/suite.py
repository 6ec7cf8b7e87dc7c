"""A suite: which sets edit which benchmarks, what is measured, compared, and still good enough. One YAML file each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from careedit.errors import InputError
from careedit.files import read_yaml
from careedit.record import Record
from careedit.records import MAX_STEPS, EarlyFilter
from careedit_eval.records import Benchmark, Metric

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
RowName = Literal["identity", "truth", "base", "best_single", "unified", "oracle"]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


_OTHER_SIZE: Mapping[str, Literal["refuse", "keep"]] = {"http": "keep"}
"""What `Arm.other_size` is where a suite does not say."""


class Part(Record):
    """A benchmark or a metric by its name, with its options."""

    name: Annotated[str, Field(min_length=1)]
    """A registered name, or "module:function" of one's own, which is called with the options."""
    options: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of its making."""


class Arm(Record):
    """Who edits: a set in this process or its workers, a live service, or what needs no model."""

    name: Name
    """The name of the set in tables."""
    kind: Literal["set", "http", "identity", "truth", "custom"] = "set"
    """"identity" gives the source back, "truth" the target; "custom" is one's own editor."""
    expert_set: str = "tiny"
    """kind set: as `careedit.load_editor` takes it, or `models:/NAME@ALIAS` of the registry."""
    otherwise: str | None = None
    """kind set: taken where the registry has no such alias yet, or does not answer."""
    expert: str = "auto"
    """"auto": the set's router; an expert's name; "base": none; ":unified": the set's unified LoRA."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Denoising steps; None: the set's default."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """How many experts the router may mix."""
    early_filter: EarlyFilter | None = None
    """Several noises, and a judge."""
    judge: str = "tiny"
    """Who judges an early filter's previews."""
    device: str | None = None
    """Device of the editor; None: a GPU where workers have one."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format; None: the editor's default for its device."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads of torch on a CPU; they shape rounding, so they are part of an edit's key."""
    url: str | None = None
    """kind http: the service, up to and including /v1."""
    model: str | None = None
    """kind http: its name there."""
    revision: str = "unknown"
    """kind http: what is known of its version, where the service does not say."""
    api_key_env: str | None = None
    """kind http: environment variable that holds the key."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    """kind http: edits under way at once."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """kind http: seconds for one attempt."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """kind http: how often an edit is sent at most."""
    extensions: bool = True
    """kind http: whether seed, steps, expert and filter are sent, which only a careedit service knows."""
    picture_hosts: tuple[str, ...] = ()
    """kind http: private hosts, in addition to that of `url`, from which images are read that the service returns by address."""
    editor: Part | None = None
    """kind custom: what makes the editor."""
    other_size: Literal["refuse", "keep"] | None = None
    """What becomes of an edit that has not its source's size. "keep": it stays as it came, metrics resize it as their
    protocols say, and its row has a note. "refuse": it is an error. None: "keep" for http, whose services choose their own
    sizes, else "refuse", because another size is then a bug."""

    @model_validator(mode="after")
    def _check_complete(self) -> Arm:
        if (self.kind == "http") != (self.url is not None):
            raise InputError(f"url belongs to the kind http, and that kind needs it; correct the set {self.name!r}.")
        if (self.kind == "custom") != (self.editor is not None):
            raise InputError(f"editor belongs to the kind custom, and that needs it; correct the set {self.name!r}.")
        if self.other_size is not None and self.kind in ("identity", "truth"):
            raise InputError(f"other_size has no meaning for {self.kind}; take it out of the set {self.name!r}.")
        if self.picture_hosts and self.kind != "http":
            raise InputError(f"picture_hosts belongs to the kind http; take it out of the set {self.name!r}.")
        return self

    @property
    def keeps_other_sizes(self) -> bool:
        """Whether an edit of another size than its source's is kept."""
        return (self.other_size or _OTHER_SIZE.get(self.kind, "refuse")) == "keep"

    @property
    def size_wish(self) -> dict[str, str]:
        """`other_size` as a part of the edits' keys: only where it is not what its kind does anyway."""
        usual = _OTHER_SIZE.get(self.kind, "refuse")
        return {"other_size": self.other_size} if self.other_size not in (None, usual) else {}


class Comparison(Record):
    """Two sets: may `b` replace `a`?"""

    a: Name
    """The name of the set in use."""
    b: Name
    """The set that may replace it."""


class Gate(Record):
    """What still is good enough."""

    baseline: str | None = None
    """A frozen baseline (`careedit eval baseline`), relative to the suite's file; None: set `a` of the first comparison."""
    set: Name | None = None
    """Who must pass; None: `b` of the first comparison, or the first set."""
    margins: Mapping[str, NonNegative] = Field(default_factory=dict)
    """Per number ("clip_i"), or number and kind ("clip_i/Add"): how much worse is still acceptable."""
    min_images: Annotated[int, Field(ge=2)] = 30
    """Source images with a number on both sides that a margin needs; with fewer the gate is inconclusive."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of edits and scores that may have failed."""
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the baseline's rows that must be there today."""
    max_slowdown: Annotated[float, Field(gt=0)] | None = None
    """How many times the baseline's seconds an edit may take, judged by the interval of the run's timing; None: not looked
    at."""


class Timing(Record):
    """How the time of an edit is measured: both sets of a comparison by turns, in one process, right before the report."""

    samples: Annotated[int, Field(ge=0, le=1000)] = 12
    """Samples of each benchmark; 0: nothing is timed. More make the interval of the ratio narrower."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    """How often each sample is edited in the order A B B A: four edits a round."""


class Workers(Record):
    """Who works, and how patient the driver is."""

    edit: Annotated[int, Field(ge=1)] | None = None
    """Actors that edit; None: from the cluster, one CPU left free."""
    score: Annotated[int, Field(ge=1)] | None = None
    """The number of actors that measure; None means as many as fit."""
    num_gpus: NonNegative = 0.0
    """GPUs of an editing actor."""
    score_num_gpus: NonNegative = 0.0
    """GPUs of a measuring actor."""
    edit_batch: Annotated[int, Field(ge=1)] = 4
    """Edits that travel together; each is still made alone, so that its bits do not depend on its neighbours."""
    score_batch: Annotated[int, Field(ge=1)] = 32
    """Edits that are measured together."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds without one finished batch after which the run is given up, with what is there kept."""


class Suite(Record):
    """What is evaluated."""

    schema_version: Literal[1] = 1
    """Version of this file's format."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """The name of the suite, part of its runs' folders."""
    description: str = ""
    """What the suite is for, shown on the page."""
    benchmarks: Annotated[tuple[Part, ...], Field(min_length=1)]
    """The benchmarks whose samples are edited, with their options."""
    sets: Annotated[tuple[Arm, ...], Field(min_length=1)]
    """The sets that edit; at least one."""
    rows: tuple[RowName, ...] = ("identity",)
    """Reference rows; all except identity and truth are made with the base model and experts of the first set."""
    metrics: Annotated[tuple[Part, ...], Field(min_length=1)]
    """The metrics that measure each edit, with their options."""
    pairwise: tuple[Part, ...] = ()
    """Metrics that compare two edits of one sample, used on every two sets."""
    primary: str
    """The number by which best-single and oracle are chosen, and losses are sorted."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """The seeds of the noise; every sample is edited with each."""
    pick_seed: int = 1_000_003
    """Noise on which best-single and oracle are chosen: on the one they are measured on they would look too good."""
    compare: tuple[Comparison, ...] = ()
    """The pairs of sets that are compared."""
    gate: Gate | None = None
    """What must hold; None: nothing."""
    timing: Timing | None = None
    """How sets are timed. None: as `Timing` says where time is asked for, that is, where the gate has `max_slowdown`, or
    sets are compared and a metric is `latency` or `cost`; else not at all, because it costs edits."""
    workers: Workers = Workers()
    """How many samples are edited and measured at once."""

    @model_validator(mode="after")
    def _check_names(self) -> Suite:
        names = [arm.name for arm in self.sets]
        twice = [name for name in names if names.count(name) > 1]
        wanted = [name for one in self.compare for name in (one.a, one.b)]
        wanted += [self.gate.set] if self.gate is not None and self.gate.set is not None else []
        unknown = [name for name in wanted if name not in {*names, *self.rows}]
        if twice:
            raise InputError(f"Two sets are called {twice[0]!r}; give each its own name.")
        if unknown:
            raise InputError(f"The suite has no set {unknown[0]!r}; its sets are {', '.join(names)}.")
        if self.timing is not None and not self.timing.samples and self.gate is not None and self.gate.max_slowdown:
            raise InputError("The gate's max_slowdown is judged by the timing, which has 0 samples; give it some.")
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError("A seed is given twice; give each once.")
        return self


def check_margins(gate: Gate, kinds: Collection[str]) -> None:
    """Raise `InputError` for a gate without margins, or with one of a kind of edit that is not among `kinds`."""
    if not gate.margins:
        raise InputError("The gate has no margins, so no number is judged; give it one, as in margins: {l1: 0.02}.")
    for name in gate.margins:
        kind = name.partition("/")[2]
        if kind and kind not in kinds:
            known = ", ".join(sorted(kinds))
            raise InputError(f"The margin {name!r} is of a kind of edit that no row has; the kinds are {known}.")


def load_suite(path: str | Path) -> Suite:
    """Read a suite's file; raises `InputError`."""
    return Suite(**read_yaml(path, "suite"))


def make_benchmark(part: Part) -> Benchmark:
    """The benchmark of that name; raises `InputError`."""
    made = _own(part)
    if made is None:
        from careedit_eval.benchmarks import load_benchmark

        made = load_benchmark(part.name, **part.options)
    if not isinstance(made, Benchmark):
        raise InputError(
            f"{part.name!r} made a {type(made).__name__}, which is not a benchmark; see docs/evaluation.md."
        )
    return made


def make_metric(part: Part) -> Metric:
    """The metric of that name; raises `InputError`."""
    made = _own(part)
    if made is None:
        from careedit_eval.metrics import load_metric

        made = load_metric(part.name, **part.options)
    if not isinstance(made, Metric):
        raise InputError(f"{part.name!r} made a {type(made).__name__}, which is not a metric; see docs/evaluation.md.")
    return made


def _own(part: Part) -> Any:
    """What "module:function" makes; None for a registered name."""
    module, colon, function = part.name.partition(":")
    return call_own(module, function, part.options) if colon else None


def call_own(module: str, function: str, options: Mapping[str, JsonValue]) -> Any:
    """`module.function(**options)`; raises `InputError` if it does not exist."""
    try:
        factory = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"There is no {module}:{function} ({error}); give an importable function.") from error
    return factory(**options)
