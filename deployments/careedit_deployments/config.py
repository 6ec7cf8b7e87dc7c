"""`ServeConfig`: one strict file that says what is served, by how many replicas, and within which limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from careedit.errors import InputError
from careedit.families import Quantisation
from careedit.files import read_yaml
from careedit.record import Record
from careedit.records import MAX_STEPS, EarlyFilter, StepCache
from careedit_deployments.checks import PolicyConfig
from careedit_deployments.credentials import CredentialsConfig, WatermarkConfig
from careedit_deployments.listening import AuthConfig, HttpConfig, Limits
from careedit_deployments.sizes import DeploymentConfig, EncoderConfig

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16", "float16"]
"""Number format of a model's weights."""


class Guard(Record):
    """Conditions under which an arm is disabled automatically."""

    min_edits: PositiveInt = 20
    """Minimum number of edits in the window before the guard decides; default 20. Raise it against false alarms."""
    window: PositiveInt = 100
    """Number of latest edits that the guard looks at; default 100. A smaller window reacts faster."""
    max_tenant_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the window, above 0 to 1, that one tenant's edits get while other tenants' edits can fill it; default
    0.25. Lower it for many small tenants."""
    max_error_share: Share = 0.2
    """Share of failed edits, 0 to 1, above which the arm is disabled; default 0.2."""
    min_judge_score: Share | None = None
    """Mean overall judge score, 0 to 1, below which the arm is disabled. Default: scores are ignored."""


class Arm(Record):
    """One expert set that takes part of the traffic."""

    expert_set: Annotated[str, Field(min_length=1)]
    """The expert set: a name, folder or address as in `careedit.load_editor`, or MLflow's `models:/NAME@champion`."""
    weight: NonNegativeFloat = 1.0
    """Share of the traffic, relative to the weights of the other arms; default 1. 0 means that only requests that
    name the arm reach it."""
    shadow: bool = False
    """Whether the arm only gets copies of requests: its results are scored and not returned. Default: false."""
    shadow_share: Share = 1.0
    """Share of requests, 0 to 1, that a shadow arm gets; default 1. Lower it to save compute."""
    guard: Guard = Guard()
    """Conditions under which the arm is disabled; see `Guard` for the defaults."""
    device: str | None = None
    """Device of the replicas, for example "cuda". Default: a GPU if the replica has one, else the CPU."""
    dtype: Dtype | None = None
    """Number format of the weights. Default: the editor's default for its device."""
    quantisation: Quantisation | None = None
    """Number format of the transformer's weights in fewer bits. Default: as `dtype`. Its experts must be in `long_tail`."""
    compiled: bool = False
    """Whether the transformer's blocks are compiled; default false. Faster steps on a GPU, minutes more to start."""
    experts: Mapping[str, DeploymentConfig] = Field(default_factory=dict)
    """Deployment settings of single experts, by name. Experts that are not listed use `ServeConfig.expert`."""
    long_tail: tuple[str, ...] | Literal["all"] = ()
    """Experts without a deployment of their own, which the shared pool serves. Empty by default; list experts that
    are rarely used. "all": every expert of the set that `experts` does not list, those added later included."""

    def tail_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """The experts of the long tail, in a set whose experts are `names`."""
        return tuple(one for one in names if one not in self.experts) if self.long_tail == "all" else self.long_tail


class ScorerConfig(Record):
    """The VLM judge, which scores edits and previews."""

    backend: Literal["none", "transformers", "openai", "import"] = "none"
    """How the judge runs. "none" (default): no judge, so no early filter and no scores; "transformers": in the
    replica; "openai": on an OpenAI-compatible server; "import": your own `careedit.scoring.Scorer`."""
    model: str | None = None
    """The judge: a folder or hub id, "owner/name@commit" (transformers), a model name (openai), or
    "package.module:function", which makes the scorer (import). Required unless the backend is "none"."""
    endpoint: str | None = None
    """Address of the OpenAI-compatible server, up to and including /v1. Required for the backend "openai"."""
    api_key_env: str | None = None
    """Name of the environment variable with the key of that server. Default: requests are sent without a key."""
    deployment: DeploymentConfig = DeploymentConfig()
    """Replicas of the judge; default: one replica."""

    @model_validator(mode="after")
    def _check_complete(self) -> ScorerConfig:
        if self.backend != "none" and self.model is None:
            raise InputError(f"The scorer's backend is {self.backend!r} but no model is named; give scorer.model.")
        if (self.backend == "openai") != (self.endpoint is not None):
            raise InputError("scorer.endpoint belongs to the backend openai, and that backend needs it; correct one.")
        return self


class Quality(Record):
    """The meaning of a value of the field `quality`. The request's own `steps` and `early_filter` take precedence."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Number of denoising steps, 1 to 200. Default: the expert set's value."""
    early_filter: EarlyFilter | None = None
    """Settings of the early filter, which needs a scorer. Default: one noise per image, no filter."""
    step_cache: StepCache | None = None
    """Which steps are extrapolated, for a faster and coarser edit. Default: every step is evaluated. A request that states
    its own `steps` evaluates all of them."""

    @model_validator(mode="after")
    def _check_cache(self) -> Quality:
        if (
            self.step_cache is not None
            and self.steps is not None
            and self.step_cache.evaluations(self.steps) == self.steps
        ):
            raise InputError(f"The step cache has nothing to skip in {self.steps} steps; leave step_cache out.")
        return self


class StateConfig(Record):
    """Where jobs, sessions, feedback and images are stored, and for how long."""

    database: str = "sqlite+aiosqlite:///careedit-state/careedit.db"
    """SQLAlchemy address of the database, with an asynchronous driver (aiosqlite or asyncpg). Default: an SQLite
    file below the current folder. Use PostgreSQL for several machines."""
    blobs: str = "careedit-state/blobs"
    """Folder or fsspec address (s3://...) of the stored images. Default: a folder below the current folder. Use
    shared storage for several machines."""
    blob_options: Mapping[str, Any] = Field(default_factory=dict)
    """Options of the fsspec filesystem of `blobs`, for example an endpoint. Empty by default."""
    user_key_env: str | None = None
    """Name of the environment variable with the secret key under which users' names are stored as hashes. Default: the
    server makes a key in the file `user_key` of `blobs`. Keep the key: without it, a user can no longer be found by name."""
    tenant_bytes: PositiveInt = 50 * 2**30
    """Maximum size of all stored images of a tenant, in bytes; default 50 GiB. More get status 429. A tenant can have its own
    limit. Set it so that all tenants fit on the disk."""
    tenant_sessions: PositiveInt = 1000
    """Maximum number of sessions of a tenant at once; default 1,000. More get status 429. A tenant can have its own limit."""
    session_ttl_s: PositiveFloat = 24 * 3600.0
    """Lifetime of a session after its last turn, in seconds; default one day."""
    session_max_s: PositiveFloat = 30 * 24 * 3600.0
    """Lifetime of a session after its creation, however many turns it has, in seconds; default 30 days."""
    job_ttl_s: PositiveFloat = 7 * 24 * 3600.0
    """Time for which a finished job and its images, an uploaded input of batches, and an ended batch are kept, in seconds;
    default seven days."""
    file_ttl_s: PositiveFloat = 3600.0
    """Time for which the address of a result is valid (`response_format: url`), in seconds; default one hour. The
    file is deleted within an hour after that."""
    edit_ttl_s: PositiveFloat = 90 * 24 * 3600.0
    """Time for which the log keeps an edit and its feedback, in seconds; default 90 days."""
    assignment_ttl_s: PositiveFloat = 90 * 24 * 3600.0
    """Time after a user's last edit for which the user's arm is stored, in seconds; default 90 days."""
    arm_event_ttl_s: PositiveFloat = 365 * 24 * 3600.0
    """Time for which events of arms are stored, except the latest of each arm, in seconds; default 365 days."""
    key_ttl_s: PositiveFloat = 365 * 24 * 3600.0
    """Time for which a revoked or expired API key is listed, in seconds; default 365 days."""
    audit_ttl_s: PositiveFloat = 2 * 365 * 24 * 3600.0
    """Time for which the audit log keeps an entry, in seconds; default two years. Set it to what your rules ask for."""
    cleanup_share: Share = 0.5
    """Share of all jobs, sessions, edits or pictures, 0 to 1, above which the cleanup waits for an hour before it
    deletes what has expired, in case a clock or a database is wrong; default 0.5. 1: it never waits. Up to 20 are always
    deleted at once."""


class JobsConfig(Record):
    """How queued jobs are processed, and how webhooks are sent."""

    workers: PositiveInt = 4
    """Number of jobs that one ingress replica processes at once; default 4."""
    lease_s: PositiveFloat = 15.0
    """Time without a sign of life from its worker after which another worker takes a job, in seconds; default 15."""
    attempts: PositiveInt = 3
    """Number of times that a job may lose its worker, and number of times that it may miss its deadline or meet an
    unknown error, before it fails; default 3. Raise it if replicas are often taken away."""
    patience_s: PositiveFloat = 900.0
    """Time for which a job is retried without progress while the platform is at fault (no free replica, a replica
    lost or starting, the database busy), in seconds; default 900. Then the job fails. Set it above the start time
    of a replica."""
    max_queued: PositiveInt = 1000
    """Maximum number of waiting jobs; default 1000. One tenant alone may have half as many. More get status 429."""
    webhook_secret_env: str | None = None
    """Name of the environment variable with the key that signs webhooks to a job's own address. Default: such
    jobs are refused."""
    webhook_endpoints: NonNegativeInt = 10
    """Maximum number of webhook endpoints that a tenant registers; default 10. 0 turns them off."""
    webhook_attempts: PositiveInt = 5
    """Number of attempts to send a webhook, with growing pauses; default 5."""
    webhook_hosts: tuple[str, ...] = ()
    """Private hosts that webhooks may reach, in addition to public ones. Empty by default."""


class Telemetry(Record):
    """Metrics, logs and traces."""

    log_prompts: bool = False
    """Whether logs contain instructions; default false, because they can be private."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged; default INFO. Use DEBUG to look for an error."""
    otlp_endpoint: str | None = None
    """Address of an OTLP/HTTP receiver for trace spans. Default: no spans are sent."""
    sampling: Share = 1.0
    """Share of requests whose spans are sent, 0 to 1; default 1. Lower it under heavy traffic."""
    cost_per_gpu_hour: NonNegativeFloat = 0.0
    """Price of one replica's device per hour, in any currency; default 0. The cost metric uses it."""


class ServeConfig(Record):
    """The whole configuration of one served platform."""

    version: Literal[1] = 1
    """Format version of the file; always 1."""
    name: Name = "careedit"
    """Name of the Ray Serve application; default "careedit". Change it to run several on one cluster."""
    arms: Mapping[Name, Arm]
    """The served expert sets, by arm name. The request field `model` may name an arm."""
    http: HttpConfig = HttpConfig()
    """Address of the server, and its rules for clients; default: port 8000 on this machine only."""
    ingress: DeploymentConfig = DeploymentConfig(num_cpus=0.5, max_ongoing_requests=256)
    """Replicas of the HTTP deployment; default: 0.5 CPUs and 256 requests at once."""
    router: DeploymentConfig = DeploymentConfig(num_cpus=0.2, max_ongoing_requests=64)
    """Replicas of each arm's router deployment; default: 0.2 CPUs and 64 requests at once."""
    expert: DeploymentConfig = DeploymentConfig()
    """Replicas of each expert deployment that has no settings in its arm."""
    shared: DeploymentConfig | None = DeploymentConfig()
    """Replicas of the shared pool, which serves the base alone, mixtures, and the long tail. Null: no shared pool."""
    encoder: EncoderConfig | None = None
    """Replicas of the text encoders. Expert replicas then hold transformer and VAE only, and prompts are encoded once
    for all of them. Default: every expert replica has its own text encoders."""
    scorer: ScorerConfig = ScorerConfig()
    """The judge; default: no judge."""
    batch: PositiveInt = 8
    """Maximum number of rows that an expert replica steps together; default 8. Raise it on a large GPU, lower it if
    memory runs out."""
    hang_s: PositiveFloat = 20.0
    """Time without a sign of life, in seconds, after which an expert replica counts as hung; default 20, or five times its
    slowest recent step if that is longer. Its edits then begin elsewhere, and it is killed and replaced. Raise it if
    replicas that work are killed."""
    quality: Mapping[Literal["low", "medium", "high", "auto"], Quality] = Field(default_factory=dict)
    """What each value of the request field `quality` means. A value that is not listed means the expert set's
    defaults."""
    limits: Limits = Limits()
    """Limits of one request and of one tenant."""
    auth: AuthConfig = AuthConfig()
    """Whether callers need an API key."""
    state: StateConfig = StateConfig()
    """Where jobs, sessions, feedback and images are stored."""
    credentials: CredentialsConfig | None = None
    """The certificate and key that sign every result. Default: results are not signed and carry no mark."""
    watermark: WatermarkConfig | None = None
    """The invisible watermark of results. It changes their pixels slightly. Default: results have no watermark."""
    jobs: JobsConfig = JobsConfig()
    """How queued jobs are processed, and how webhooks are sent."""
    region: Name | None = None
    """Region in which this server processes images, for example "eu-central". Default: none. A tenant that its policy binds to
    a region is refused by a server of another one, and by one without a region."""
    commercial: bool = False
    """Whether the server is used commercially; default false. True refuses expert sets whose base or experts may not be."""
    policy: PolicyConfig = PolicyConfig()
    """Checks of words and pictures before and after an edit; default: none."""
    ab_salt: str = "careedit"
    """Salt of the hash that assigns users to arms; default "careedit". A change reassigns every user."""
    telemetry: Telemetry = Telemetry()
    """Settings of metrics, logs and traces."""

    @model_validator(mode="after")
    def _check_arms(self) -> ServeConfig:
        live = {name: arm for name, arm in self.arms.items() if not arm.shadow}
        if not live or sum(arm.weight for arm in live.values()) <= 0:
            raise InputError("No arm takes traffic; give at least one arm that is not a shadow a positive weight.")
        for name, arm in self.arms.items():
            if arm.long_tail and self.shared is None:
                raise InputError(f"The arm {name!r} has a long tail but no shared pool is configured; give `shared`.")
            both = sorted(set(arm.experts) & set(arm.tail_of(())))
            if both:
                raise InputError(f"The arm {name!r} lists {both[0]!r} as an expert and in its long tail; choose one.")
        return self

    @model_validator(mode="after")
    def _check_judge(self) -> ServeConfig:
        filtered = [name for name, quality in self.quality.items() if quality.early_filter is not None]
        if filtered and self.scorer.backend == "none":
            raise InputError(
                f"The quality {filtered[0]!r} has an early filter but no scorer is configured; give `scorer`."
            )
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> ServeConfig:
        """Read a file. Raises `InputError` if it is missing, not valid YAML, or does not follow the schema."""
        return cls(**read_yaml(path, "configuration"))
