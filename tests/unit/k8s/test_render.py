"""What `careedit k8s render` makes is what is committed, and what the configurations in `deployments/config` say."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from careedit.errors import InputError
from careedit.provenance.certificates import make_identity
from careedit.provenance.signing import Signing
from careedit_deployments.config import ServeConfig
from careedit_deployments.kubernetes.cluster import Cluster, merge, resource_of
from careedit_deployments.kubernetes.command import app, dev_secrets
from careedit_deployments.kubernetes.rayservice import serve_config
from careedit_deployments.kubernetes.render import render
from careedit_deployments.sizes import DeploymentConfig

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "deployments/config"
CLUSTERS = sorted((ROOT / "k8s/overlays").glob("*/cluster.yaml"))
NAMES = [path.parent.name for path in CLUSTERS]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what `render` reads and writes."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    shutil.copytree(CONFIGS, tmp_path / "deployments/config")
    return tmp_path


def test_the_committed_files_are_the_rendered_ones() -> None:
    stale = [str(path) for path, text in render(ROOT).items() if path.read_text("utf-8") != text]
    assert stale == [], "run careedit k8s render"


def test_a_change_of_a_configuration_is_seen_and_written(copy: Path) -> None:
    runner, config = CliRunner(), copy / "deployments/config/tiny.yaml"
    config.write_text(config.read_text("utf-8").replace("deadline_s: 120", "deadline_s: 90"), "utf-8")
    seen = runner.invoke(app, ["render", "--root", str(copy), "--check", "--json"])
    assert seen.exit_code == 1
    assert [Path(path).parent.name for path in json.loads(seen.stdout)["changed"]] == ["local"]
    assert runner.invoke(app, ["render", "--root", str(copy)]).exit_code == 0
    assert "deadline_s: 90" in (copy / "k8s/overlays/local/rayservice.yaml").read_text("utf-8")
    assert runner.invoke(app, ["render", "--root", str(copy), "--check"]).exit_code == 0


@pytest.mark.parametrize("path", CLUSTERS, ids=NAMES)
def test_serve_gets_the_configuration_of_deployments_config_and_what_the_cluster_says(path: Path) -> None:
    cluster = Cluster.from_yaml(path)
    manifest = next(yaml.safe_load_all((path.parent / "rayservice.yaml").read_text("utf-8")))
    (application,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
    plain = yaml.safe_load((CONFIGS / cluster.config).read_text("utf-8"))
    untied = _without_resources(application["args"])
    assert untied == _without_resources(merge(plain, cluster.settings))
    assert ServeConfig(**application["args"]).http.host == "0.0.0.0"


def _without_resources(args: Any) -> Any:
    if not isinstance(args, dict):
        return args
    return {key: _without_resources(value) for key, value in args.items() if key != "resources"}


@pytest.mark.parametrize("path", CLUSTERS, ids=NAMES)
def test_every_replica_fits_into_a_pod_of_its_group_and_the_least_of_them_into_the_least_pods(path: Path) -> None:
    cluster = Cluster.from_yaml(path)
    config = ServeConfig(**cluster.serve_args(CONFIGS))
    assert set(cluster.placement) >= {"ingress", "router", "expert", "shared"}
    assert ("scorer" in cluster.placement) == (config.scorer.backend != "none")
    assert ("encoder" in cluster.placement) == (config.encoder is not None)
    for part, group in cluster.placement.items():
        size: DeploymentConfig | None = config.scorer.deployment if part == "scorer" else getattr(config, part)
        assert size is not None
        pod = cluster.groups[group].pod
        assert size.num_cpus <= pod.cpus and size.num_gpus <= pod.gpus, part
        assert set(size.resources) == {resource_of(group)}
        per_pod = int(min(pod.cpus / size.num_cpus, pod.gpus / size.num_gpus if size.num_gpus else 1e9))
        assert size.scaling.max_replicas <= per_pod * cluster.groups[group].max_pods, f"{part} can't reach its maximum"
        if size.num_gpus:
            assert size.scaling.min_replicas <= per_pod * cluster.groups[group].min_pods, f"{part} starts too small"


@pytest.mark.parametrize("path", CLUSTERS, ids=NAMES)
def test_a_pod_may_take_longer_to_go_than_its_longest_edit(path: Path) -> None:
    cluster = Cluster.from_yaml(path)
    config = ServeConfig(**cluster.serve_args(CONFIGS))
    spec = next(yaml.safe_load_all((path.parent / "rayservice.yaml").read_text("utf-8")))["spec"]
    assert cluster.longest_edit_s >= config.limits.deadline_s
    for group in spec["rayClusterConfig"]["workerGroupSpecs"]:
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > config.limits.deadline_s
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > config.expert.graceful_shutdown_s
    assert spec["rayClusterDeletionDelaySeconds"] > config.limits.deadline_s
    assert serve_config(cluster, CONFIGS)["http_options"]["request_timeout_s"] > config.limits.deadline_s


@pytest.mark.parametrize("path", CLUSTERS, ids=NAMES)
def test_the_head_holds_no_replicas_and_its_state_outlives_it(path: Path) -> None:
    ray = next(yaml.safe_load_all((path.parent / "rayservice.yaml").read_text("utf-8")))["spec"]["rayClusterConfig"]
    assert ray["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert ray["gcsFaultToleranceOptions"]["redisAddress"] == Cluster.from_yaml(path).redis
    assert ray["enableInTreeAutoscaling"] is True


def test_the_long_tail_scales_to_zero_on_gpus() -> None:
    for path in CLUSTERS:
        cluster = Cluster.from_yaml(path)
        if cluster.groups[cluster.placement["shared"]].pod.gpus:
            assert cluster.groups["shared"].min_pods == 0
            shared = ServeConfig(**cluster.serve_args(CONFIGS)).shared
            assert shared is not None and shared.scaling.min_replicas == 0


@pytest.mark.parametrize("path", CLUSTERS, ids=NAMES)
def test_two_nights_never_overlap(path: Path) -> None:
    nightly = Cluster.from_yaml(path).nightly
    assert nightly is not None and nightly.deadline_s < 24 * 3600
    first = next(one for one in _documents(path.parent / "nightly.yaml") if one["kind"].endswith("CronJob"))
    assert first["kind"] == nightly.kind
    if nightly.kind == "CronJob":
        assert first["spec"]["concurrencyPolicy"] == "Forbid"
        assert first["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 24 * 3600
    else:
        assert first["spec"]["jobTemplate"]["activeDeadlineSeconds"] == nightly.deadline_s


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("expert: front,", "expert: front, encoder: front,", "must both name the encoder, or neither"),
        ("expert: front,", "expert: gpus,", "placement puts expert into the group 'gpus', which does not exist"),
        ("min_pods: 1", "min_pods: 3", "min_pods is 3 and max_pods 2"),
        ("deadline_s: 7200", "deadlines: 7200", "Nightly has no field 'deadlines'"),
        ("memory: 3Gi", "memory: 3GB", "Pod does not accept '3GB' for its field 'memory'"),
        ("config: tiny.yaml", "config: huge.yaml", "huge.yaml' cannot be read"),
        ("http: {host: 0.0.0.0}", "http: {hostname: 0.0.0.0}", "HttpConfig has no field 'hostname'"),
        ("version: 1", "- 1", "is not valid YAML"),
        ("kind: CronJob", "kind: RayCronJob\n  schedule: 0 1 * * *", None),
    ],
)
def test_a_wrong_cluster_file_is_answered_with_a_sentence(copy: Path, old: str, new: str, sentence: str | None) -> None:
    path = copy / "k8s/overlays/local/cluster.yaml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    if sentence is None:
        assert "kind: RayCronJob" in render(copy)[path.with_name("nightly.yaml")]
        return
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        render(copy)


def test_a_ray_cron_job_that_could_overlap_is_refused(copy: Path) -> None:
    path = copy / "k8s/overlays/gpu/cluster.yaml"
    path.write_text(path.read_text("utf-8").replace("deadline_s: 36000", "deadline_s: 90000"), "utf-8")
    with pytest.raises(InputError, match="give less than a day"):
        render(copy)


def test_secrets_are_drawn_anew_each_time() -> None:
    first, second = (
        {text for one in yaml.safe_load_all(dev_secrets()) for text in one["stringData"].values()} for _ in "ab"
    )
    assert len(first) == 7 and first.isdisjoint(second)
    assert all(len(text) == 48 or text.startswith("-----BEGIN ") for text in first)


def test_the_secrets_of_a_local_cluster_sign_results() -> None:
    stores = next(one["stringData"] for one in yaml.safe_load_all(dev_secrets()) if "PGPASSWORD" in one["stringData"])
    given = [stores[f"CAREEDIT_CREDENTIALS_{part}"].encode() for part in ("CERTIFICATE", "KEY")]
    assert Signing(make_identity(*given, "certificate", "key")).identity.days_left() > 300


def test_a_folder_without_overlays_is_answered_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the root of the repository"):
        render(tmp_path)
