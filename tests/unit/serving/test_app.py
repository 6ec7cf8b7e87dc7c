"""From a configuration to deployments: every shipped one, by Ray's own schema; and what changes in place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from ray.serve._private.build_app import build_app as build_by_ray
from ray.serve.deployment import deployment_to_schema
from ray.serve.schema import ServeDeploySchema

from careedit.errors import ExpertError, InputError
from careedit.experts import load_expert_set, remove_expert
from careedit.experts.manifest import SET_FILE
from careedit_deployments.app import build_app, plan_fleet
from careedit_deployments.config import ServeConfig

CONFIGS = Path(__file__).parents[3] / "deployments/config"


def deployments(config):
    built = build_by_ray(build_app(config), name="careedit")
    return {one.name: one for one in built.deployments}


@pytest.fixture
def config(untrained_set):
    def make(**changes):
        return {"arms": {"main": {"expert_set": str(untrained_set), "long_tail": ["reference"]}}, **changes}

    return make


def test_a_commercial_application_is_not_built_with_a_set_that_may_not_be_used_so(config, untrained_set, tmp_path):
    for owner, allowed in (("ours", True), ("theirs", False)):
        shutil.copytree(untrained_set, tmp_path / owner)
        spec = yaml.safe_load((tmp_path / owner / SET_FILE).read_text("utf-8"))
        spec["base"] |= {"licence": "A contract", "commercial": allowed}
        (tmp_path / owner / SET_FILE).write_text(yaml.safe_dump(spec), "utf-8")
    arms = {owner: {"expert_set": str(tmp_path / owner)} for owner in ("ours", "theirs")}
    assert "router-ours" in deployments({"arms": {"ours": arms["ours"]}, "commercial": True})
    assert "router-theirs" in deployments({"arms": arms})
    with pytest.raises(ExpertError, match="may not be used commercially"):
        build_app({"arms": arms, "commercial": True})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_builds_what_ray_accepts(path, untrained_set):
    fields = yaml.safe_load(path.read_text("utf-8"))
    for arm in fields["arms"].values():
        if arm["expert_set"] != "tiny":  # a set that its owner makes; any other one of a FLUX base builds the same
            arm["expert_set"] = str(untrained_set)
    made = deployments(fields)
    schema = ServeDeploySchema.model_validate(
        {
            "applications": [
                {
                    "name": "careedit",
                    "route_prefix": "/",
                    "import_path": "careedit_deployments.app:build_app",
                    "args": fields,
                    "deployments": [deployment_to_schema(one).model_dump(exclude_unset=True) for one in made.values()],
                }
            ]
        }
    )
    told = {one.name: one for one in schema.applications[0].deployments}
    assert "ingress" in told and set(told) == set(made)
    for name in fields["arms"]:
        assert f"router-{name}" in told and f"shared-{name}" in told
    limit = ServeConfig(**fields).limits.deadline_s
    for name, one in told.items():
        if name.startswith(("expert-", "shared-")) and path.stem in ("flux-fill", "klein", "qwen-edit"):
            assert one.ray_actor_options.num_gpus == 1 and one.graceful_shutdown_timeout_s >= limit


def test_an_expert_has_its_own_deployment_unless_it_is_of_the_long_tail(config):
    made = deployments(config(scorer={"backend": "import", "model": "judging:ByPlace"}))
    assert set(made) == {
        *("ingress", "router-main", "shared-main", "scorer"),
        *(f"expert-main-{name}" for name in ("erase", "compose", "style", "identity")),
    }


def test_a_long_tail_of_all_experts_leaves_out_those_with_settings_of_their_own(untrained_set):
    arm = {"expert_set": str(untrained_set), "long_tail": "all", "experts": {"style": {}}}
    assert set(deployments({"arms": {"main": arm}})) == {"ingress", "router-main", "shared-main", "expert-main-style"}


def test_sizes_come_from_the_configuration(config, untrained_set):
    scaled = {"num_gpus": 0.5, "max_queued_requests": 7, "scaling": {"max_replicas": 3, "target_step_seconds": 2}}
    arm = {"expert_set": str(untrained_set), "experts": {"style": scaled}}
    made = deployments({"arms": {"main": arm}, "expert": {"scaling": {"min_replicas": 2, "max_replicas": 2}}})
    style, erase = (made[f"expert-main-{name}"]._deployment_config for name in ("style", "erase"))
    assert (style.max_queued_requests, style.autoscaling_config.max_replicas) == (7, 3)
    assert style.autoscaling_config.policy.policy_kwargs == {"target_seconds": 2.0}
    assert (erase.num_replicas, erase.autoscaling_config) == (2, None)
    assert made["expert-main-style"].ray_actor_options["num_gpus"] == 0.5


def test_serve_refuses_no_request_before_the_ingress_itself_does(config):
    ingress = deployments(config(ingress={"max_ongoing_requests": 40, "max_queued_requests": 5}))["ingress"]
    assert ingress._deployment_config.max_ongoing_requests >= 40 + 1000
    assert ingress._deployment_config.max_queued_requests >= 1000


def test_another_set_changes_replicas_in_place_and_other_settings_replace_them(config, untrained_set, tmp_path):
    before = deployments(config())
    folder = shutil.copytree(untrained_set, tmp_path / "set")
    remove_expert(folder, "identity")
    changed = config()
    changed["arms"]["main"]["expert_set"] = str(folder)
    after = deployments(changed)
    assert set(before) - set(after) == {"expert-main-identity"}
    for name, one in after.items():
        assert one._version == before[name]._version
        assert one._deployment_config.user_config != before[name]._deployment_config.user_config
    assert deployments(config(batch=2))["expert-main-erase"]._version != before["expert-main-erase"]._version
    assert deployments(config(batch=2))["router-main"]._version == before["router-main"]._version
    assert deployments(config(limits={"images": 1}))["ingress"]._version != before["ingress"]._version


@pytest.mark.parametrize("place", [{"experts": {"magic": {}}}, {"long_tail": ["magic"]}])
def test_settings_of_an_expert_that_is_not_there_are_refused(place, untrained_set):
    with pytest.raises(InputError, match="settings for the expert 'magic', but its set has erase"):
        build_app({"arms": {"main": {"expert_set": str(untrained_set), **place}}})


def test_an_expert_that_would_be_merged_into_quantised_weights_is_refused_by_name(untrained_set):
    names = load_expert_set(untrained_set).names
    arm = {"expert_set": str(untrained_set), "quantisation": "fp8", "long_tail": [n for n in names if n != "erase"]}
    with pytest.raises(InputError, match="fp8 weights, and the expert 'erase' would be merged into them"):
        build_app({"arms": {"main": arm}})
    fleet = plan_fleet(
        ServeConfig(arms={"main": {**arm, "long_tail": list(names)}}), {"main": load_expert_set(untrained_set)}
    )
    assert fleet.arms["main"].own == () and fleet.arms["main"].shared


def test_a_set_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ExpertError, match="is not an expert set"):
        build_app({"arms": {"main": {"expert_set": str(tmp_path)}}})


def test_arms_with_the_same_base_share_an_encoder_which_is_kept_when_a_set_changes(config, untrained_set, tmp_path):
    folder = str(shutil.copytree(untrained_set, tmp_path / "set"))
    arms = {
        "first": {"expert_set": str(untrained_set)},
        "second": {"expert_set": folder},
        "half": {"expert_set": folder, "dtype": "bfloat16"},
    }
    encoder = {"num_cpus": 2, "scaling": {"min_replicas": 1, "max_replicas": 3}, "batch": 4}
    made = deployments({"arms": arms, "encoder": encoder})
    assert sorted(name for name in made if name.startswith("encoder")) == ["encoder-first", "encoder-half"]
    assert made["encoder-first"].ray_actor_options["num_cpus"] == 2
    assert made["encoder-first"]._deployment_config.autoscaling_config.max_replicas == 3
    with_other_set = {"first": {"expert_set": folder}, "second": arms["second"], "half": arms["half"]}
    changed = deployments({"arms": with_other_set, "encoder": encoder})
    assert changed["encoder-first"].version == made["encoder-first"].version
    fleet = plan_fleet(ServeConfig(arms=arms, encoder=encoder), {name: load_expert_set(folder) for name in arms})
    assert [arm.encoder for arm in fleet.arms.values()] == ["encoder-first", "encoder-first", "encoder-half"]
    assert fleet.needed["encoder-first"] == "the encoder of first, second"


def test_the_fleet_sends_an_edit_to_its_experts_own_replicas_or_to_the_pool(config, untrained_set, decide):
    settings = ServeConfig(**config())
    fleet = plan_fleet(settings, {"main": load_expert_set(untrained_set)})
    assert fleet.deployment_for("main", decide(erase=1.0)) == "expert-main-erase"
    assert fleet.deployment_for("main", decide(reference=1.0)) == "shared-main"
    assert fleet.deployment_for("main", decide(base=1.0)) == "shared-main"
    assert fleet.deployment_for("main", decide(erase=0.5, style=0.5)) == "shared-main"
    pool = settings.shared
    assert fleet.arms["main"].max_in_flight["shared-main"] == (
        pool.scaling.max_replicas * pool.max_ongoing_requests + pool.max_queued_requests
    )
    assert set(fleet.arms["main"].max_in_flight) == {
        *(f"expert-main-{name}" for name in fleet.arms["main"].own),
        "shared-main",
    }
    with pytest.raises(InputError, match="expert 'magic' does not exist"):
        fleet.deployment_for("main", decide(magic=1.0))
    alone = plan_fleet(
        ServeConfig(arms={"main": {"expert_set": "x"}}, shared=None), {"main": load_expert_set(untrained_set)}
    )
    with pytest.raises(InputError, match="no shared pool"):
        alone.deployment_for("main", decide(base=1.0))
    assert "shared-main" not in alone.needed and "expert-main-erase" in alone.needed


def test_a_configuration_may_be_named_by_its_file(config, tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(config()))
    assert set(deployments({"config": str(file)})) == set(deployments(config()))
