"""The results of a run: the analysis as JSON, and one HTML page."""

from careedit_eval.report.analysis import Analysis, Compared, analyse, write_analysis
from careedit_eval.report.page import write_report

__all__ = ["Analysis", "Compared", "analyse", "write_analysis", "write_report"]
