"""Metrics: each one small, each with its whole identity, none with a number that it did not measure."""
