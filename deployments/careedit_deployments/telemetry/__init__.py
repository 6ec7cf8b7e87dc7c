"""What is told of the work: metrics, logs and spans. Light to import: no torch, and Ray only where a replica asks for it."""
