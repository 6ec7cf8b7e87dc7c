"""What the tiny family is worth: right edits by every way of routing, and by every way of filtering."""
