"""Experts: LoRA adapters with manifests, in hashed sets, applied merged or shared."""

from careedit.experts.applier import make_applier
from careedit.experts.base import Application, ExpertApplier, NoExperts
from careedit.experts.baseline import UNIFIED_FOLDER, baseline_set, has_baseline
from careedit.experts.check import AdapterPlan, check_adapter, load_adapter
from careedit.experts.edit_set import (
    Finding,
    add_expert,
    create_expert_set,
    remove_expert,
    verify_expert_set,
)
from careedit.experts.fingerprint import BaseShapes, shapes_of, shapes_of_base, shapes_of_config
from careedit.experts.formats import LoraModule, LoraState
from careedit.experts.library import AdapterLibrary, MemoryLibrary
from careedit.experts.make import DEFAULT_TARGETS, ICEDIT_TARGETS, make_manifest, save_adapter
from careedit.experts.manifest import BaseReference, ExpertManifest
from careedit.experts.memory import FLUX_FILL_CONFIG, AdapterShare, adapter_share
from careedit.experts.merged import MergedApplier
from careedit.experts.router_files import install_router, router_options, transformer_spec
from careedit.experts.set import (
    BaseSpec,
    Defaults,
    ExpertSet,
    ExpertSetFile,
    PanelSpec,
    RouterSpec,
    load_expert_set,
)
from careedit.experts.shared import SharedApplier
from careedit.experts.store import Folder

__all__ = [
    "DEFAULT_TARGETS",
    "FLUX_FILL_CONFIG",
    "ICEDIT_TARGETS",
    "UNIFIED_FOLDER",
    "AdapterLibrary",
    "AdapterPlan",
    "AdapterShare",
    "Application",
    "BaseReference",
    "BaseShapes",
    "BaseSpec",
    "Defaults",
    "ExpertApplier",
    "ExpertManifest",
    "ExpertSet",
    "ExpertSetFile",
    "Finding",
    "Folder",
    "LoraModule",
    "LoraState",
    "MemoryLibrary",
    "MergedApplier",
    "NoExperts",
    "PanelSpec",
    "RouterSpec",
    "SharedApplier",
    "adapter_share",
    "add_expert",
    "baseline_set",
    "check_adapter",
    "create_expert_set",
    "has_baseline",
    "install_router",
    "load_adapter",
    "load_expert_set",
    "make_applier",
    "make_manifest",
    "remove_expert",
    "router_options",
    "save_adapter",
    "shapes_of",
    "shapes_of_base",
    "shapes_of_config",
    "transformer_spec",
    "verify_expert_set",
]
