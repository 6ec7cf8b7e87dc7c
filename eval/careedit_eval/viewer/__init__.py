"""The viewer: every sample of a run in a browser, from a small server on this machine."""

from careedit_eval.viewer.folder import ViewedRun
from careedit_eval.viewer.library import Library
from careedit_eval.viewer.server import make_server

__all__ = ["Library", "ViewedRun", "make_server"]
