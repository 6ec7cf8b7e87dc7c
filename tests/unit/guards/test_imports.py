"""What every process of a server imports: a library of models costs each one seconds, so only those that compute load it."""

import subprocess
import sys

import pytest

MODELS = ("torch", "diffusers", "transformers", "peft", "open_clip")


def imported(code: str, names: tuple[str, ...]) -> str:
    """Which of `names` a new process has imported after `code`, separated by spaces."""
    shown = f"import sys\n{code}\nprint(*(name for name in {names} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.strip()


def test_deployments_are_described_without_libraries_of_models() -> None:
    assert imported("import careedit_deployments.app, careedit_deployments.cli.serve", MODELS) == ""


@pytest.mark.parametrize("name", ["careedit_deployments.cluster.router", "careedit_deployments.replica.choice"])
def test_a_router_imports_neither_ray_nor_models_before_it_is_built(name: str) -> None:
    assert imported(f"import {name}", (*MODELS, "ray")) == ""


def test_the_manifests_of_a_set_are_read_without_torch() -> None:
    code = "from careedit.experts import load_expert_set, router_options; s = load_expert_set('tiny'); s.sha256\n"
    assert imported(f"{code}router_options(s.spec, s.folder)", MODELS) == ""


def test_the_learned_router_and_the_judge_need_no_base_model() -> None:
    code = "import careedit.routing.transformer, careedit.scoring.vlm"
    assert imported(code, ("diffusers", "peft", "careedit.editing")) == ""
