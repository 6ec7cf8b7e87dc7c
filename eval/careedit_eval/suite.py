"""The suite: which sets edit which benchmarks, what is measured and compared, and what is good enough. A YAML file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, JsonValue, model_validator

from careedit.errors import InputError
from careedit.files import read_yaml
from careedit.record import Record
from careedit.records import MAX_STEPS, EarlyFilter
from careedit_eval.records import Benchmark, Metric

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
RowName = Literal["identity", "truth", "base", "best_single", "unified", "oracle"]
FigureName = Literal[
    "accuracy",
    "accuracy_untied",
    "accuracy_2",
    "accuracy_3",
    "accuracy_4",
    "tau",
    "alpha",
    "order_consistency",
    "retest",
]
"""The figures of a judge that may have a floor (`careedit_eval.judges.figures`)."""
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Made = TypeVar("Made")

_OTHER_SIZE: Mapping[str, Literal["refuse", "keep"]] = {"http": "keep"}
"""The default of `Arm.other_size`, by kind; "refuse" for every other kind."""


class Part(Record):
    """A benchmark, metric or editor by its name, with its options."""

    name: Annotated[str, Field(min_length=1)]
    """A registered name, or "module:function" of your own code, which is called with the options."""
    options: Mapping[str, JsonValue] = Field(default_factory=dict)
    """The options, as keyword arguments; empty for the defaults."""


class Arm(Record):
    """What edits: an expert set in this process or its workers, a running service, or a fixed image."""

    name: Name
    """The name of the set in tables."""
    kind: Literal["set", "http", "identity", "truth", "custom"] = "set"
    """How the arm edits: "set" loads an expert set, "http" asks a service, "identity" returns the source, "truth" returns the
    target, and "custom" is an editor of your own."""
    expert_set: str = "tiny"
    """The expert set of the kind "set": a name, folder or address, or `models:/NAME@ALIAS` of the registry."""
    otherwise: str | None = None
    """The expert set to use if the registry does not have that alias yet, or does not answer; None stops the run."""
    expert: str = "auto"
    """The expert of every edit: "auto" asks the router, "base" uses no expert, ":unified" uses the set's unified LoRA, and
    any other value is the name of an expert."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """The number of denoising steps; None means the default of the set."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """The maximum number of experts that the router may mix; None means the default of the set."""
    early_filter: EarlyFilter | None = None
    """The early filter of every edit; None edits without one."""
    judge: str = "tiny"
    """The judge of the early filter's previews: "tiny", a folder or a hub id."""
    device: str | None = None
    """The device of the editor; None means a GPU if the workers have one, else the CPU."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """The number format; None means bfloat16 on a GPU and float32 on a CPU."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """The number of torch's threads on a CPU. They change rounding, so they are part of an edit's key."""
    url: str | None = None
    """The address of the service up to and including /v1; needed by the kind "http", and only there."""
    model: str | None = None
    """The name of the model at the service; None if the service has a single model."""
    revision: str = "unknown"
    """The version of the service's model, if the service does not report it."""
    api_key_env: str | None = None
    """The environment variable with the API key of the service; None sends no key."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    """The number of edits that are sent to the service at once."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """The seconds after which one request to the service is given up."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """The maximum number of attempts per edit at the service."""
    extensions: bool = True
    """Whether seed, steps, expert and early filter are sent to the service. Set it to false for services other than careedit."""
    picture_hosts: tuple[str, ...] = ()
    """Private hosts, in addition to that of `url`, from which images may be read that the service returns by address."""
    editor: Part | None = None
    """The function that makes the editor; needed by the kind "custom", and only there."""
    other_size: Literal["refuse", "keep"] | None = None
    """What happens to an edit whose size differs from its source's. "keep": it stays as it is, metrics resize it as their
    protocols say, and its row has a note. "refuse": it is an error. None means "keep" for the kind "http", because services
    choose their own sizes, and "refuse" otherwise, because another size is a bug."""

    @model_validator(mode="after")
    def _check_complete(self) -> Arm:
        if (self.kind == "http") != (self.url is not None):
            raise InputError(f"url is needed by the kind http, and only by it; correct the set {self.name!r}.")
        if (self.kind == "custom") != (self.editor is not None):
            raise InputError(f"editor is needed by the kind custom, and only by it; correct the set {self.name!r}.")
        if self.other_size is not None and self.kind in ("identity", "truth"):
            raise InputError(
                f"other_size has no meaning for the kind {self.kind}; remove it from the set {self.name!r}."
            )
        if self.picture_hosts and self.kind != "http":
            raise InputError(f"picture_hosts is only for the kind http; remove it from the set {self.name!r}.")
        return self

    @property
    def keeps_other_sizes(self) -> bool:
        """Whether an edit of another size than its source's is kept."""
        return (self.other_size or _OTHER_SIZE.get(self.kind, "refuse")) == "keep"

    @property
    def size_wish(self) -> dict[str, str]:
        """`other_size` as a part of the edits' keys, if it differs from the default of the kind."""
        usual = _OTHER_SIZE.get(self.kind, "refuse")
        return {"other_size": self.other_size} if self.other_size not in (None, usual) else {}


class Comparison(Record):
    """A comparison of two sets: may `b` replace `a`?"""

    a: Name
    """The name of the set in use."""
    b: Name
    """The set that may replace it."""


class Gate(Record):
    """The rule that decides whether a set is good enough."""

    baseline: str | None = None
    """The file of a frozen baseline (`careedit eval baseline`), relative to the suite's file; None means set `a` of the first
    comparison."""
    set: Name | None = None
    """The set that must pass; None means `b` of the first comparison, or else the first set."""
    margins: Mapping[str, NonNegative] = Field(default_factory=dict)
    """The largest acceptable loss per number ("clip_i"), or per number and kind of edit ("clip_i/Add")."""
    min_images: Annotated[int, Field(ge=2)] = 30
    """The minimum number of source images with numbers of both sets. With fewer, the gate is inconclusive."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The maximum share of edits and scores that failed, from 0 to 1."""
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The minimum share of the baseline's rows that the run must have, from 0 to 1."""
    max_slowdown: Annotated[float, Field(gt=0)] | None = None
    """The maximum ratio of an edit's seconds to those of the baseline, judged by the interval of the run's timing. None means
    that time is not judged."""


class JudgeRule(Record):
    """What `careedit eval judge-check` must show before the judge of the primary number may decide."""

    floors: Annotated[Mapping[FigureName, Annotated[float, Field(ge=-1, le=1)]], Field(min_length=1)]
    """The lowest accepted value per figure, such as {accuracy_2: 0.6, order_consistency: 0.7}."""
    max_self_preference: Annotated[float, Field(ge=0, le=1)] | None = None
    """The largest accepted preference for edits of the judge's own, beyond that of people; None accepts any."""
    min_groups: Annotated[int, Field(ge=1)] = 30
    """The minimum number of groups of edits behind each of these figures. With fewer, the judge is refused."""
    check: str | None = None
    """The file of the check, relative to the suite's file; None means the latest one in the folder of evaluations."""


class Timing(Record):
    """How the time of an edit is measured: both sets of a comparison take turns in one process, just before the report."""

    samples: Annotated[int, Field(ge=0, le=1000)] = 12
    """The number of samples of each benchmark; 0 turns timing off. More samples give a narrower interval of the ratio."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    """How often each sample is edited in the order A B B A, which makes four edits per round."""


class Workers(Record):
    """The workers of a run, and how long the driver waits for them."""

    edit: Annotated[int, Field(ge=1)] | None = None
    """The number of actors that edit; None means as many as the cluster has CPUs, less one."""
    score: Annotated[int, Field(ge=1)] | None = None
    """The number of actors that measure; None means as many as fit."""
    num_gpus: NonNegative = 0.0
    """The number of GPUs of an editing actor; a fraction shares a GPU."""
    score_num_gpus: NonNegative = 0.0
    """The number of GPUs of a measuring actor; a fraction shares a GPU."""
    edit_batch: Annotated[int, Field(ge=1)] = 4
    """The number of edits per task. Each edit is still made alone, so that its bits do not depend on the others."""
    score_batch: Annotated[int, Field(ge=1)] = 32
    """The number of edits that are measured together."""
    overlap: bool | None = None
    """Whether edits are measured while later ones are made, which Ray Data does. None means yes for editors on GPUs and for
    services, if there is room for both kinds of workers. Set it to true for an editor that waits for another service."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """The seconds without a finished batch after which the run is given up. Finished work is kept."""


class Suite(Record):
    """What is evaluated, compared and decided, as a suite's YAML file states it."""

    schema_version: Literal[1] = 1
    """The version of this file's format."""
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
    """The metrics that compare two edits of one sample, for every two sets."""
    primary: str
    """The number that the decision is about. It also chooses best-single and oracle, and sorts the losses."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """The seeds of the noise; every sample is edited with each."""
    pick_seed: int = 1_000_003
    """The seed on which best-single and oracle are chosen. Chosen on a seed of `seeds`, they would look too good."""
    compare: tuple[Comparison, ...] = ()
    """The pairs of sets that are compared."""
    gate: Gate | None = None
    """The gate of the suite; None means that the suite decides nothing."""
    judge: JudgeRule | None = None
    """What the judge of the primary number must have shown; None accepts every judge."""
    timing: Timing | None = None
    """How sets are timed. None means the defaults of `Timing` if time matters: if the gate has `max_slowdown`, or if sets are
    compared and a metric is `latency` or `cost`. Otherwise nothing is timed, because timing costs edits."""
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
            raise InputError(f"Two sets have the name {twice[0]!r}; give each its own name.")
        if unknown:
            raise InputError(f"The suite has no set {unknown[0]!r}; its sets are {', '.join(names)}.")
        if self.timing is not None and not self.timing.samples and self.gate is not None and self.gate.max_slowdown:
            raise InputError(
                "The gate's max_slowdown needs the timing, which has 0 samples; set timing.samples to 1 or more."
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError("A seed occurs twice; give each seed once.")
        return self


def check_margins(gate: Gate, kinds: Collection[str]) -> None:
    """Raise `InputError` if a gate has no margins, or a margin of a kind of edit that is not among `kinds`."""
    if not gate.margins:
        raise InputError("The gate has no margins, so it judges no number; add one, for example margins: {l1: 0.02}.")
    for name in gate.margins:
        kind = name.partition("/")[2]
        if kind and kind not in kinds:
            known = ", ".join(sorted(kinds))
            raise InputError(f"The margin {name!r} is for a kind of edit that no row has; the kinds are {known}.")


def load_suite(path: str | Path) -> Suite:
    """Read the file of a suite. Raises `InputError`."""
    return Suite(**read_yaml(path, "suite"))


def make_benchmark(part: Part) -> Benchmark:
    """The benchmark of a suite's entry. Raises `InputError`."""
    from careedit_eval.benchmarks import load_benchmark

    return _made(part, load_benchmark, Benchmark)  # type: ignore[type-abstract]


def make_metric(part: Part) -> Metric:
    """The metric of a suite's entry. Raises `InputError`."""
    from careedit_eval.metrics import load_metric

    return _made(part, load_metric, Metric)  # type: ignore[type-abstract]


def _made(part: Part, load: Callable[..., Made], kind: type[Made]) -> Made:
    """What "module:function" makes, or what is registered under the name."""
    module, colon, function = part.name.partition(":")
    made = call_own(module, function, part.options) if colon else load(part.name, **part.options)
    if not isinstance(made, kind):
        what = f"a {type(made).__name__}, which is not a {kind.__name__.lower()}"
        raise InputError(f"{part.name!r} made {what}; see docs/evaluation.md.")
    return made


def call_own(module: str, function: str, options: Mapping[str, JsonValue]) -> Any:
    """Call `module.function(**options)`. Raises `InputError` if it does not exist."""
    try:
        factory = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{module}:{function} cannot be imported ({error}); give an importable function.") from error
    return factory(**options)
