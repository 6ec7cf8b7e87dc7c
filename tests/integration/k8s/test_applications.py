"""The `serveConfigV2` of every overlay is one that Serve takes, and its application builds."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from typer.main import get_command

from careedit_deployments.app import build_app
from careedit_deployments.kubernetes.rayservice import IMPORT_PATH
from careedit_deployments.state.database import Database
from careedit_eval.cli.app import app as evaluation
from manifests import OVERLAYS, ROOT, of_kind


def serve_config(overlay: str) -> dict[str, Any]:
    (service,) = of_kind(overlay, "RayService")
    return yaml.safe_load(service["spec"]["serveConfigV2"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_serve_takes_the_configuration_as_it_is(overlay: str) -> None:
    schema = ServeDeploySchema.model_validate(serve_config(overlay))
    (application,) = schema.applications
    assert application.import_path == IMPORT_PATH == f"{build_app.__module__}:{build_app.__name__}"
    assert schema.http_options.port == 8000 and str(schema.proxy_location.value) == "EveryNode"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_application_builds_with_a_set_in_the_place_of_each_arms_own(overlay: str) -> None:
    (application,) = serve_config(overlay)["applications"]
    arms = application["args"]["arms"]
    for arm in arms.values():
        arm["expert_set"] = "tiny"  # what a GPU cluster mounts at /models is not here
    built = build_app(application["args"])
    names = {deployment.name for deployment in _deployments(built)}
    own = sum(5 - len(arm.get("long_tail", ())) for arm in arms.values())
    assert len(names) == 1 + ("scorer" in application["args"]) + 2 * len(arms) + own
    tied = [one for one in _deployments(built) if one.ray_actor_options["resources"]]
    assert len(tied) == len(names), "a replica is tied to no group"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_in_the_pods_is_the_one_that_serve_gets(overlay: str) -> None:
    (application,) = serve_config(overlay)["applications"]
    (config,) = [one for one in of_kind(overlay, "ConfigMap") if one["metadata"]["name"] == "careedit-config"]
    assert yaml.safe_load(config["data"]["serve.yaml"]) == application["args"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_nights_command_is_one_that_there_is_and_its_suite_is_in_the_image(overlay: str) -> None:
    (job,) = of_kind(overlay, "RayCronJob", "RayJob")
    spec = job["spec"].get("jobTemplate", job["spec"])
    program, group, name, *arguments = shlex.split(spec["entrypoint"])
    assert (program, group) == ("careedit", "eval")
    command = get_command(evaluation).commands[name]  # type: ignore[attr-defined]
    given = command.make_context(name, arguments).params
    suite = Path(given["suite"])
    assert (ROOT / "eval/suites" / suite.name).is_file() and str(suite.parent) == "/etc/careedit/suites"
    assert str(given["out"]) == "/results"


def _deployments(app: Any) -> list[Any]:
    """Every deployment of a bound application, each once."""
    found: dict[str, Any] = {}

    def look(value: Any) -> None:
        bound = getattr(value, "_bound_deployment", None)
        if bound is not None and bound.name not in found:
            found[bound.name] = bound
            look([*bound.init_args, *bound.init_kwargs.values()])
        elif isinstance(value, dict):
            look(list(value.values()))
        elif isinstance(value, list | tuple):
            for one in value:
                look(one)

    look(app)
    return list(found.values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_databases_driver_is_there_and_its_password_is_not_in_the_address(overlay: str) -> None:
    (application,) = serve_config(overlay)["applications"]
    address = application["args"]["state"]["database"]
    assert address.startswith("postgresql+asyncpg://careedit@")
    assert Database(address) is not None
