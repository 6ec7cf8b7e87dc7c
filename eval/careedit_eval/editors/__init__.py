"""Who edits: a set in this process, a live service, or what needs no model; all behind one protocol."""

from careedit_eval.editors.base import Edited, EditFailed, EditWork, SampleEditor
from careedit_eval.editors.make import Resolved, make_editor, resolve_arm

__all__ = ["EditFailed", "EditWork", "Edited", "Resolved", "SampleEditor", "make_editor", "resolve_arm"]
