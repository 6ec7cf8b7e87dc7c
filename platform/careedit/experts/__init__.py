"""Experts: LoRA adapters with manifests, in hashed sets, applied merged or shared."""

from careedit.experts.adapters import AdapterPlan, check_adapter, load_adapter, make_manifest, save_adapter
from careedit.experts.applier import AdapterLibrary, ExpertApplier, LoraApplier, MemoryLibrary, NoExperts
from careedit.experts.appliers import MergedApplier, SharedApplier, make_applier
from careedit.experts.edit_set import (
    Finding,
    add_expert,
    create_expert_set,
    install_router,
    remove_expert,
    transformer_spec,
    verify_expert_set,
)
from careedit.experts.formats import LoraModule, LoraState
from careedit.experts.manifest import (
    Application,
    BaseReference,
    BaseSpec,
    Defaults,
    ExpertManifest,
    ExpertSetFile,
    PanelSpec,
    RouterSpec,
)
from careedit.experts.set import (
    UNIFIED_FOLDER,
    ExpertSet,
    baseline_set,
    has_baseline,
    load_expert_set,
    router_options,
    with_other_experts,
)
from careedit.experts.shapes import (
    DEFAULT_TARGETS,
    FLUX_FILL_CONFIG,
    ICEDIT_TARGETS,
    AdapterShare,
    BaseShapes,
    adapter_share,
    shapes_of,
    shapes_of_base,
    shapes_of_config,
)
from careedit.experts.store import Folder

__all__ = [
    "DEFAULT_TARGETS", "FLUX_FILL_CONFIG", "ICEDIT_TARGETS", "UNIFIED_FOLDER", "AdapterLibrary", "AdapterPlan",
    "AdapterShare", "Application", "BaseReference", "BaseShapes", "BaseSpec", "Defaults", "ExpertApplier",
    "ExpertManifest", "ExpertSet", "ExpertSetFile", "Finding", "Folder", "LoraApplier", "LoraModule", "LoraState",
    "MemoryLibrary", "MergedApplier", "NoExperts", "PanelSpec", "RouterSpec", "SharedApplier", "adapter_share",
    "add_expert", "baseline_set", "check_adapter", "create_expert_set", "has_baseline", "install_router",
    "load_adapter", "load_expert_set", "make_applier", "make_manifest", "remove_expert", "router_options",
    "save_adapter", "shapes_of", "shapes_of_base", "shapes_of_config", "transformer_spec", "verify_expert_set",
    "with_other_experts",
]  # fmt: skip
