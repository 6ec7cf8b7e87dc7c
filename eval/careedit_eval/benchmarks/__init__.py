"""Benchmarks: public data sets by their own columns, and the tiny world in the same ones."""
