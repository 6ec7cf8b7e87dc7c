"""`careedit bench serve` and `soak`: speed of the served platform, and whether it stays stable under load."""
