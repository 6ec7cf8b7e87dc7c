"""What is told of a run: the analysis as JSON, and one page for people."""

from careedit_eval.report.analysis import Analysis, Compared, analyse, write_analysis
from careedit_eval.report.page import write_report

__all__ = ["Analysis", "Compared", "analyse", "write_analysis", "write_report"]
