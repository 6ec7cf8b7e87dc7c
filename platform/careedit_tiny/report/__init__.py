"""Pages about edits of the drawn world."""
