"""A/B in traffic: what served arms did, as `careedit ab export` wrote it, compared so that anyone may look at any time."""

from careedit_eval.online.analysis import ArmTraffic, OnlineDifference, OnlineReport, analyse_traffic
from careedit_eval.online.export import Traffic, read_export

__all__ = ["ArmTraffic", "OnlineDifference", "OnlineReport", "Traffic", "analyse_traffic", "read_export"]
