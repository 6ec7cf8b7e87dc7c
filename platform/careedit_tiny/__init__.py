"""The tiny world: drawn scenes, edits with their exact truth, and the oracle that judges edited pictures."""

from __future__ import annotations

from careedit_tiny.oracle.compare import Thresholds
from careedit_tiny.oracle.verdict import Verdict, judge
from careedit_tiny.world.draw import changed_region, draw_scene
from careedit_tiny.world.operations import EXPERT_OF, KINDS, OPERATIONS
from careedit_tiny.world.samples import SPLITS, Sample, Split, draw_chain, draw_sample, draw_samples, sample_from_dict
from careedit_tiny.world.scene import Scene, Thing, random_scene, scene_from_dict

__all__ = [
    "EXPERT_OF",
    "KINDS",
    "OPERATIONS",
    "SPLITS",
    "Sample",
    "Scene",
    "Split",
    "Thing",
    "Thresholds",
    "Verdict",
    "changed_region",
    "draw_chain",
    "draw_sample",
    "draw_samples",
    "draw_scene",
    "judge",
    "random_scene",
    "sample_from_dict",
    "scene_from_dict",
]
