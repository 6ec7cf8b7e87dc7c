"""Metrics, logs and spans. Cheap to import: no torch, and Ray only inside a replica."""
