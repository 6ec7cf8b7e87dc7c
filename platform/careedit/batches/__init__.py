"""Edits of many pictures: a folder with one instruction, or a table; resumable, with one row of results per edit."""

from careedit.batches.rows import Batch, Rows
from careedit.batches.running import InterruptedBatch, Summary, run_batch

__all__ = ["Batch", "InterruptedBatch", "Rows", "Summary", "run_batch"]
