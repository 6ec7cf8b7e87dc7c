import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

import careedit
from careedit.cli import experts
from careedit.errors import ExpertError, InputError, ManifestError
from careedit.experts import load_expert_set
from careedit.experts.bom import bill_of_materials
from careedit.experts.licence import base_licence, check_commercial, is_commercial
from careedit.experts.manifest import SET_FILE
from careedit.experts.set import packaged_set
from careedit_deployments.cli.serve import check_sets
from careedit_deployments.config import ServeConfig

PACKAGED = "1f6dc1604712"


@pytest.fixture
def a_set(tmp_path):
    """Makes a set of the packaged set's own file and experts, with another base; no weights."""

    def make(readme=None, expert=None, **base):
        source = packaged_set("tiny")
        spec = yaml.safe_load((source / SET_FILE).read_text("utf-8"))
        spec["base"].update(base)
        (tmp_path / SET_FILE).write_text(yaml.safe_dump(spec), "utf-8")
        shutil.copytree(source / "experts", tmp_path / "experts", ignore=shutil.ignore_patterns("*.safetensors"))
        if readme is not None:
            (tmp_path / "base").mkdir()
            (tmp_path / "base/README.md").write_text(readme, "utf-8")
        if expert is not None:
            manifest = tmp_path / "experts/erase/expert.yaml"
            manifest.write_text(
                manifest.read_text("utf-8").replace("licence: Apache-2.0", f"licence: {expert}"), "utf-8"
            )
        return load_expert_set(tmp_path)

    return make


def test_the_packaged_set_may_be_used_commercially_and_keeps_its_hash(a_set):
    packaged = load_expert_set("tiny")
    check_commercial(packaged)
    assert base_licence(packaged).licence == "apache-2.0"
    assert packaged.sha256.startswith(PACKAGED)
    assert a_set(licence="Apache-2.0", commercial=True).sha256 == packaged.sha256, "a licence decides no edit"


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({"path": "black-forest-labs/FLUX.1-Fill-dev"}, "FLUX.1-Fill-dev.* may not be used commercially"),
        ({"path": "Black-Forest-Labs/FLUX.2-klein-9B"}, "may not be used commercially"),
        ({"licence": "CC-BY-NC-4.0"}, "may not be used commercially"),
        ({"licence": "Apache-2.0", "commercial": False}, "may not be used commercially"),
        ({"readme": "---\nlicense: other\nlicense_name: flux-1-dev-non-commercial-license\n---\n"}, "non-commercial"),
        ({"path": "someone/else"}, "states no licence; read the licence, then state base.licence"),
        ({"licence": "Our own terms"}, "which careedit does not know"),
        ({"readme": "---\nlicense: other\n---\n"}, "states no licence"),
        ({"readme": "no front matter"}, "states no licence"),
        ({"readme": "---\nlicense: [\n---\n"}, "states no licence"),
        ({"licence": "MIT", "expert": "CC-BY-NC-4.0"}, "The expert 'erase'.* may not be used commercially"),
    ],
)
def test_a_set_that_may_not_be_used_commercially_is_refused_by_name(a_set, base, words):
    with pytest.raises(ExpertError, match=words):
        check_commercial(a_set(**base))


@pytest.mark.parametrize(
    "base",
    [
        {"path": "black-forest-labs/FLUX.2-klein-4B"},
        {"path": "Qwen/Qwen-Image-Edit-2511"},
        {"path": "black-forest-labs/FLUX.1-Fill-dev", "licence": "Contract 12 with the maker", "commercial": True},
        {"licence": "MIT"},
        {"readme": "---\nlicense: apache-2.0\n---\n# Base\n"},
    ],
)
def test_a_set_that_may_be_used_commercially_is_accepted(a_set, base):
    check_commercial(a_set(**base))


def test_a_commercial_server_refuses_the_set_before_it_deploys_anything(a_set, tmp_path):
    a_set(path="black-forest-labs/FLUX.1-Fill-dev")
    config = ServeConfig(arms={"fill": {"expert_set": str(tmp_path)}}, commercial=True)
    with pytest.raises(ExpertError, match="may not be used commercially"):
        check_sets(config)


def test_a_statement_without_a_licence_is_refused(a_set):
    with pytest.raises(ManifestError, match="no licence is named"):
        a_set(commercial=True)
    assert is_commercial("LGPL-9") is None


def test_the_bill_of_materials_lists_weights_data_and_recipes_once(tmp_path):
    components = bill_of_materials(load_expert_set("tiny"))
    by_name = {one["name"]: one for one in components}
    erase = by_name["erase"]
    assert erase["type"] == "machine-learning-model" and erase["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    assert erase["hashes"][0]["content"] == load_expert_set("tiny").manifest("erase").sha256
    assert "tiny world" in erase["modelCard"]["modelParameters"]["datasets"][0]["name"]
    assert by_name["base/transformer/diffusion_pytorch_model.safetensors"]["licenses"]
    assert {one["data"][0]["type"] for one in components if one["type"] == "data"} == {"source-code", "dataset"}
    file = tmp_path / "sbom.json"
    described = {"metadata": {"component": {"name": "careedit", "type": "application"}}, "specVersion": "1.6"}
    file.write_text(json.dumps({"bomFormat": "CycloneDX", **described, "components": [{"bom-ref": "torch"}]}))
    for _ in range(2):
        assert CliRunner().invoke(experts.app, ["bom", "--into", str(file)]).exit_code == 0
    written = json.loads(file.read_text())
    assert written["metadata"]["component"]["version"] == careedit.__version__
    refs = [one["bom-ref"] for one in written["components"]]
    assert refs[0] == "torch" and len(refs) == len(set(refs)) == 1 + len(components)
    file.write_text("{}")
    refused = CliRunner().invoke(experts.app, ["bom", "--into", str(file)])
    assert isinstance(refused.exception, InputError) and file.read_text() == "{}"
