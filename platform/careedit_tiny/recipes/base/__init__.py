"""The base: what it is trained on, its probes, and its widths."""
