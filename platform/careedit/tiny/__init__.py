"""The tiny world: drawn scenes, edits with their exact truth, and the oracle that judges edited pictures."""

from __future__ import annotations

from careedit.tiny.compare import Thresholds
from careedit.tiny.draw import changed_region, draw_scene
from careedit.tiny.operations import EXPERT_OF, KINDS, OPERATIONS
from careedit.tiny.oracle import Verdict, judge
from careedit.tiny.samples import SPLITS, Sample, Split, draw_chain, draw_sample, draw_samples, sample_from_dict
from careedit.tiny.scene import Scene, Thing, random_scene, scene_from_dict

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
