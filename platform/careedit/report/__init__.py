"""Pages for people: results as self-contained HTML."""

from careedit.report.page import EditRow, write_edit_page

__all__ = ["EditRow", "write_edit_page"]
