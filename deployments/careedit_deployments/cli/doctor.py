"""Check whether this machine can serve a configuration or use an expert set, and say what to do if not."""

from __future__ import annotations

import os
import socket
from collections.abc import Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from careedit import plugins
from careedit.cli.output import JsonOption, emit, emit_json
from careedit.errors import CareEditError, InputError
from careedit.experts import BaseShapes, ExpertSet, load_expert_set
from careedit.experts.manifest import SET_FILE
from careedit.families import QUANTISED_BYTES, Quantisation, in_blocks
from careedit.hub import split_hub_id
from careedit.progress import counted
from careedit_deployments.cli.machine import Machine, look
from careedit_deployments.cli.serve import check_credentials, find_config
from careedit_deployments.cli.weights import Weights, components_of, unpinned_models, weights_of
from careedit_deployments.config import Arm, ServeConfig
from careedit_deployments.encoder.identity import base_key
from careedit_deployments.sizes import DeploymentConfig

app = typer.Typer(add_completion=False)

Status = Literal["ok", "warn", "fail"]
GIB = 2**30
BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
HEADROOM = 1.2
"""Memory of a replica as a multiple of its weights, below which little is left for activations."""
SMALL_KLEIN = 6e9
"""Maximum number of weights of a FLUX.2 klein transformer with the Apache licence: 4B has 3.9e9, 9B has 9.1e9."""


@dataclass(frozen=True)
class Line:
    """One result of a check."""

    status: Status
    """"ok"; "warn": it works, but look at it; "fail": it does not work."""
    subject: str
    """What was checked, for example "memory" or "main.base"."""
    message: str
    """What was found, and what to do about it."""


@dataclass(frozen=True)
class Pool:
    """The replicas of one deployment that hold a model, when the server starts."""

    name: str
    """Name of the deployment, for example "main.shared"."""
    size: DeploymentConfig
    """Settings of the deployment, from the configuration."""
    bytes: int
    """Memory of one replica's weights, in bytes."""
    on_gpu: bool
    """Whether the weights are in GPU memory."""
    loaded: int
    """Main memory of one replica while it loads its weights, before they are quantised or moved, in bytes."""

    @property
    def replicas(self) -> int:
        """Replicas that run at once at the start; an idle deployment of none starts one with its first request."""
        return max(1, self.size.scaling.min_replicas)


@app.command("doctor")
def doctor(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A serve configuration (file or name), or the folder of a set.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine can serve CONFIG. The exit code is 1 if it cannot."""
    settings, served = _settings(config)
    lines = list(counted(check(settings, look(), served=served), "Checking"))
    fails = any(line.status == "fail" for line in lines)
    if as_json:
        emit_json({"version": 1, "ok": not fails, "lines": lines})
    else:
        for line in lines:
            emit(f"{line.status:4}  {line.subject}: {line.message}")
    if fails:
        raise typer.Exit(1)


def check(config: ServeConfig, machine: Machine, *, served: bool = True) -> Iterator[Line]:
    """All checks of a configuration. `served` is false for a set alone, which needs neither ports nor a store."""
    pools: list[Pool] = []
    encoders: set[Hashable] = set()
    for name, arm in config.arms.items():
        yield from _check_arm(config, name, arm, machine, pools, served, encoders)
    if config.scorer.backend == "transformers" and config.scorer.model is not None:
        yield from _check_judge(config, config.scorer.model, machine, pools)
    with suppress(CareEditError):  # a set that cannot be read has its line
        yield from (Line("warn", subject, sentence) for subject, sentence in unpinned_models(config))
    yield from _check_memory(pools, machine)
    if served:
        yield from _check_places(config, pools, machine)
        yield from _check_surroundings(config)


def _settings(config: str) -> tuple[ServeConfig, bool]:
    """The configuration, and whether it is one; a set becomes the configuration of a single editor."""
    try:
        return ServeConfig.from_yaml(find_config(config)), True
    except InputError:
        if not (Path(config) / SET_FILE).is_file():
            raise
    return ServeConfig(arms={"set": Arm(expert_set=config)}), False


def _check_arm(
    config: ServeConfig,
    name: str,
    arm: Arm,
    machine: Machine,
    pools: list[Pool],
    served: bool,
    encoders: set[Hashable],
) -> Iterator[Line]:
    """`encoders` are the bases, devices and number formats of the arms before this one that have an encoder deployment."""
    try:
        loaded = load_expert_set(arm.expert_set)
        shapes = loaded.shapes
        loaded.load_base_lora()
        file = loaded.base_transformer()
    except CareEditError as error:
        yield Line("fail", f"{name}.set", str(error))
        return
    yield Line("ok", f"{name}.set", f"{loaded.name} {loaded.version}: {shapes.label}, {len(loaded.names)} experts.")
    yield _licence(name, loaded)
    unknown = [one for one in loaded.names if loaded.manifest(one).licence == "unknown"]
    if unknown:
        yield Line("warn", f"{name}.licence", f"The licence of {', '.join(unknown)} is unknown; ask its makers.")
    strange = [one for one in (*arm.experts, *arm.tail_of(loaded.names)) if one not in loaded.names]
    if strange:
        yield Line("fail", f"{name}.experts", f"The set has no expert {strange[0]!r}; correct the configuration.")
    try:
        components = [name for name in components_of(loaded.facts) if file is None or name != "transformer"]
        weights = weights_of(loaded.base_path, loaded.spec.base.revision, components)
    except CareEditError as error:
        yield Line("fail", f"{name}.base", str(error))
        return
    yield _base(f"{name}.base", loaded.base_path, weights, machine)
    sizes: dict[str, DeploymentConfig] = {
        one: arm.experts.get(one, config.expert) for one in loaded.names if one not in arm.tail_of(loaded.names)
    }
    yield from _check_quantisation(name, arm, loaded, tuple(sizes))
    sizes |= {} if config.shared is None else {"shared": config.shared}
    if not served:
        sizes = {"shared": DeploymentConfig(num_gpus=min(1, len(machine.gpus)))}  # as `Editor` chooses its device
    on_gpu = any(size.num_gpus > 0 for size in sizes.values()) and arm.device != "cpu"
    yield from _check_device(name, arm, machine, on_gpu=on_gpu)
    parameters = dict.fromkeys(sizes, weights.parameters)
    if config.encoder is not None:
        texts = weights_of(loaded.base_path, loaded.spec.base.revision, loaded.facts.text_encoders)
        parameters = dict.fromkeys(sizes, weights.parameters - texts.parameters)
        if (key := (base_key(loaded), arm.device, arm.dtype)) not in encoders:  # as `plan_fleet` shares them
            encoders.add(key)
            sizes["encoder"], parameters["encoder"] = config.encoder, texts.parameters
        if on_gpu != (config.encoder.num_gpus > 0):
            text = "The encoder and the experts run on different devices, so traces do not replay to the bit"
            yield Line("warn", f"{name}.encoder", f"{text}; give both num_gpus, or neither.")
    for pool, size in sizes.items():
        gpu = size.num_gpus > 0 and arm.device != "cpu"
        dtype = arm.dtype or ("bfloat16" if gpu else "float32")
        whole = parameters[pool] * BYTES[dtype]
        if file is not None and pool != "encoder":
            whole += file.stat().st_size
        saved = 0 if pool == "encoder" else _saved(loaded.shapes, arm.quantisation, BYTES[dtype])
        pools.append(Pool(f"{name}.{pool}", size, whole - saved, gpu, whole))


def _check_quantisation(name: str, arm: Arm, loaded: ExpertSet, own: tuple[str, ...]) -> Iterator[Line]:
    """Whether the package of an arm's quantisation is installed, and no expert would be merged into quantised weights."""
    file = loaded.spec.base.transformer
    if arm.quantisation is None and file is None:
        return
    from careedit.editing.quantisation import check_quantisation
    from careedit_deployments.app import check_quantised

    try:
        check_quantised(name, arm, loaded, own)
        if arm.quantisation is not None:
            check_quantisation(arm.quantisation)
        how = arm.quantisation or (file and file.file)
        yield Line("ok", f"{name}.quantisation", f"{how}: the transformer's weights take less memory.")
    except CareEditError as error:
        yield Line("fail", f"{name}.quantisation", str(error))


def _saved(shapes: BaseShapes, quantisation: Quantisation | None, item: int) -> int:
    """Bytes that quantisation saves of a transformer whose weights have `item` bytes."""
    if quantisation is None:
        return 0
    count = sum(outer * inner for path, (outer, inner) in shapes.linear.items() if in_blocks(path))
    return int(count * (item - QUANTISED_BYTES[quantisation]))


def _licence(name: str, loaded: ExpertSet) -> Line:
    facts = loaded.facts
    # A family with several licences states the free one first.
    free = facts.licence.startswith("Apache") and (";" not in facts.licence or loaded.shapes.count < SMALL_KLEIN)
    advice = "" if free else " Commercial use may be forbidden; read it."
    return Line(
        "ok" if free else "warn", f"{name}.licence", f"{facts.name}'s released weights: {facts.licence}.{advice}"
    )


def _base(subject: str, place: str, weights: Weights, machine: Machine) -> Line:
    size = f"{weights.parameters / 1e6:,.1f} million weights, {_gib(weights.stored)} of files"
    if weights.missing:
        more = f" and {len(weights.missing) - 1} more" if len(weights.missing) > 1 else ""
        return Line("fail", subject, f"{place} has no {weights.missing[0]}{more}; get the model again.")
    if weights.fetched:
        return Line("ok", subject, f"{place}: {size}.")
    if weights.stored > machine.disk:
        free = f"the hub's cache has {_gib(machine.disk)} of free disk"
        return Line("fail", subject, f"{place} is not on this machine ({size}), and {free}; free some or set HF_HOME.")
    return Line("warn", subject, f"{place} is not on this machine; the first start downloads it ({size}).")


def _check_device(name: str, arm: Arm, machine: Machine, *, on_gpu: bool) -> Iterator[Line]:
    """The device of an arm, and whether its number format is fast there."""
    if (on_gpu or (arm.device or "").startswith("cuda")) and not machine.gpus:
        advice = "serve it on a machine with one, or set num_gpus: 0 (edits then take minutes)"
        yield Line("fail", f"{name}.device", f"No NVIDIA GPU was found (nvidia-smi lists none); {advice}.")
        return
    if (arm.device or "").startswith("cuda") and not on_gpu:
        text = "The arm names cuda, but its replicas reserve no GPU, and Ray hides GPUs from such replicas"
        yield Line("fail", f"{name}.device", f"{text}; set num_gpus for expert and shared.")
        return
    device = "cuda" if on_gpu else "cpu"
    where = ", ".join(gpu.name for gpu in machine.gpus) if on_gpu else f"{machine.cpus} CPU cores"
    if not on_gpu and machine.gpus:
        yield Line("warn", f"{name}.device", "The GPU is not used; set num_gpus: 1 for expert and shared.")
    else:
        yield Line("ok", f"{name}.device", f"{where}.")
    import torch

    from careedit.finetune.precision import GAIN, measure

    if on_gpu and not torch.cuda.is_available():
        advice = "install the build of torch for your CUDA version"
        yield Line("fail", f"{name}.dtype", f"This torch ({torch.__version__}) cannot use the GPU; {advice}.")
        return
    speeds = measure(device, torch.get_num_threads())
    dtype = arm.dtype or ("bfloat16" if on_gpu else "float32")
    half, ratio = dtype != "float32", speeds["bfloat16"] / speeds["float32"]
    figures = f"bfloat16 multiplies matrices {ratio:.2g} times as fast as float32 here"
    wanted = "bfloat16" if ratio > GAIN else "float32"
    if half == (ratio > GAIN) or (not half and not on_gpu and ratio < 2):
        yield Line("ok", f"{name}.dtype", f"{dtype}; {figures}.")
    else:
        yield Line("warn", f"{name}.dtype", f"{dtype} is slow: {figures}. Set arms.{name}.dtype: {wanted}.")


def _check_judge(config: ServeConfig, model: str, machine: Machine, pools: list[Pool]) -> Iterator[Line]:
    provider = plugins.load(plugins.JUDGES, model, error=InputError)
    try:
        weights = weights_of(*split_hub_id(model) if provider is None else [str(provider())])
    except CareEditError as error:
        yield Line("fail", "scorer", str(error))
        return
    yield _base("scorer", model, weights, machine)
    size = config.scorer.deployment
    whole = weights.parameters * (2 if size.num_gpus else 4)
    pools.append(Pool("scorer", size, whole, size.num_gpus > 0, whole))


def _check_memory(pools: list[Pool], machine: Machine) -> Iterator[Line]:
    """Each pool on its own, and all of a device together."""
    smallest = min((gpu.free for gpu in machine.gpus), default=0)
    for pool in pools:
        if pool.on_gpu and not machine.gpus:
            yield Line("fail", f"{pool.name}.memory", f"A replica needs {_gib(pool.bytes)} of GPU memory.")
            continue
        share = min(1.0, pool.size.num_gpus)
        free = int(smallest * share) if pool.on_gpu else machine.memory
        where = "a GPU" if share == 1.0 else f"{share:g} of a GPU"
        yield _fits(f"{pool.name}.memory", pool.bytes, free, where if pool.on_gpu else "main memory")
    main = sum(pool.bytes * pool.replicas for pool in pools if not pool.on_gpu)
    if sum(pool.replicas for pool in pools if not pool.on_gpu) > 1:
        yield _fits("memory", main, machine.memory, "main memory, all replicas at the start together")
    loading = max((pool.loaded for pool in pools if pool.on_gpu or pool.loaded > pool.bytes), default=0)
    if loading > machine.memory:
        text = f"Weights pass through main memory ({_gib(loading)}), which has {_gib(machine.memory)} free"
        yield Line("warn", "memory", f"{text}; loading will be slow, or fail.")


def _fits(subject: str, wanted: int, free: int, where: str) -> Line:
    text = f"{_gib(wanted)} of weights, {_gib(free)} free in {where}"
    if wanted > free:
        return Line(
            "fail", subject, f"{text}; use fewer replicas, a smaller base or a smaller dtype, or free memory there."
        )
    if wanted * HEADROOM > free:
        return Line("warn", subject, f"{text}; little is left for activations, so lower batch or the panel size.")
    return Line("ok", subject, f"{text}.")


def _check_places(config: ServeConfig, pools: list[Pool], machine: Machine) -> Iterator[Line]:
    """Whether Ray finds a place for every replica of the start."""
    wanted = sum(pool.size.num_gpus * pool.replicas for pool in pools)
    if wanted > len(machine.gpus):
        advice = "lower num_gpus (a fraction shares a GPU) or put experts in long_tail"
        found = f"The replicas of the start reserve {wanted:g} GPUs, and this machine has {len(machine.gpus)}"
        yield Line("fail", "gpus", f"{found}; {advice}.")
    others = [config.ingress, *(config.router for _ in config.arms)]
    cpus = sum(pool.size.num_cpus * pool.replicas for pool in pools)
    cpus += sum(size.num_cpus * max(1, size.scaling.min_replicas) for size in others)
    text = f"The replicas of the start reserve {cpus:g} CPUs of {machine.cpus}"
    if cpus > machine.cpus:
        yield Line("fail", "cpus", f"{text}; lower num_cpus, which only decides placement.")
    else:
        yield Line("ok", "cpus", f"{text}.")


def _check_surroundings(config: ServeConfig) -> Iterator[Line]:
    """The port, packages, environment variables and folders that the server needs."""
    family = socket.AF_INET6 if ":" in config.http.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.http.host, config.http.port))
            yield Line("ok", "port", f"{config.http.host}:{config.http.port} is free.")
        except OSError as error:
            text = f"{config.http.host}:{config.http.port} cannot be used ({error.strerror or error})"
            yield Line("fail", "port", f"{text}; stop what uses it, or give --port.")
    remote = [config.state.blobs, *(arm.expert_set for arm in config.arms.values())]
    if any(place.startswith("s3://") for place in remote) and find_spec("s3fs") is None:
        yield Line("fail", "s3", "An s3:// address needs the package s3fs; pip install 'careedit[s3]'.")
    variables = {
        "scorer.api_key_env": config.scorer.api_key_env,
        "jobs.webhook_secret_env": config.jobs.webhook_secret_env,
        "state.user_key_env": config.state.user_key_env,
    }
    for field, variable in variables.items():
        if variable is not None and not os.environ.get(variable):
            yield Line("fail", field, f"The environment variable {variable} is not set; set it before the start.")
    scheme, _, address = config.state.database.partition(":///")
    local = {"state.blobs": config.state.blobs}
    if scheme.startswith("sqlite"):
        local["state.database"] = str(Path(address).parent)
    for field, place in local.items():
        folder = Path(place).absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if "://" not in place and not os.access(there, os.W_OK):
            yield Line("fail", field, f"{str(there)!r} cannot be written to; change {field}.")
    try:
        yield from (Line("warn", "credentials", sentence) for sentence in check_credentials(config))
    except InputError as error:
        yield Line("fail", "credentials", str(error))
    if not config.http.is_loopback and config.auth.required is False:
        yield Line("warn", "auth", "The server listens on the network without API keys; set auth.required: true.")


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
