"""`ServeConfig`: one strict file that says what is served, by how many replicas, and within which limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from careedit.errors import InputError
from careedit.records import MAX_IMAGES, MAX_STEPS, EarlyFilter, Record

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Scaling(Record):
    """How many replicas a deployment has."""

    min_replicas: NonNegativeInt = 1
    """Replicas that are always there; 0 lets an idle deployment disappear."""
    max_replicas: PositiveInt = 1
    """Most replicas."""
    target_step_seconds: PositiveFloat = 10.0
    """Expert deployments: seconds of queued denoising that one replica should have before it."""
    target_ongoing_requests: PositiveFloat = 2.0
    """Other deployments: requests that one replica should have in hand."""
    upscale_delay_s: NonNegativeFloat = 10.0
    """Seconds of too much work before replicas are added."""
    downscale_delay_s: NonNegativeFloat = 300.0
    """Seconds of too little work before one is taken away."""

    @model_validator(mode="after")
    def _check_order(self) -> Scaling:
        if self.min_replicas > self.max_replicas:
            raise InputError(
                f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}; give a range that rises."
            )
        return self


class DeploymentConfig(Record):
    """Replicas of one kind: how many, on what, and when one counts as dead."""

    scaling: Scaling = Scaling()
    """How many."""
    num_cpus: NonNegativeFloat = 1.0
    """CPUs that Ray sets aside for a replica; bookkeeping, not a limit."""
    num_gpus: NonNegativeFloat = 0.0
    """GPUs for a replica; a part of one is allowed."""
    resources: Mapping[str, PositiveFloat] = Field(default_factory=dict)
    """Ray's custom resources for a replica."""
    threads: PositiveInt | None = None
    """Threads of torch per replica on a CPU; None: `num_cpus`, at least one."""
    max_ongoing_requests: PositiveInt = 8
    """Requests that a replica works on at once; for an expert, edits that its step scheduler holds."""
    max_queued_requests: NonNegativeInt = 32
    """Requests that may wait for a free replica, per caller; the next one is answered 429."""
    graceful_shutdown_s: PositiveFloat = 120.0
    """Seconds that a replica may take to finish what it holds; longer than the longest edit."""
    health_check_period_s: PositiveFloat = 10.0
    """Seconds between health checks."""
    health_check_timeout_s: PositiveFloat = 30.0
    """Seconds that a health check may take."""


class Guard(Record):
    """When an arm is cut out of traffic by itself."""

    min_edits: PositiveInt = 20
    """Edits that must have been seen in the window."""
    window: PositiveInt = 100
    """Latest edits that are looked at."""
    max_error_share: Share = 0.2
    """Share of failed edits above which the arm is cut out."""
    min_judge_score: Share | None = None
    """Mean overall judge score below which it is cut out; None: scores are not looked at."""


class Arm(Record):
    """One expert set in traffic."""

    expert_set: Annotated[str, Field(min_length=1)]
    """As `careedit.load_editor` takes it, or `models:/NAME@champion` of the MLflow registry."""
    weight: NonNegativeFloat = 1.0
    """Share of the traffic, relative to the other arms' weights; 0: only by its name."""
    shadow: bool = False
    """Gets copies of requests; its results are scored, not returned."""
    shadow_share: Share = 1.0
    """Share of requests that a shadow arm gets."""
    guard: Guard = Guard()
    """When it is cut out."""
    device: str | None = None
    """Device of its replicas; None: a GPU where the replica has one."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of its weights; None: the editor's default."""
    experts: Mapping[str, DeploymentConfig] = Field(default_factory=dict)
    """Settings of single experts' deployments; others have `ServeConfig.expert`."""
    long_tail: tuple[str, ...] = ()
    """Experts without a deployment of their own: the shared pool edits with them."""


class ScorerConfig(Record):
    """The VLM judge."""

    backend: Literal["none", "transformers", "openai", "import"] = "none"
    """"none": no judge, so no early filter, no scores; "import": a `careedit.scoring.Scorer` of your own."""
    model: str | None = None
    """Path or hub id (transformers), model name (openai), "package.module:function" that makes the scorer (import)."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server, up to and including /v1."""
    api_key_env: str | None = None
    """Environment variable that holds that server's key."""
    deployment: DeploymentConfig = DeploymentConfig()
    """Its replicas."""

    @model_validator(mode="after")
    def _check_complete(self) -> ScorerConfig:
        if self.backend != "none" and self.model is None:
            raise InputError(f"The scorer's backend is {self.backend!r} but no model is named; give scorer.model.")
        if (self.backend == "openai") != (self.endpoint is not None):
            raise InputError("scorer.endpoint belongs to the backend openai, and that backend needs it; correct one.")
        return self


class Quality(Record):
    """What `quality` of an edit means: steps and early filter. A request's own `steps` and `early_filter` come first."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Denoising steps; None: the expert set's default."""
    early_filter: EarlyFilter | None = None
    """Noises that are tried; None: one."""


class HttpConfig(Record):
    """Where the server listens."""

    host: str = "127.0.0.1"
    """Address; anything but a loopback address needs API keys."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port; 0 picks a free one."""
    root_path: str = ""
    """Prefix of every route behind a proxy."""
    compatibility: Literal["openai", "strict"] = "openai"
    """What a `size` of other proportions than the picture's gets: "openai", as stock clients need it, exactly that size, with
    the edit in the middle and its edge repeated around it; "strict" an error that names a size that fits."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call the server from a browser ("https://app.example.org", or "*"); none: no page may."""
    public_url: str | None = None
    """Address under which clients reach the server, for the addresses in its answers; None: the one that a request names."""

    @model_validator(mode="after")
    def _check_addresses(self) -> HttpConfig:
        odd = [one for one in self.cors if one != "*" and not re.fullmatch(r"https?://[^/?#\s]+", one)]
        if odd:
            raise InputError(
                f"http.cors names {odd[0]!r}; an origin is scheme and host, as in https://app.example.org."
            )
        if self.public_url is not None and not re.fullmatch(r"https?://[^?#\s]+", self.public_url):
            raise InputError(
                f"http.public_url is {self.public_url!r}; give an address such as https://edits.example.org."
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


class Limits(Record):
    """What one request may ask for; checked before pixels are decoded and before anything waits."""

    body_bytes: PositiveInt = 50 * 2**20
    """Bytes of a request's body."""
    pixels: PositiveInt = 4096 * 4096
    """Pixels of one picture."""
    request_pixels: PositiveInt | None = None
    """Pixels of a request's pictures together; None: three times `pixels`, for the largest source, reference and mask."""
    picture_memory: PositiveInt = 2 * 2**30
    """Bytes that decoded pictures may take in one ingress replica, four per pixel; half of them for one API key. A request waits
    30 seconds for its share and is then answered 429."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = MAX_STEPS
    """Denoising steps of one image."""
    images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = MAX_IMAGES
    """Images per request (`n`)."""
    evaluations: PositiveInt = 2000
    """Transformer evaluations of a request: images x (steps + previews) x experts, estimated before it is queued."""
    deadline_s: PositiveFloat = 300.0
    """Seconds until an edit must have ended in a picture or an error."""
    requests_per_minute: PositiveInt | None = None
    """Requests per API key and minute; None: no limit. A key may have its own."""
    concurrent_requests: PositiveInt | None = None
    """Edits of one API key in hand at once; None: no limit. A key may have its own."""
    requests_in_progress: PositiveInt = 128
    """Requests of one API key in progress at once, of every kind, open streams and half-sent bodies included. Each ingress
    replica counts by itself, and gives one key at most half of its `ingress.max_ongoing_requests`, less when others ask, too.
    Raise both for a key that stands for many users."""
    event_streams: PositiveInt = 32
    """Open streams of job events (`GET /v1/jobs/ID/events`) of one API key; they count as requests in progress, too. Raise
    it for a client that follows many jobs at once."""
    event_stream_s: PositiveFloat = 600.0
    """Seconds after which a stream of job events ends; the client comes back with `Last-Event-ID`. Lower it where a proxy
    in front ends connections earlier."""
    body_s: PositiveFloat = 120.0
    """Seconds within which a request's body must have arrived; a later one is answered 408. Raise it for slow uplinks."""
    body_grace_s: PositiveFloat = 20.0
    """Seconds for which a body may arrive at any rate, or not at all."""
    body_rate: PositiveInt = 16 * 2**10
    """Least bytes per second after `body_grace_s`, on average; a slower body is answered 408."""

    @property
    def most_pixels(self) -> int:
        """Pixels of a request's pictures together."""
        return 3 * self.pixels if self.request_pixels is None else self.request_pixels

    @model_validator(mode="after")
    def _check_memory(self) -> Limits:
        if 8 * self.most_pixels > self.picture_memory:
            raise InputError(
                f"limits.picture_memory is {self.picture_memory:,} bytes, but a request may have {self.most_pixels:,} pixels of four "
                f"bytes and an API key half of the memory; give at least {8 * self.most_pixels:,}, or fewer pixels."
            )
        return self


class StateConfig(Record):
    """Where jobs, sessions, feedback and pictures are kept."""

    database: str = "sqlite+aiosqlite:///careedit-state/careedit.db"
    """SQLAlchemy address, with an asynchronous driver (aiosqlite, asyncpg)."""
    blobs: str = "careedit-state/blobs"
    """Folder or fsspec address (s3://...) of the pictures."""
    blob_options: Mapping[str, Any] = Field(default_factory=dict)
    """Options of that filesystem."""
    session_ttl_s: PositiveFloat = 24 * 3600.0
    """Seconds that a session lives after its last turn."""
    job_ttl_s: PositiveFloat = 7 * 24 * 3600.0
    """Seconds that a finished job and its pictures are kept."""
    file_ttl_s: PositiveFloat = 3600.0
    """Seconds that the address of a result is good (`response_format: url`); the file is swept within an hour after."""
    edit_ttl_s: PositiveFloat = 90 * 24 * 3600.0
    """Seconds that the log holds an edit, and what people thought of it."""


class JobsConfig(Record):
    """How queued jobs are worked on."""

    workers: PositiveInt = 4
    """Jobs that one ingress replica works on at once."""
    lease_s: PositiveFloat = 15.0
    """Seconds after which a job whose worker no longer says that it lives is taken up by another."""
    attempts: PositiveInt = 3
    """Times that a job may be lost with its worker, and times that it may miss its deadline or meet a fault that the server
    does not know, before it fails. Raise it where replicas are often taken away."""
    patience_s: PositiveFloat = 900.0
    """Seconds for which a job is tried again while the platform is at fault (no room, a replica lost or starting, the
    store busy) and no image gets done; then it fails. Longer than a replica takes to start."""
    max_queued: PositiveInt = 1000
    """Jobs that may wait in the store, of all callers; the next one is answered 429."""
    webhook_secret_env: str | None = None
    """Environment variable with the key that signs webhooks; None: jobs with a webhook are refused."""
    webhook_attempts: PositiveInt = 5
    """Times that a webhook is sent before it is given up, with growing pauses."""
    webhook_hosts: tuple[str, ...] = ()
    """Private hosts that webhooks may go to all the same; public ones always may."""


class AuthConfig(Record):
    """Who may call."""

    required: bool | None = None
    """Whether an API key is needed; None: unless the server listens on a loopback address only."""


class Telemetry(Record):
    """What is told of the work."""

    log_prompts: bool = False
    """Whether instructions are logged."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged."""
    otlp_endpoint: str | None = None
    """Address of an OTLP/HTTP receiver of spans; None: no spans."""
    sampling: Share = 1.0
    """Share of requests whose spans are sent."""
    cost_per_gpu_hour: NonNegativeFloat = 0.0
    """What an hour of one replica's device costs, in any currency; for the cost metric."""


class ServeConfig(Record):
    """All of one served platform."""

    version: Literal[1] = 1
    """Format version of the file."""
    name: Name = "careedit"
    """Name of the Serve application."""
    arms: Mapping[Name, Arm]
    """Expert sets that are served, by arm name; `model` of a request may name one."""
    http: HttpConfig = HttpConfig()
    """Where it listens."""
    ingress: DeploymentConfig = DeploymentConfig(num_cpus=0.5, max_ongoing_requests=256)
    """The FastAPI deployment."""
    router: DeploymentConfig = DeploymentConfig(num_cpus=0.2, max_ongoing_requests=64)
    """The router deployment of each arm."""
    expert: DeploymentConfig = DeploymentConfig()
    """Each expert deployment, unless its arm says otherwise."""
    shared: DeploymentConfig | None = DeploymentConfig()
    """The pool that edits with the base alone, with mixtures and with the long tail; None: there is none."""
    scorer: ScorerConfig = ScorerConfig()
    """The judge."""
    batch: PositiveInt = 8
    """Rows that an expert replica steps together."""
    quality: Mapping[Literal["low", "medium", "high", "auto"], Quality] = Field(default_factory=dict)
    """What the `quality` of a request means; one that is not listed means the set's defaults."""
    limits: Limits = Limits()
    """What a request may ask for."""
    auth: AuthConfig = AuthConfig()
    """Who may call."""
    state: StateConfig = StateConfig()
    """Where things are kept."""
    jobs: JobsConfig = JobsConfig()
    """How jobs are worked on."""
    ab_salt: str = "careedit"
    """Salt of the hash that keeps a user on one arm; another one deals anew."""
    telemetry: Telemetry = Telemetry()
    """What is told of the work."""

    @model_validator(mode="after")
    def _check_arms(self) -> ServeConfig:
        live = {name: arm for name, arm in self.arms.items() if not arm.shadow}
        if not live or sum(arm.weight for arm in live.values()) <= 0:
            raise InputError("No arm takes traffic; give at least one arm that is no shadow a positive weight.")
        for name, arm in self.arms.items():
            if arm.long_tail and self.shared is None:
                raise InputError(f"The arm {name!r} has a long tail but there is no shared pool; give `shared`.")
            both = sorted(set(arm.experts) & set(arm.long_tail))
            if both:
                raise InputError(f"The arm {name!r} lists {both[0]!r} as an expert and in its long tail; choose one.")
        return self

    @model_validator(mode="after")
    def _check_judge(self) -> ServeConfig:
        filtered = [name for name, quality in self.quality.items() if quality.early_filter is not None]
        if filtered and self.scorer.backend == "none":
            raise InputError(f"The quality {filtered[0]!r} has an early filter but there is no scorer; give `scorer`.")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> ServeConfig:
        """Read a file. Raises `InputError`, a sentence, where it is missing, no YAML, or breaks the schema."""
        try:
            data = yaml.safe_load(Path(path).read_text("utf-8"))
        except OSError as error:
            raise InputError(
                f"The configuration {path} cannot be read ({error.strerror}); give another file."
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"The configuration {path} is no YAML ({error}); correct it.") from None
        if not isinstance(data, dict):
            raise InputError(f"The configuration {path} holds no settings; start it with `arms:`.")
        return cls(**data)
