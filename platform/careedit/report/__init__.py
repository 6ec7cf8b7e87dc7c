"""Pages for people: results as self-contained HTML."""

from careedit.report.page import EditRow, Figure, write_edit_page

__all__ = ["EditRow", "Figure", "write_edit_page"]
