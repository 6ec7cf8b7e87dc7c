"""What a server deploys where its configuration names `models:/...`: the champion of a real MLflow registry."""

from pathlib import Path

import pytest

from careedit.errors import InputError
from careedit.experts import load_expert_set
from careedit_deployments.app import build_app, set_reference
from careedit_eval.editors import resolve_arm
from careedit_eval.suite import Arm
from careedit_eval.tracking import promote, roll_back, tracking

pytestmark = [
    # Of MLflow 3.17 and what it stands on, none of it under our hands.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHAMPION = "models:/untrained@champion"


def test_the_champion_is_served_and_the_one_before_after_a_rollback(
    untrained_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match="No registry exists"):
        set_reference(CHAMPION)
    first = resolve_arm(Arm(name="x", expert_set=str(untrained_set))).facts
    other = {**resolve_arm(Arm(name="x", expert_set="tiny")).facts, "set": "untrained"}
    with tracking(uri):
        promote(first, run_id=None, reason="PASS")
    assert set_reference(CHAMPION) == str(untrained_set.resolve())
    with tracking(uri):
        promote(other, run_id=None, reason="PASS")
    assert load_expert_set(set_reference(CHAMPION)).sha256 == other["sha256"]
    # Replicas are told of a place, not of the registry: nobody asks it while requests wait.
    app = build_app({"arms": {"main": {"expert_set": CHAMPION}}})
    told = app._bound_deployment.user_config["arms"]["main"]["info"]
    assert (told["expert_set"], told["sha256"]) == ("tiny", other["sha256"])
    with tracking(uri):
        roll_back("untrained")
    assert load_expert_set(CHAMPION).sha256 == first["sha256"]


def test_without_a_stated_registry_it_is_the_file_of_the_evaluations(untrained_set, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval-runs").mkdir()
    with tracking(f"sqlite:///{tmp_path / 'eval-runs' / 'mlflow.db'}"):
        promote(resolve_arm(Arm(name="x", expert_set=str(untrained_set))).facts, run_id=None, reason="PASS")
    assert load_expert_set(CHAMPION).name == "untrained"
