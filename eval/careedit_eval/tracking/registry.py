"""Expert sets as registered models: a version per hash, and the aliases of the champion and the challenger.

The weights are not copied: a version has the location of its set, and the hash that the set there must have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from careedit.errors import InputError
from careedit_eval.errors import TrackingError
from careedit_eval.tracking.store import default_uri, experiment_of, tracking

CHAMPION, CHALLENGER = "champion", "challenger"
"""The aliases of the set in use and of the set that may replace it."""
EXPERIMENT = "expert-sets"
"""MLflow's experiment of the sets. A registered model must have one, whichever evaluation it comes from."""
WORKSPACE = Path("eval-runs")
"""The default folder of `careedit eval`."""
_ADDRESS = re.compile(r"models:/(?P<name>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<version>\d+))")


def register_set(facts: Mapping[str, str]) -> str:
    """The version of the set with these facts ("set", "version", "sha256", "base", "location"), made if it is new.

    Call within `tracking`.
    """
    import mlflow
    from mlflow import MlflowClient

    client, name = MlflowClient(), facts["set"]
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.tags.get("sha256") == facts["sha256"]:
            return str(known.version)
    model = mlflow.create_external_model(
        name=name,
        model_type="lora-expert-set",
        params={key: facts[key] for key in ("version", "sha256", "base")},
        tags={"location": facts["location"]},
        # Named: MLflow would take the last experiment of this process, which may be another server's.
        experiment_id=experiment_of(EXPERIMENT),
    )
    tags = {key: facts[key] for key in ("sha256", "location", "base")} | {"set_version": facts["version"]}
    made = mlflow.register_model(f"models:/{model.model_id}", name, tags=tags)
    return str(made.version)


def logged_model(name: str, version: str) -> str:
    """The id of the LoggedModel behind a version, to which runs and traces are linked. Call it within `tracking`."""
    from mlflow import MlflowClient

    found = MlflowClient().get_model_version(name, version)
    # MLflow's SQL stores do not return the id of the model, only its address.
    return str(found.model_id or str(found.source).removeprefix("models:/"))


def promote(
    facts: Mapping[str, str], *, run_id: str | None, reason: str, replaced: Mapping[str, str] | None = None
) -> str:
    """Make a set the champion, with a reason, and return its version. Call it within `tracking`, after a passed gate only.

    `replaced` are the facts of the set that it was compared with. If the name has no champion yet, that set becomes the previous
    champion, so the first champion can be rolled back too.
    """
    from mlflow import MlflowClient

    client, name = MlflowClient(), facts["set"]
    before = _version(name, CHAMPION)
    if before is None and replaced is not None and replaced["set"] == name and replaced["sha256"] != facts["sha256"]:
        before = register_set(replaced)
    version = register_set(facts)
    if before == version:
        return version
    client.set_model_version_tag(name, version, "previous_champion", before or "none")
    client.set_model_version_tag(name, version, "promoted_from_run", run_id or "none")
    client.set_model_version_tag(name, version, "promoted_because", reason[:5000])
    client.set_registered_model_alias(name, CHAMPION, version)
    return version


def roll_back(name: str) -> str:
    """Make the champion's predecessor the champion again and return its version. Call it within `tracking`."""
    from mlflow import MlflowClient

    client, version = MlflowClient(), _version(name, CHAMPION)
    if version is None:
        raise InputError(f"{name!r} has no champion; promote a set first.")
    before = client.get_model_version(name, version).tags.get("previous_champion", "none")
    if before == "none":
        raise InputError(f"Version {version} of {name!r} is the first champion; no earlier champion exists.")
    client.set_model_version_tag(name, version, "rolled_back", "true")
    client.set_registered_model_alias(name, CHAMPION, before)
    return str(before)


def set_location(address: str, uri: str | None = None) -> str:
    """The location of the set `models:/NAME@ALIAS` or `models:/NAME/VERSION`, after a check of its hash.

    Raises `InputError` for an unknown address or another hash, and `TrackingError` if the registry does not answer.
    """
    from careedit.experts import load_expert_set

    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise InputError(
            f"{address!r} is not an address in the registry; write models:/NAME@champion or models:/NAME/VERSION."
        )
    uri = uri or default_uri(Path.cwd())
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError(
            f"No registry exists at {uri} yet, so {address} cannot be found; promote a set with `careedit eval promote`."
        )
    with tracking(uri):
        from mlflow import MlflowClient

        name = parts["name"]
        version = parts["version"] or _version(name, parts["alias"])
        if version is None:
            raise InputError(f"The registry has no {address}; promote a set with `careedit eval promote`.")
        tags = MlflowClient().get_model_version(name, version).tags
    if "location" not in tags:
        raise TrackingError(f"{address} does not say where it is; it was not registered by careedit.")
    found = load_expert_set(tags["location"]).sha256
    if found != tags.get("sha256"):
        raise InputError(
            f"The set at {tags['location']} has the hash {found[:12]}, {address} states {tags.get('sha256', '')[:12]}; put "
            "the registered one back, or promote the one that is there."
        )
    return str(tags["location"])


def find_set(address: str) -> str:
    """`set_location` in `MLFLOW_TRACKING_URI`, or else in the default folder of `careedit eval`."""
    return set_location(address, default_uri(WORKSPACE))


def _version(name: str, alias: str) -> str | None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return str(MlflowClient().get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
